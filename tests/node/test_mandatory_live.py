"""The mandatory policy in force above the node's own: never less than what was told once."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from identity import PolicyFile, SignedPolicy
from node.mandatory_live import LiveMandatory
from node.metrics import Metrics
from node.policy_live import LivePolicy
from node.state_folder import StateFolder
from node.store import POLICIES_MAX
from policy import Action, Denial, Permit, PolicyEngine, Request
from tests.node.test_mandatory import Node, enrolled
from tests.node.test_mandatory import acme as acme
from tests.node.test_mandatory import clock as clock
from tests.node.test_mandatory import make as make
from tests.node.test_policy_live import ALLOWS, DENIES, DENY, TOP
from tests.policy.helpers import NOW, ask, node

ASKS = TOP + "rules:\n  - {name: upper asks, effect: allow, actions: [message.ask]}\n"
ONLY_TELLS = TOP + "rules:\n  - {name: upper tells, effect: allow, actions: [message.tell]}\n"
LIMITED = (
    TOP + "rules:\n  - {name: few, effect: allow, actions: [message.ask], "
    "limit: {rate: 1/h, burst: 2}}\n"
)
OF_A_LATER_VERSION = TOP + "rules:\n  - {name: x, effect: allow, actions: [message.sing]}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StateFolder]:
    with StateFolder.open(tmp_path / "state") as folder:
        folder.policy.write_text(ALLOWS)
        yield folder


class Obeying:
    """A program's two policies, as they are composed; may be started again."""

    def __init__(self, folder: StateFolder, member: Node, *, required: bool = False) -> None:
        self.folder, self.member, self.required = folder, member, required
        self.start()

    def start(self) -> None:
        self.metrics = Metrics("gateway", "0")
        clock = self.member.clock
        self.policy = LivePolicy.open(self.folder, clock, self.metrics)
        self.live = LiveMandatory(
            self.member.mandatory, self.policy, clock, self.metrics, required=self.required
        )
        self.heard: list[str] = []
        self.policy.on_change.append(lambda: self.heard.append(self.policy.engine.version))

    def start_again(self) -> None:
        self.member.reopen()
        self.start()

    async def take(self, encoded: bytes) -> None:
        self.member.mandatory.offer_untrusted(encoded)
        await self.live.take()

    def allows(self, request: Request | None = None) -> bool:
        return isinstance(self.policy.engine.decide(request or ask(), NOW), Permit)

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.live.status())


@pytest.fixture
def obeying(folder: StateFolder, acme: Node, make: Callable[..., Node]) -> Obeying:
    return Obeying(folder, enrolled(make("a"), acme))


def publish(acme: Node, *texts: str) -> bytes:
    files = [PolicyFile(f"{number}.yaml", text) for number, text in enumerate(texts)]
    return acme.mandatory.publish(files).encoded


async def test_both_must_allow(obeying: Obeying, acme: Node) -> None:
    alone = obeying.allows()
    await obeying.take(publish(acme, ASKS))
    with_asks = obeying.allows()
    await obeying.take(publish(acme, ONLY_TELLS))

    assert (alone, with_asks, obeying.allows()) == (True, True, False)
    assert len(obeying.heard) == len(set(obeying.heard)) == 2


async def test_the_nodes_own_files_narrow_and_never_widen(
    obeying: Obeying, acme: Node, folder: StateFolder
) -> None:
    await obeying.take(publish(acme, ASKS))
    folder.policy.write_text(DENIES)
    await obeying.policy.reload()
    narrowed = obeying.allows()
    await obeying.take(publish(acme, ONLY_TELLS))
    folder.policy.write_text(ALLOWS)
    await obeying.policy.reload()

    assert not narrowed
    assert not obeying.allows()


async def test_it_is_obeyed_from_the_first_moment_after_a_restart(
    obeying: Obeying, acme: Node
) -> None:
    await obeying.take(publish(acme, ONLY_TELLS))
    obeying.start_again()

    assert not obeying.allows()
    assert obeying.status["number"] == acme.number


async def test_an_empty_one_asks_for_nothing(obeying: Obeying, acme: Node) -> None:
    await obeying.take(publish(acme, ONLY_TELLS))
    await obeying.take(publish(acme))

    assert obeying.allows()
    assert obeying.status["number"] == acme.number
    assert obeying.status["rules"] == 0


async def test_one_that_is_only_signed_anew_asks_nobody_again(obeying: Obeying, acme: Node) -> None:
    await obeying.take(publish(acme, ASKS))
    obeying.heard.clear()
    await obeying.take(publish(acme, ASKS))

    assert obeying.heard == []
    assert obeying.status["number"] == acme.number


