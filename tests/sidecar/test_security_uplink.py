"""What a seized gateway may tell of prefixes: nothing that the sidecar does not hold."""

from types import SimpleNamespace
from typing import Any

import pytest

from identity import Code, NamePrefix
from link import Frame, FrameKind, PrefixEpoch
from link.messages import encode_prefix_epoch
from sidecar.uplink import Uplink
from tests.node.quiet import QuietNeighbours

QUIET: Any = QuietNeighbours()

OWN = NamePrefix.parse("agent://acme/finance")
OTHERS = NamePrefix.parse("agent://acme/billing")


class Hop:
    """Remembers how it was closed."""

    def __init__(self, number: int = 1, engine: str = "fake") -> None:
        self.id = number
        self.engine = engine
        self.opened_in_s = 0.0
        self.closed: Code | None = None
        self.peer = SimpleNamespace(identifier=f"gateway {number}")
        self.asked = 0

    def send_frame(self, link: int, kind: int, body: bytes) -> None:
        self.asked += kind == FrameKind.REGISTER

    def close(self, code: Code) -> None:
        self.closed = code


def uplink() -> Uplink:
    identity = SimpleNamespace(delegable=SimpleNamespace(name_prefixes=(OWN,)))
    parts: Any = SimpleNamespace(node=SimpleNamespace(identity=identity))
    router: Any = SimpleNamespace(
        frames_received=lambda hop, frames: None,
        hop_opened=lambda hop: None,
        hop_closed=lambda hop, code: None,
    )
    streams: Any = SimpleNamespace(hop_closed=lambda hop: None)
    return Uplink(parts, router, streams, QUIET, QUIET, wake=lambda: None)


def told(kind: FrameKind, prefix: NamePrefix) -> list[Frame]:
    return [Frame(0, kind, encode_prefix_epoch(PrefixEpoch(prefix, 1)))]


@pytest.mark.parametrize("kind", [FrameKind.REGISTERED, FrameKind.DISPLACED])
def test_news_of_somebody_elses_prefix_costs_the_hop_and_is_not_kept(kind: FrameKind) -> None:
    sidecar, hop = uplink(), Hop()

    sidecar.frames_received(hop, told(kind, OTHERS))  # type: ignore[arg-type]

    assert hop.closed is Code.HOP_BAD_FRAME
    assert not sidecar.displaced
    assert not sidecar.registered


def test_news_of_ones_own_prefix_is_taken() -> None:
    sidecar, hop = uplink(), Hop()
    sidecar.hop_opened(hop)  # type: ignore[arg-type]

    sidecar.frames_received(hop, told(FrameKind.DISPLACED, OWN))  # type: ignore[arg-type]

    assert hop.closed is None
    assert sidecar.displaced == [str(OWN)]


def test_a_gateway_that_takes_no_names_does_not_hide_the_one_that_does() -> None:
    """One of another company, say, whose policy lets our agents call there and not be called."""
    sidecar, ours, theirs = uplink(), Hop(1), Hop(2)
    seen = []
    for hop in (ours, theirs):
        sidecar.hop_opened(hop)  # type: ignore[arg-type]
        seen.append(sidecar.registered)
        if hop is ours:
            sidecar.frames_received(hop, told(FrameKind.REGISTERED, OWN))  # type: ignore[arg-type]
            seen.append(sidecar.registered)
    sidecar.hop_closed(ours, Code.HOP_PEER_LOST, "")  # type: ignore[arg-type]
    seen.append(sidecar.registered)

    assert seen == [False, True, True, False]
    assert (ours.asked, theirs.asked) == (1, 1)
