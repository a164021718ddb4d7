"""The UDP socket where the kernel refuses something: segmentation, room, or the datagram."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from tests.transport.helpers import WAIT_S, Owner, endpoint, make_identity
from transport import HopPurpose
from transport.limits import READS_PER_TURN_MAX, SEND_RETRIES_MAX
from transport.udp import UdpSocket, normalise_address, source_group


class StubbornSocket:
    """A socket whose sends meet the errors that a test lists, and then work."""

    def __init__(self, inner: socket.socket, errors: list[int], *, only_segments: bool) -> None:
        self._inner = inner
        self.errors = errors
        self._only_segments = only_segments

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _meet(self) -> None:
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, "on purpose")

    def sendto(self, *arguments: Any) -> int:
        if not self._only_segments:
            self._meet()
        return self._inner.sendto(*arguments)

    def sendmsg(self, *arguments: Any) -> int:
        self._meet()
        return self._inner.sendmsg(*arguments)


@asynccontextmanager
async def two_sockets() -> AsyncIterator[tuple[UdpSocket, UdpSocket]]:
    loop = asyncio.get_running_loop()
    made = [UdpSocket.bind("127.0.0.1", 0, loop, segmentation=True) for _ in range(2)]
    try:
        yield made[0], made[1]
    finally:
        for sock in made:
            sock.close()


async def receive_all(
    sender: UdpSocket, receiver: UdpSocket, datagrams: list[bytes]
) -> list[bytes]:
    received: list[bytes] = []
    done = asyncio.Event()

    def on_readable() -> None:
        for data, segment_bytes, source, _ in receiver.receive():
            assert source == sender.address
            step = segment_bytes or len(data)
            received.extend(data[at : at + step] for at in range(0, len(data), step))
        if len(received) >= len(datagrams):
            done.set()

    receiver.start(on_readable, lambda: None)
    sender.start(lambda: None, lambda: None)
    sender.send([(datagram, receiver.address) for datagram in datagrams])
    async with asyncio.timeout(WAIT_S):
        await done.wait()
    return received


FLIGHT = [bytes([number]) * 1200 for number in range(30)] + [b"short"] + [b"x" * 900] * 3


@pytest.mark.parametrize(
    "refusal", [errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT, errno.EMSGSIZE]
)
async def test_a_kernel_that_refuses_segments_is_served_one_by_one(refusal: int) -> None:
    async with two_sockets() as (sender, receiver):
        inner = sender._socket
        sender._socket = StubbornSocket(inner, [refusal], only_segments=True)  # type: ignore[assignment]
        assert await receive_all(sender, receiver, FLIGHT) == FLIGHT
        assert sender.segments_out is False
        assert sender.counters.dropped_error == 0


async def test_a_run_that_is_too_large_for_its_path_does_not_cost_others_their_segments() -> None:
    async with two_sockets() as (sender, receiver):
        inner = sender._socket
        run = FLIGHT[:5]
        refusals = [errno.EMSGSIZE] * (1 + len(run))  # The run, and then each alone.
        sender._socket = StubbornSocket(inner, refusals, only_segments=False)  # type: ignore[assignment]
        sender.send([(datagram, receiver.address) for datagram in run])
        assert await receive_all(sender, receiver, FLIGHT) == FLIGHT
        assert sender.segments_out
        assert sender.counters.dropped_error == len(run)


async def test_segments_arrive_as_the_datagrams_they_were() -> None:
    async with two_sockets() as (sender, receiver):
        assert await receive_all(sender, receiver, FLIGHT) == FLIGHT
        assert sender.counters.sent_batches < len(FLIGHT)


@pytest.mark.parametrize("segmentation", [True, False])
async def test_what_a_full_socket_does_not_take_waits_and_is_not_lost(segmentation: bool) -> None:
    async with two_sockets() as (sender, receiver):
        sender.segments_out = segmentation
        inner = sender._socket
        full = [errno.EAGAIN] * 3
        sender._socket = StubbornSocket(inner, full, only_segments=False)  # type: ignore[assignment]
        received = await receive_all(sender, receiver, FLIGHT)
        assert sorted(received) == sorted(FLIGHT)
        assert not sender.is_blocked
        assert sender.counters.dropped_full == 0


async def test_what_waits_is_bounded() -> None:
    async with two_sockets() as (sender, receiver):
        inner = sender._socket
        sender._socket = StubbornSocket(inner, [errno.EAGAIN] * 9, only_segments=False)  # type: ignore[assignment]
        sender.segments_out = False
        sender.send([(b"x", receiver.address)] * (SEND_RETRIES_MAX + 5))
        assert sender.counters.dropped_full == 5


async def test_a_datagram_that_the_kernel_refuses_is_dropped_alone() -> None:
    async with two_sockets() as (sender, receiver):
        inner = sender._socket
        sender._socket = StubbornSocket(inner, [errno.ENETUNREACH], only_segments=False)  # type: ignore[assignment]
        sender.segments_out = False
        sender.send([(b"first", receiver.address)])
        assert await receive_all(sender, receiver, [b"second"]) == [b"second"]
        assert sender.counters.dropped_error == 1


async def test_a_hop_works_without_segmentation() -> None:
    owner, dialler = Owner(), Owner()
    async with (
        endpoint(owner, segmentation=False) as target,
        endpoint(dialler, make_identity("d"), segmentation=False) as near,
    ):
        hop = near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
        await dialler.wait_for("opened")
        for number in range(40):
            hop.send_frame(number + 1, 4, bytes(50_000))
        await owner.wait(lambda owner: len(owner.frames) == 40)


def run_on_asyncio(main: Callable[[], Any]) -> None:
    asyncio.run(main())


def run_on_uvloop(main: Callable[[], Any]) -> None:
    uvloop.run(main())


@pytest.mark.parametrize("run", [run_on_asyncio, run_on_uvloop])
@pytest.mark.parametrize("engine", ["qh3", "aioquic"])
def test_a_hop_carries_megabytes_on_either_event_loop(
    run: Callable[[Callable[[], Any]], None], engine: str
) -> None:
    async def main() -> None:
        owner, dialler = Owner(), Owner()
        async with (
            endpoint(owner, engine=engine) as target,
            endpoint(dialler, make_identity("d"), engine=engine) as near,
        ):
            hop = near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
            await dialler.wait_for("opened")
            for number in range(40):
                hop.send_frame(number + 1, 4, bytes([number]) * 50_000)
            await owner.wait(lambda owner: len(owner.frames) == 40)
            hop.close(113)  # type: ignore[arg-type]
            await owner.wait_for("closed")

    run(main)


ADDRESSES = {
    "IPv4 on a socket for IPv4": (("127.0.0.1", False), ("127.0.0.1", 1)),
    "IPv4 on a socket for both": (("127.0.0.1", True), ("::ffff:127.0.0.1", 1)),
    "IPv6 in another spelling": (("0:0::0:1", True), ("::1", 1)),
}


@pytest.mark.parametrize(("given", "expected"), ADDRESSES.values(), ids=ADDRESSES.keys())
def test_an_address_is_spelt_as_the_socket_reports_it(
    given: tuple[str, bool], expected: tuple[str, int]
) -> None:
    assert normalise_address(given[0], 1, is_v6=given[1]) == expected


def test_one_ipv6_network_counts_as_one_source_and_a_mapped_address_as_ipv4() -> None:
    assert source_group(("2001:db8::1", 1)) == source_group(("2001:db8::ffff:2", 9))
    assert source_group(("2001:db8::1", 1)) != source_group(("2001:db8:0:1::1", 1))
    assert source_group(("::ffff:192.0.2.1", 1)) == source_group(("192.0.2.1", 2))
    assert source_group(("192.0.2.1", 1)) != source_group(("192.0.2.2", 1))


async def test_a_turn_reads_one_datagram_or_all_that_is_there_if_more_is_expected() -> None:
    async with two_sockets() as (sender, receiver):
        for _ in range(3):
            sender.send([(b"x", receiver.address)], None)
        one = len(list(receiver.receive()))
        receiver._read_s = 0.0  # Long ago.
        receiver.expect_more()
        rest = len(list(receiver.receive()))

    assert (one, rest, receiver.is_behind) == (1, 2, False)


async def test_a_turn_that_leaves_something_unread_is_behind() -> None:
    async with two_sockets() as (sender, receiver):
        for _ in range(READS_PER_TURN_MAX + 1):
            sender.send([(b"x", receiver.address)], None)
        receiver.expect_more()
        read = len(list(receiver.receive()))
        was_behind = receiver.is_behind
        receiver.expect_more()
        rest = len(list(receiver.receive()))

    assert (read, was_behind) == (READS_PER_TURN_MAX, True)
    assert (rest, receiver.is_behind) == (1, False)