async def test_one_that_cannot_be_read_leaves_the_one_before_in_force_and_is_said(
    obeying: Obeying, acme: Node
) -> None:
    await obeying.take(publish(acme, ONLY_TELLS))
    number = acme.number
    await obeying.take(publish(acme, OF_A_LATER_VERSION))
    refused = obeying.metrics.value("mandatory_policy_refused")
    obeying.start_again()

    assert not obeying.allows()
    assert refused == 1
    assert obeying.status["number"] == number
    fault = obeying.status["fault"]
    assert fault["number"] == acme.number
    assert "message.sing" in fault["why"]
    assert "mandatory:0.yaml" in fault["why"]


@pytest.mark.parametrize("again", [False, True])
async def test_where_the_first_cannot_be_read_nothing_but_the_baseline_is_allowed(
    obeying: Obeying, acme: Node, again: bool
) -> None:
    await obeying.take(publish(acme, OF_A_LATER_VERSION))
    if again:
        obeying.start_again()

    assert not obeying.allows()
    peer, own = node("agent://acme/node/b"), node("agent://acme/node/a")
    assert obeying.allows(Request(Action.HOP_ADMIT, peer, own))


async def test_a_readable_one_ends_the_fault(obeying: Obeying, acme: Node) -> None:
    await obeying.take(publish(acme, OF_A_LATER_VERSION))
    await obeying.take(publish(acme, ASKS))

    assert obeying.allows()
    assert obeying.status["fault"] is None
    assert obeying.metrics.value("mandatory_policy_refused") == 0


async def test_where_one_is_required_nothing_but_the_baseline_is_allowed_before(
    folder: StateFolder, acme: Node, make: Callable[..., Node]
) -> None:
    obeying = Obeying(folder, enrolled(make("a"), acme), required=True)
    before = obeying.allows(), obeying.live.awaited
    peer, own = node("agent://acme/node/b"), node("agent://acme/node/a")
    in_mesh = obeying.allows(Request(Action.HOP_ADMIT, peer, own))
    await obeying.take(publish(acme))

    assert before == (False, True)
    assert in_mesh
    assert (obeying.allows(), obeying.live.awaited) == (True, False)


async def test_what_is_spent_stays_spent(obeying: Obeying, acme: Node) -> None:
    await obeying.take(publish(acme, LIMITED))
    spent = [obeying.allows() for _ in range(3)]
    await obeying.take(publish(acme, LIMITED, TOP + DENY.replace("message.ask", "message.tell")))
    replaced = obeying.allows()
    await obeying.take(publish(acme))
    await obeying.take(publish(acme, LIMITED))

    assert spent == [True, True, False]
    assert not replaced
    assert not obeying.allows()


async def test_a_denial_names_the_rule_and_whose_it_is(obeying: Obeying, acme: Node) -> None:
    await obeying.take(publish(acme, DENIES))

    answer = obeying.policy.engine.decide(ask(), NOW)

    assert isinstance(answer, Denial)
    assert answer.rule == "mandatory: never"


async def test_a_newer_one_is_put_into_force_by_itself(obeying: Obeying, acme: Node) -> None:
    changed = asyncio.Event()
    obeying.policy.on_change.append(changed.set)
    running = asyncio.create_task(obeying.live.run())
    obeying.member.mandatory.offer_untrusted(publish(acme, ONLY_TELLS))
    async with asyncio.timeout(5):
        await changed.wait()
    running.cancel()

    assert not obeying.allows()
    assert obeying.metrics.value("mandatory_policy_number") == acme.number
    assert obeying.metrics.value("mandatory_policies_taken_total") == 1


async def test_a_fault_of_ours_ends_nothing_and_is_said(
    obeying: Obeying, acme: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await obeying.take(publish(acme, ONLY_TELLS))
    monkeypatch.setattr(obeying.live, "_compile", lambda signed: 1 // 0)
    await obeying.take(publish(acme, ASKS))

    assert not obeying.allows()
    assert "ZeroDivisionError" in obeying.status["fault"]["why"]


async def test_a_fault_of_ours_ends_no_start(
    obeying: Obeying, acme: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await obeying.take(publish(acme, ONLY_TELLS))
    readable = obeying.status["number"]
    await obeying.take(publish(acme, ASKS))
    honest = LiveMandatory._compile

    def compile_(live: LiveMandatory, signed: SignedPolicy) -> PolicyEngine | None:
        if signed.number != readable:
            raise ZeroDivisionError
        return honest(live, signed)

    monkeypatch.setattr(LiveMandatory, "_compile", compile_)
    obeying.start_again()

    assert not obeying.allows()
    assert obeying.status["number"] == readable
    assert "ZeroDivisionError" in obeying.status["fault"]["why"]


async def test_the_one_in_force_is_there_after_a_restart_however_many_cannot_be_read(
    obeying: Obeying, acme: Node
) -> None:
    await obeying.take(publish(acme, ONLY_TELLS))
    number = acme.number
    for _ in range(POLICIES_MAX + 1):
        await obeying.take(publish(acme, OF_A_LATER_VERSION))
    obeying.start_again()

    assert not obeying.allows()
    assert obeying.status["number"] == number
