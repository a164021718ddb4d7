"""Somebody between two nodes who ends both QUIC connections and relays what is said in them."""

import asyncio

import pytest

from identity import Code
from tests.transport.helpers import Owner, endpoint, make_identity
from transport import Endpoint, HopPurpose, TransportSettings
from transport.connection import HopConnection
from transport.engine import Connected, EngineEvent, StreamData
from transport.udp import UdpSocket


class RelayHop:
    """Stands where a hop stands, understands nothing, and passes every byte to its twin."""

    closing: tuple[Code, str] | None = None
    deadline_s = None
    is_permitted = True
    has_more = False
    has_unsent = False
    state = None
    opened_in_s = 1.0
    is_open = True
    id = 0

    def __init__(self, connection: HopConnection) -> None:
        self.connection = connection
        self.twin: RelayHop | None = None
        self.is_connected = False
        self.waiting: list[StreamData] = []
        self.relayed_bytes = 0

    def receive(self, events: list[EngineEvent]) -> None:
        for event in events:
            if isinstance(event, Connected):
                self.is_connected = True
            elif isinstance(event, StreamData) and self.twin is not None:
                self.twin.waiting.append(event)
                self.relayed_bytes += len(event.data)
                self.twin.connection.flush_soon()
        self.connection.flush_soon()

    def write_out(self) -> None:
        if self.is_connected:
            for event in self.waiting:
                self.connection.send_stream(event.stream, event.data, event.ended)
            self.waiting.clear()

    def deliver(self) -> None: ...

    def handle_deadline(self, now_s: float) -> None: ...

    def lose(self, code: Code, detail: str) -> None:
        self.closing = (code, detail)

    def end(self, code: Code, detail: str) -> None:
        self.closing = (code, detail)


class RelayEndpoint(Endpoint):
    """Accepts anybody and dials the victim's true aim, with a certificate of its own."""

    aim: tuple[str, int]
    relays: list[RelayHop]

    def _make_hop(self, connection, handler, purpose, target):  # type: ignore[no-untyped-def, override]
        relay = RelayHop(connection)
        connection.hop = relay
        self._connections[connection] = None
        self.relays.append(relay)
        if purpose is None:
            self.dial(*self.aim, purpose=HopPurpose.ADMIT, target=None)
            relay.twin, self.relays[-1].twin = self.relays[-1], relay
        return relay


@pytest.mark.parametrize("engine", ["qh3", "aioquic"])
async def test_a_handshake_relayed_between_two_quic_connections_is_refused(engine: str) -> None:
    loop = asyncio.get_running_loop()
    owner, victim = Owner(), Owner()
    theirs = make_identity("s")
    async with (
        endpoint(owner, theirs, engine=engine) as target,
        endpoint(victim, make_identity("d"), engine=engine) as near,
    ):
        udp = UdpSocket.bind("127.0.0.1", 0, loop, segmentation=True)
        middle = RelayEndpoint(
            udp,
            loop,
            identity=lambda: make_identity("m"),
            handler=Owner(),
            settings=TransportSettings(engine=engine),  # type: ignore[arg-type]
        )
        middle.aim, middle.relays = target.address, []
        udp.start(middle._on_readable, middle._on_writable)
        near.dial(*middle.address, purpose=HopPurpose.ADMIT, target=theirs.identifier)
        await victim.wait_for("closed")
        await owner.wait_for("closed")
        # The bytes did pass: it is the binding that refused them.
        assert all(relay.relayed_bytes > 0 for relay in middle.relays)
        assert (owner.code, victim.code) == (Code.HOP_BINDING_MISMATCH,) * 2
        assert owner.hops + victim.hops == []
        await middle.close()
