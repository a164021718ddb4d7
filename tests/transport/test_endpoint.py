"""The UDP endpoint against strangers: what costs it state, what it answers, what it survives."""

import asyncio
import os
import socket

import pytest

from identity import Code
from link import FrameKind
from tests.transport.helpers import WAIT_S, Owner, endpoint, make_identity
from tests.transport.test_retry import initial
from transport import Endpoint, HopPurpose, TransportError, TransportSettings, retry
from transport.limits import QUIC_VERSION

ENGINES = ("qh3", "aioquic")
each_engine = pytest.mark.parametrize("engine", ENGINES)


async def ask(sock: socket.socket, target: Endpoint, datagram: bytes) -> bytes:
    sock.sendto(datagram, target.address)
    async with asyncio.timeout(WAIT_S):
        return await asyncio.get_running_loop().sock_recv(sock, 2048)


async def fetch_token(sock: socket.socket, target: Endpoint) -> tuple[bytes, bytes]:
    """Return the Retry's connection id and token, as a client would read them."""
    packet = await ask(sock, target, initial())
    header_bytes = 7 + 8 + 8
    return packet[header_bytes - 8 : header_bytes], packet[header_bytes:-16]


async def settle(target: Endpoint, sock: socket.socket) -> list[bytes]:
    """Wait until the endpoint has read all that the stranger sent; return what it answered."""
    sock.sendto(initial(version=0x0A0A0A0A), target.address)
    answers: list[bytes] = []
    async with asyncio.timeout(WAIT_S):
        while True:
            answer = await asyncio.get_running_loop().sock_recv(sock, 2048)
            if answer[1:5] == bytes(4):  # Version Negotiation: the answer to our question.
                return answers
            answers.append(answer)


@each_engine
async def test_a_first_initial_costs_a_retry_and_no_state(
    engine: str, stranger: socket.socket
) -> None:
    async with endpoint(Owner(), engine=engine) as target:
        packet = await ask(stranger, target, initial())
        assert packet[0] & 0xF0 == 0xF0
        assert len(packet) < 1200 // 3  # Never an amplifier.
        assert (target.counters.retries_sent, target.connection_count) == (1, 0)


async def test_an_unknown_version_is_answered_with_ours(stranger: socket.socket) -> None:
    async with endpoint(Owner()) as target:
        packet = await ask(stranger, target, initial(version=0x6B3343CF))
        assert QUIC_VERSION in retry.decode_versions_untrusted(packet)
        assert target.connection_count == 0


SILENTLY_DROPPED = {
    "one byte": b"x",
    "noise": bytes(range(256)) * 5,
    "a version 0 datagram, which an engine would answer": b"\xc0\0\0\0\0\x08original\x08sourceid"
    + bytes(1200),
    "an Initial shorter than 1,200 bytes": initial()[:1199],
    "an unknown version shorter than 1,200 bytes": initial(version=7)[:600],
    "a short header of nobody": b"\x40" + bytes(60),
    "a handshake packet of nobody": initial(first=0xE0),
    "a 0-RTT packet of nobody": initial(first=0xD0),
    "an Initial whose connection id is too short": initial(destination_id=b"short"),
    "an Initial with a token that is noise": initial(token=os.urandom(80)),
}


@pytest.mark.parametrize("datagram", SILENTLY_DROPPED.values(), ids=SILENTLY_DROPPED.keys())
async def test_nothing_is_answered_and_nothing_kept_for(
    datagram: bytes, stranger: socket.socket
) -> None:
    async with endpoint(Owner()) as target:
        stranger.sendto(datagram, target.address)
        assert await settle(target, stranger) == []
        assert (target.connection_count, target.counters.retries_sent) == (0, 0)


async def test_a_token_counts_only_from_its_address_in_its_time_and_unchanged(
    stranger: socket.socket,
) -> None:
    async with endpoint(Owner(), retry_lifetime_s=0.05) as target:
        retry_id, token = await fetch_token(stranger, target)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(initial(destination_id=retry_id, token=token), target.address)
        forged = token[:-1] + bytes([token[-1] ^ 1])
        stranger.sendto(initial(destination_id=retry_id, token=forged), target.address)
        stranger.sendto(initial(destination_id=b"elsewhere", token=token), target.address)
        await settle(target, stranger)
        assert (target.counters.dropped_token, target.connection_count) == (3, 0)
        await asyncio.sleep(0.06)
        stranger.sendto(initial(destination_id=retry_id, token=token), target.address)
        await settle(target, stranger)
        assert (target.counters.dropped_token, target.connection_count) == (4, 0)


@each_engine
async def test_half_open_connections_of_one_source_are_capped_and_time_out(
    engine: str, stranger: socket.socket
) -> None:
    owner = Owner()
    settings = {"half_open_per_source_max": 3, "handshake_timeout_s": 0.1}
    async with endpoint(owner, engine=engine, **settings) as target:
        for _ in range(8):
            retry_id, token = await fetch_token(stranger, target)
            stranger.sendto(initial(destination_id=retry_id, token=token), target.address)
        await settle(target, stranger)
        assert target.half_open_count == 3
        assert target.counters.dropped_half_open == 5
        await owner.wait_for("closed", 3)
        assert (target.half_open_count, target.connection_count) == (0, 0)
        assert target.counters.failed_connections == 0


