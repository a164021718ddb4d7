"""IPv6, sockets for both families, and a listener that has more than one address."""

import socket

import pytest

from link import FrameKind
from tests.transport.helpers import Owner, endpoint, make_identity
from tests.transport.pairs import QUIC_KINDS
from transport import HopPurpose, limits
from transport.udp import UdpSocket

PIECE = bytes(50_000)
PIECES = 6

# Where the acceptor and the dialler are bound, and what is dialled.
ADDRESSES = {
    "IPv6 on both sides": ("::1", "::1", "::1"),
    "IPv6 to a socket for both families": ("::", "::1", "::1"),
    "IPv6 between sockets for both families": ("::", "::", "::1"),
    "IPv4 to a socket for both families": ("::", "127.0.0.1", "127.0.0.1"),
    "IPv4 between sockets for both families": ("::", "::", "127.0.0.1"),
    "another address than the system would answer from": ("0.0.0.0", "0.0.0.0", "127.0.0.9"),
    "another address of a socket for both families": ("::", "::", "127.0.0.9"),
}


@pytest.mark.parametrize("places", ADDRESSES.values(), ids=ADDRESSES.keys())
@pytest.mark.parametrize("kind", QUIC_KINDS)
async def test_a_hop_opens_and_carries_data_over(kind: str, places: tuple[str, str, str]) -> None:
    here, _, there = kind.partition("→")
    acceptor_host, dialler_host, dialled = places
    owner, dialler = Owner(), Owner()
    async with (
        endpoint(owner, host=acceptor_host, engine=there or here) as target,
        endpoint(dialler, make_identity("d"), host=dialler_host, engine=here) as near,
    ):
        hop = near.dial(dialled, target.address[1], purpose=HopPurpose.ADMIT, target=None)
        await dialler.wait_for("opened")
        await owner.wait_for("opened")
        for _ in range(PIECES):
            hop.send_frame(1, FrameKind.RECORD, PIECE)
            owner.hops[0].send_frame((1 << 31) + 1, FrameKind.RECORD, PIECE)
        for side in (dialler, owner):
            await side.wait(lambda side: len(side.frames) == PIECES)

        assert near.counters.dropped_source == 0
        # The path is known to end here, however its addresses are written.
        plan = owner.hops[0]._carrier._plan  # type: ignore[attr-defined]
        assert plan.datagram_bytes == limits.LOOPBACK_DATAGRAM_BYTES


async def test_a_closed_hop_answers_from_where_it_was_dialled() -> None:
    owner, dialler = Owner(), Owner()
    async with (
        endpoint(owner, host="0.0.0.0") as target,
        endpoint(dialler, make_identity("d")) as near,
    ):
        hop = near.dial("127.0.0.9", target.address[1], purpose=HopPurpose.ADMIT, target=None)
        await dialler.wait_for("opened")
        await owner.wait_for("opened")
        owner.hops[0].close(112)  # type: ignore[arg-type]
        await dialler.wait_for("closed")

        assert not hop.is_open
        assert near.counters.dropped_source == 0


@pytest.mark.parametrize(
    ("host", "usual", "other"),
    [("0.0.0.0", "127.0.0.1", "127.0.0.9"), ("::", "::ffff:127.0.0.1", "::ffff:127.0.0.9")],
)
async def test_the_source_is_named_only_where_the_system_would_take_another(
    host: str, usual: str, other: str
) -> None:
    async with endpoint(Owner(), host=host) as made:
        family = socket.AF_INET6 if ":" in usual else socket.AF_INET
        packed = [socket.inet_pton(family, text) for text in (usual, other)]

        chosen = [made.udp.choose_local((usual, 9), local) for local in (None, *packed)]

        assert chosen == [None, None, packed[1]]


async def test_a_socket_that_is_bound_to_one_address_asks_for_nothing() -> None:
    async with endpoint(Owner()) as made:
        assert isinstance(made.udp, UdpSocket)
        assert made.udp._socket.getsockopt(socket.IPPROTO_IP, 8) == 0  # IP_PKTINFO
