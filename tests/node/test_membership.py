"""Asking the authority while a program runs: over which hop, and when a way leads nowhere."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from identity import Code, SidelinkError
from node.clocks import ManualClock
from node.membership import Membership
from tests.node.members import DAY_S, Authority, started
from tests.node.streets import FakeHop


class Ways:
    """Gateways that lead nowhere; the second would lead to the authority."""

    def __init__(self, *hops: FakeHop) -> None:
        self.hops = hops
        self.asked: list[int] = []

    def __call__(self, failures: int) -> Any:
        self.asked.append(failures)
        return (self.hops[failures % len(self.hops)], 5) if self.hops else None


def parts_of(node: Any, store: Any, clock: ManualClock) -> Any:
    class Parts:
        pass

    parts: Any = Parts()
    parts.node, parts.store, parts.clock = node, store, clock
    return parts


async def test_gateways_take_turns_until_one_leads_to_the_authority(tmp_path: Path) -> None:
    clock = ManualClock()
    with started(tmp_path, clock) as (node, store):
        Authority().enrol(node, clock.unix_s(), ttl_s=DAY_S)
        hops: list[Any] = [FakeHop(number, peer=None) for number in (1, 2)]  # type: ignore[arg-type]
        ways = Ways(*hops)
        membership = Membership(parts_of(node, store, clock), ways)
        for hop in hops:
            asking = asyncio.create_task(membership.renew())
            await asyncio.sleep(0)
            membership.hop_closed(hop, Code.ROUTE_UNKNOWN, "no authority here")
            with pytest.raises(SidelinkError):
                await asking

    assert ways.asked == [0, 1]
    assert [len(hop.sent) > 0 for hop in hops] == [True, True]


async def test_without_a_hop_nothing_is_asked(tmp_path: Path) -> None:
    clock = ManualClock()
    with started(tmp_path, clock) as (node, store):
        Authority().enrol(node, clock.unix_s(), ttl_s=DAY_S)
        membership = Membership(parts_of(node, store, clock), Ways())
        with pytest.raises(SidelinkError) as caught:
            await membership.renew()

    assert caught.value.code is Code.ENROL_AUTHORITY_UNREACHABLE
