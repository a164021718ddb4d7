"""Byte streams across a simulated mesh: sealed, in order, ended only by a sealed FIN."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from identity import AgentUri, Code
from link import HopPort
from policy import Action
from sidecar.decisions import SidecarDecisions
from sidecar.mesh_stream import MeshStream, StreamError
from sidecar.streams import OWN_STREAMS_PER_CHANNEL_MAX, Streams
from tests.simulation.mesh import Gateway, Session, Sidecar, new_mesh
from tests.simulation.network import SimulatedNetwork
from tests.simulation.people import engine

ECHO = "echo"
WAIT_S = 20.0


class StreamMesh:
    """Alice, who opens, and Bob, who serves; a task lets the simulated time pass."""

    def __init__(self) -> None:
        self.network: SimulatedNetwork
        self.gateway: Gateway
        self.network, self.gateway, sidecars = new_mesh("alpha", "beta")
        self.alpha, self.beta = sidecars
        self.streams = {sidecar.name: self._streams(sidecar) for sidecar in sidecars}
        self.alice: Session = self.alpha.new_session("alice")
        self.bob: Session = self.beta.new_session("bob")
        self.served: list[MeshStream] = []
        self.streams["beta"].offer(self.bob.agent, ECHO, self._echo)
        self._task = asyncio.create_task(self._pass_time())

    async def open(self, service: str = ECHO, to: str | None = None) -> MeshStream:
        uri = AgentUri.parse(to or self.bob.uri)
        return await self.streams["alpha"].open(self.alice.agent, uri, service)

    async def close(self) -> None:
        self._task.cancel()
        for streams in self.streams.values():
            await streams.close()

    def count(self) -> list[int]:
        return [len(streams) for streams in self.streams.values()] + [len(self.gateway.streams)]

    @staticmethod
    def _streams(sidecar: Sidecar) -> Streams:
        decisions = SidecarDecisions(
            sidecar.decisions.decide,
            sidecar.decisions.ask_again,
            sidecar.decisions.could_allow,
            lambda: sidecar.decisions.policy.version,
        )
        streams = Streams(sidecar.router, decisions, sidecar.network.clock)
        sidecar.router._streams = streams
        sidecar.stream_received = streams.stream_received  # type: ignore[method-assign]
        sidecar.stream_reset = streams.stream_reset  # type: ignore[method-assign]
        hop_closed = sidecar.hop_closed

        def closed(hop: Any, code: Code) -> None:
            streams.hop_closed(hop)
            hop_closed(hop, code)

        sidecar.hop_closed = closed  # type: ignore[method-assign]
        return streams

    async def _pass_time(self) -> None:
        while True:
            self.network.run_for(0.01)
            for sidecar in (self.alpha, self.beta):
                sidecar.look()
            await asyncio.sleep(0)

    async def _echo(self, stream: MeshStream) -> None:
        self.served.append(stream)
        while data := await stream.read(1 << 16):
            await stream.write(data)
        await stream.finish()


@pytest.fixture
async def mesh() -> AsyncIterator[StreamMesh]:
    async with asyncio.timeout(WAIT_S):
        mesh = StreamMesh()
        yield mesh
        await mesh.close()


async def read_all(stream: MeshStream) -> bytes:
    pieces = []
    while data := await stream.read(1 << 16):
        pieces.append(data)
    return b"".join(pieces)


async def failure_of(call: Awaitable[Any]) -> Code:
    with pytest.raises(StreamError) as caught:
        await call
    return caught.value.code


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("it never came to pass")


async def test_what_is_written_comes_back_and_both_ends_know_the_other(mesh: StreamMesh) -> None:
    stream = await mesh.open()
    await stream.write(b"hello")
    assert await stream.read(3) == b"hel"
    assert await stream.read(100) == b"lo"
    await stream.finish()

    assert await read_all(stream) == b""
    assert str(stream.peer.name) == mesh.bob.uri
    assert str(mesh.served[0].peer.name) == mesh.alice.uri
    await until(lambda: mesh.count() == [0, 0, 0])


async def test_megabytes_pass_within_the_windows_and_the_gateway_reads_none(
    mesh: StreamMesh,
) -> None:
    stream = await mesh.open()
    body = b"canary of sixteen" * 200_000
    writing = asyncio.create_task(_write_all(stream, body))

    assert await read_all(stream) == body
    await writing
    assert mesh.gateway.relay.counters.stream_bytes > 2 * len(body)
    assert mesh.alpha.decisions.permits(Action.STREAM_OPEN)


async def _write_all(stream: MeshStream, body: bytes) -> None:
    await stream.write(body)
    await stream.finish()


async def test_a_writer_waits_for_a_reader_who_does_not_read(mesh: StreamMesh) -> None:
    async def wait(stream: MeshStream) -> None:
        mesh.served.append(stream)
        await asyncio.Event().wait()

    mesh.streams["beta"].offer(mesh.bob.agent, "sink", wait)
    stream = await mesh.open("sink")
    writing = asyncio.create_task(stream.write(bytes(3 << 20)))
    for _ in range(500):
        await asyncio.sleep(0)

    assert not writing.done()
    assert mesh.gateway.relay.counters.stream_bytes < (1 << 20) + (256 << 10)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_a_reader_may_be_the_first_to_speak_in_its_own_silence(mesh: StreamMesh) -> None:
    async def greet(stream: MeshStream) -> None:
        await stream.write(b"welcome")
        await stream.finish()

    mesh.streams["beta"].offer(mesh.bob.agent, "greeter", greet)
    stream = await mesh.open("greeter")

    assert await read_all(stream) == b"welcome"


async def test_a_service_that_is_not_offered_says_so(mesh: StreamMesh) -> None:
    stream = await mesh.open("nothing")

    assert await failure_of(stream.read(1)) is Code.STREAM_SERVICE_UNKNOWN


async def test_a_stream_that_the_senders_policy_denies_is_never_announced(
    mesh: StreamMesh,
) -> None:
    denying = engine().load(
        "apiVersion: sidelink/v1\nkind: Policy\nmetadata: {name: t}\nrules:\n"
        "  - {name: r, effect: allow, actions: [message.tell]}\n",
        file="policy.yaml",
    )
    mesh.alpha.decisions.policy = denying

    assert await failure_of(mesh.open()) is Code.POLICY_NO_RULE
    assert mesh.count() == [0, 0, 0]


async def test_a_stream_that_the_receivers_policy_denies_is_reset_with_that_code(
    mesh: StreamMesh,
) -> None:
    mesh.beta.decisions.policy = engine().load(
        "apiVersion: sidelink/v1\nkind: Policy\nmetadata: {name: t}\nrules:\n"
        "  - {name: r, effect: allow, actions: [message.tell]}\n",
        file="policy.yaml",
    )
    stream = await mesh.open()

    assert await failure_of(stream.read(1)) is Code.POLICY_NO_RULE
    assert mesh.served == []


async def test_a_name_that_is_not_there_is_unreachable(mesh: StreamMesh) -> None:
    assert await failure_of(mesh.open(to="agent://acme/gamma/x")) is Code.ROUTE_UNKNOWN


async def test_a_reset_is_seen_by_who_reads_and_by_who_writes(mesh: StreamMesh) -> None:
    stream = await mesh.open()
    await stream.write(b"x")
    await stream.read(1)
    reading = asyncio.create_task(failure_of(mesh.served[0].read(1)))
    stream.reset(Code.STREAM_UPSTREAM_FAILED)
    stream.reset(Code.STREAM_TIMEOUT)

    assert await reading is Code.STREAM_UPSTREAM_FAILED
    assert await failure_of(stream.read(1)) is Code.STREAM_UPSTREAM_FAILED
    assert await failure_of(stream.write(b"y")) is Code.STREAM_UPSTREAM_FAILED
    await until(lambda: mesh.count() == [0, 0, 0])


async def test_a_lost_hop_is_no_end_of_file(mesh: StreamMesh) -> None:
    stream = await mesh.open()
    await stream.write(b"x")
    await stream.read(1)
    mesh.beta.hops[0].cut()

    assert await failure_of(stream.read(1)) is Code.ROUTE_UNREACHABLE


async def test_an_end_that_the_gateway_makes_up_is_no_end_of_file(mesh: StreamMesh) -> None:
    stream = await mesh.open()
    await stream.write(b"x")
    await stream.read(1)
    [end] = [end for end in mesh.gateway.streams._ends.values() if end.other is not None][:1]
    hop: HopPort = mesh.alpha.hops[0].far
    near = end if end.hop is hop else end.other
    assert near is not None
    hop.send_stream(near.stream, b"", end=True)

    assert await failure_of(stream.read(1)) is Code.STREAM_TRUNCATED


async def test_bytes_that_the_gateway_makes_up_break_the_stream(mesh: StreamMesh) -> None:
    stream = await mesh.open()
    await stream.write(b"x")
    await stream.read(1)
    [end] = [end for end in mesh.gateway.streams._ends.values() if end.other is not None][:1]
    hop: HopPort = mesh.alpha.hops[0].far
    near = end if end.hop is hop else end.other
    assert near is not None
    hop.send_stream(near.stream, b"\x00\x20" + bytes(32))

    code = await failure_of(stream.read(1))
    assert code in (Code.CHANNEL_RECORD_INVALID, Code.CHANNEL_BAD_RECORD)


async def test_a_stream_ends_with_its_channel(mesh: StreamMesh) -> None:
    stream = await mesh.open()
    await stream.write(b"x")
    await stream.read(1)
    [slot] = list(mesh.beta.router.channels._slots.values())
    mesh.beta.do(lambda: mesh.beta.router.channels.end(slot, Code.CHANNEL_CREDENTIAL_EXPIRED))

    assert await failure_of(stream.read(1)) is Code.CHANNEL_CREDENTIAL_EXPIRED


async def test_a_handler_that_fails_resets_its_stream(
    mesh: StreamMesh, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(stream: MeshStream) -> None:
        await stream.read(1)
        raise ValueError("a bug")

    mesh.streams["beta"].offer(mesh.bob.agent, "faulty", fail)
    stream = await mesh.open("faulty")
    await stream.write(b"x")

    assert await failure_of(stream.read(1)) is Code.LOCAL_INTERNAL


async def test_a_channel_carries_so_many_streams_and_no_more(mesh: StreamMesh) -> None:
    opened = [await mesh.open() for _ in range(OWN_STREAMS_PER_CHANNEL_MAX)]
    assert await failure_of(mesh.open()) is Code.STREAM_LIMIT
    opened[0].reset(Code.STREAM_RESET)

    assert await mesh.open()


async def test_agents_of_one_sidecar_have_the_same_contract_and_both_decisions(
    mesh: StreamMesh,
) -> None:
    carol = mesh.alpha.new_session("carol")
    mesh.streams["alpha"].offer(carol.agent, ECHO, mesh._echo)
    mesh.alpha.decisions.asked.clear()
    stream = await mesh.open(to=carol.uri)
    body = bytes(1 << 20)
    writing = asyncio.create_task(_write_all(stream, body))

    assert await read_all(stream) == body
    await writing
    assert mesh.alpha.decisions.permits(Action.STREAM_OPEN) == [(mesh.alice.uri, carol.uri)] * 2
    assert str(mesh.served[0].peer.name) == mesh.alice.uri
    assert await failure_of(mesh.open("nothing", to=carol.uri)) is Code.STREAM_SERVICE_UNKNOWN