async def test_half_open_connections_are_capped_in_all(stranger: socket.socket) -> None:
    async with endpoint(Owner(), half_open_max=2) as target:
        for _ in range(4):
            retry_id, token = await fetch_token(stranger, target)
            stranger.sendto(initial(destination_id=retry_id, token=token), target.address)
        await settle(target, stranger)
        assert (target.half_open_count, target.counters.dropped_half_open) == (2, 2)


@each_engine
async def test_a_client_that_floods_before_it_is_accepted_is_cut(
    engine: str, stranger: socket.socket
) -> None:
    owner = Owner()
    async with endpoint(owner, engine=engine) as target:
        retry_id, token = await fetch_token(stranger, target)
        datagram = initial(destination_id=retry_id, token=token)
        for number in range(128 * 1024 // len(datagram) + 1):
            stranger.sendto(datagram, target.address)
            if number % 8 == 0:
                await settle(target, stranger)  # More at once would be dropped in the lobby.
        await owner.wait_for("closed")
        assert owner.code is Code.HOP_LIMIT_EXCEEDED
        assert target.connection_count == 0


@each_engine
async def test_a_hop_still_opens_while_strangers_send_noise(
    engine: str, stranger: socket.socket
) -> None:
    owner, dialler = Owner(), Owner()
    async with (
        endpoint(owner, engine=engine) as target,
        endpoint(dialler, make_identity("d"), engine=engine) as near,
    ):
        for size in range(0, 1400, 10):
            stranger.sendto(os.urandom(size), target.address)
        near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
        await dialler.wait_for("opened")


@pytest.mark.parametrize("where", ["receive", "take_datagrams", "take_events"])
@pytest.mark.parametrize("error", [RuntimeError, BaseException])
async def test_an_engines_exception_costs_its_own_connection_only(
    where: str, error: type[BaseException]
) -> None:
    """A panic of a Rust core is a BaseException and no Exception."""
    owner, dialler = Owner(), Owner()
    async with endpoint(owner) as target, endpoint(dialler, make_identity("d")) as near:
        good = near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
        await owner.wait_for("opened", 1)
        bad = near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
        await dialler.wait_for("opened", 2)
        await owner.wait_for("opened", 2)
        (broken,) = [c for c in near._connections if c.hop is bad]

        def break_down(*_: object) -> None:
            raise error("broken on purpose")

        setattr(broken._engine, where, break_down)
        bad.send_frame(1, FrameKind.RECORD, b"x")
        owner.hops[1].send_frame((1 << 31) + 1, FrameKind.RECORD, b"x")
        await dialler.wait_for("closed")
        assert dialler.log[-1] == ("closed", Code.HOP_INTERNAL)
        assert near.counters.failed_connections >= 1
        good.send_frame(1, FrameKind.RECORD, b"alive")
        await owner.wait(lambda owner: owner.frames and owner.frames[-1].body == b"alive")
        assert near.connection_count == 1


async def test_a_handler_that_raises_costs_its_own_hop_only() -> None:
    class Clumsy(Owner):
        def hop_opened(self, hop: object) -> None:
            raise ZeroDivisionError

    owner, clumsy = Owner(), Clumsy()
    async with endpoint(owner) as target, endpoint(clumsy, make_identity("d")) as near:
        near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
        await clumsy.wait_for("closed")
        await owner.wait_for("closed")
        assert clumsy.code is Code.HOP_INTERNAL
        assert near.connection_count == 0


@each_engine
async def test_dialling_where_nobody_listens_is_unreachable(engine: str) -> None:
    owner = Owner()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        async with endpoint(owner, engine=engine, handshake_timeout_s=0.1) as near:
            near.dial(*silent.getsockname(), purpose=HopPurpose.ADMIT, target=None)
            await owner.wait_for("closed")
            assert owner.code is Code.HOP_UNREACHABLE
            assert near.connection_count == 0


async def test_a_peer_that_speaks_another_quic_is_told_apart(stranger: socket.socket) -> None:
    owner = Owner()
    async with endpoint(owner) as near:
        near.dial(*stranger.getsockname(), purpose=HopPurpose.ADMIT, target=None)
        async with asyncio.timeout(WAIT_S):
            first = await asyncio.get_running_loop().sock_recv(stranger, 2048)
        header = retry.parse_long_header_untrusted(first)
        answer = bytearray(retry.encode_version_negotiation(header))
        answer[-8:-4] = b"\x6b\x33\x43\xcf"
        stranger.sendto(answer, near.address)
        await owner.wait_for("closed")
        assert owner.code is Code.HOP_VERSION_UNSUPPORTED


UNREACHABLE_HOSTS = {
    "a name that does not exist": "no-such-host.invalid",
    "a name that is too long": "x" * 300,
    "an IPv6 address on a socket for IPv4": "::1",
}


@pytest.mark.parametrize("host", UNREACHABLE_HOSTS.values(), ids=UNREACHABLE_HOSTS.keys())
@each_engine
async def test_a_hop_that_cannot_begin_is_told_like_any_other_for(engine: str, host: str) -> None:
    owner = Owner()
    async with endpoint(owner, engine=engine) as near:
        near.dial(host, 9, purpose=HopPurpose.ADMIT, target=None)
        assert owner.code is None  # Never from within the owner's own call.
        await owner.wait_for("closed")
        assert owner.code is Code.HOP_UNREACHABLE
        assert near.counters.failed_connections == 0


@each_engine
async def test_closing_an_endpoint_ends_a_dial_that_still_looks_up_its_name(engine: str) -> None:
    owner = Owner()
    async with endpoint(owner, engine=engine) as near:
        near.dial("localhost", 9, purpose=HopPurpose.ADMIT, target=None)
    assert owner.code is Code.HOP_CLOSED
    assert near.counters.failed_connections == 0


async def test_a_name_is_resolved_and_dialled() -> None:
    owner, dialler = Owner(), Owner()
    async with endpoint(owner) as target, endpoint(dialler, make_identity("d")) as near:
        near.dial("localhost", target.address[1], purpose=HopPurpose.ADMIT, target=None)
        await dialler.wait_for("opened")


@pytest.mark.parametrize("dialled", ["::1", "127.0.0.1"])
@each_engine
async def test_a_socket_for_both_families_serves_both(engine: str, dialled: str) -> None:
    owner, dialler = Owner(), Owner()
    async with (
        endpoint(owner, host="::", engine=engine) as target,
        endpoint(dialler, make_identity("d"), host="::", engine=engine) as near,
    ):
        near.dial(dialled, target.address[1], purpose=HopPurpose.ADMIT, target=None)
        await dialler.wait_for("opened")


async def test_one_socket_dials_and_accepts_even_itself() -> None:
    owner = Owner()
    async with endpoint(owner) as both:
        both.dial(*both.address, purpose=HopPurpose.ADMIT, target=None)
        await owner.wait_for("closed", 2)
        assert set(owner.values("closed")) == {Code.HOP_SELF_CONNECTION}


async def test_a_busy_port_is_said_with_its_code() -> None:
    async with endpoint(Owner()) as first:
        with pytest.raises(TransportError) as caught:
            await Endpoint.bind(
                *first.address,
                identity=lambda: make_identity("s"),
                handler=Owner(),
                settings=TransportSettings(),
            )
        assert caught.value.code is Code.CONFIG_PORT_BUSY
        assert str(first.address[1]) in caught.value.detail


@each_engine
async def test_closing_tells_every_hop_and_leaves_no_timer_and_no_reader(engine: str) -> None:
    loop = asyncio.get_running_loop()
    owner, dialler = Owner(), Owner()
    async with (
        endpoint(owner, engine=engine) as target,
        endpoint(dialler, make_identity("d"), engine=engine) as near,
    ):
        for _ in range(3):
            near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
        await dialler.wait_for("opened", 3)
        descriptor = near.udp._socket.fileno()
        await near.close(Code.HOP_RESTARTING)
        assert dialler.values("closed") == [Code.HOP_RESTARTING] * 3
        assert not loop.remove_reader(descriptor)
        assert not loop.remove_writer(descriptor)
        await owner.wait_for("closed", 3)
        assert owner.values("closed") == [Code.HOP_RESTARTING] * 3
        await target.close()
        timers = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        assert not any("transport" in repr(handle) for handle in timers)
        assert (near._by_id, target._by_id, target._dirty, near._dirty) == ({}, {}, {}, {})


async def test_who_missed_the_last_words_hears_them_again() -> None:
    owner, dialler = Owner(), Owner()
    async with endpoint(owner) as target, endpoint(dialler, make_identity("d")) as near:
        hop = near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
        await dialler.wait_for("opened")
        await owner.wait_for("opened")
        send, target.udp.send = target.udp.send, lambda *_: None  # type: ignore[method-assign]
        owner.hops[0].close(Code.HOP_DENIED)
        await owner.wait_for("closed")
        target.udp.send = send  # type: ignore[method-assign]
        hop.send_frame(1, FrameKind.RECORD, b"are you there?")
        await dialler.wait_for("closed")
        assert dialler.code is Code.HOP_DENIED


@pytest.mark.parametrize("engine", ["qh3", "aioquic"])
async def test_a_dialler_that_turns_us_away_while_we_let_it_in_is_no_failure(engine: str) -> None:
    owner = Owner()
    refusing = Owner(decide=lambda hop: hop.refuse(Code.HOP_DENIED))
    async with (
        endpoint(owner, engine=engine) as target,
        endpoint(refusing, make_identity("d"), engine=engine) as near,
    ):
        near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
        await owner.wait_for("closed")
        await refusing.wait_for("closed")

        assert target.counters.failed_connections == near.counters.failed_connections == 0
    assert owner.code is refusing.code is Code.HOP_DENIED
