"""Two ends of a hop joined in memory: the same handshake, contract and codes, without a network.

For tests, simulations and meshes in one process. Streams keep their order; nothing is lost.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Protocol

from identity import Code, Identifier
from transport import limits
from transport.contract import HopHandler, HopPurpose, IdentityProvider
from transport.engine import Connected, EngineEvent, StreamData, StreamReset, Terminated
from transport.hop import CarriedHop
from transport.settings import TransportSettings

_SEND_ROOM_BYTES: Final = 1 << 20
_HOP_IDS: Final = count(1)


class Timer(Protocol):
    def cancel(self) -> Any: ...


class Scheduler(Protocol):
    """What an asyncio loop offers; a simulation brings its own."""

    def time(self) -> float: ...

    def call_soon(self, callback: Callable[[], Any], /) -> Any: ...

    def call_at(self, when: float, callback: Callable[[], Any], /) -> Timer: ...


class MemoryCarrier:
    """One end. Implements ``transport.carrier.HopCarrier``."""

    hop: CarriedHop  # Set right after construction: each needs the other.
    peer: "MemoryCarrier"

    engine_name: str = "memory"
    post_quantum: bool | None = None
    shown_bytes: int = 0

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        is_dialler: bool,
        certificate_hash: bytes | None,
        binding: bytes | None,
    ) -> None:
        self._scheduler = scheduler
        self._next_stream = 0 if is_dialler else 1
        self._certificate_hash = certificate_hash
        self._binding = binding
        self._out: list[EngineEvent] = []
        self._is_flush_due = False
        self._is_gone = False
        self._timer: Timer | None = None

    # --- the hop's carrier -------------------------------------------------------------------

    def now_s(self) -> float:
        return self._scheduler.time()

    def flush_soon(self) -> None:
        if not self._is_flush_due and not self._is_gone:
            self._is_flush_due = True
            self._scheduler.call_soon(self._flush)

    def open_stream(self) -> int:
        stream = self._next_stream
        self._next_stream += 4
        return stream

    def send_stream(self, stream: int, data: bytes, end: bool) -> None:
        self._out.append(StreamData(stream, data, end))

    def reset_stream(self, stream: int, code: int) -> None:
        self._out.append(StreamReset(stream, code))

    def stream_queued_bytes(self, stream: int) -> int:
        return sum(
            len(event.data)
            for event in self._out
            if isinstance(event, StreamData) and event.stream == stream
        )

    def send_room_bytes(self) -> int:
        queued = sum(len(event.data) for event in self._out if isinstance(event, StreamData))
        return _SEND_ROOM_BYTES - queued

    def certificate_hash(self) -> bytes | None:
        return self._certificate_hash

    def take_binding(self) -> bytes | None:
        binding, self._binding = self._binding, None
        return binding

    # --- the pair ----------------------------------------------------------------------------

    def begin(self) -> None:
        self._scheduler.call_soon(lambda: self.receive([Connected(limits.ALPN)]))
        self.flush_soon()

    def receive(self, events: list[EngineEvent]) -> None:
        if not self._is_gone:
            self.hop.receive(events)
            self.flush_soon()

    def cut(self) -> None:
        """The network is gone, and neither end can tell the other anything."""
        for end in (self, self.peer):
            end.hop.lose(Code.HOP_PEER_LOST, "the link was cut")

    def _flush(self) -> None:
        self._is_flush_due = False
        self.hop.deliver()
        self.hop.write_out()
        while self.hop.has_more and self.hop.is_open:
            self.hop.write_out()
            self._ship()
        if self.hop.closing is not None:
            self._is_gone = True
            self._out.append(Terminated(int(self.hop.closing[0]), True, ""))
        self._ship()
        self._arm()
        self.hop.deliver()

    def _ship(self) -> None:
        if self._out:
            events, self._out = self._out, []
            self._scheduler.call_soon(lambda: self.peer.receive(events))

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline_s = self.hop.deadline_s
        if deadline_s is not None and not self._is_gone:
            self._timer = self._scheduler.call_at(deadline_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.hop.handle_deadline(self.now_s())
        self.flush_soon()


@dataclass(frozen=True, slots=True)
class MemoryHopPair:
    dialler: CarriedHop
    acceptor: CarriedHop
    _carrier: MemoryCarrier

    def cut(self) -> None:
        """Let the network between them vanish: both end with HOP_PEER_LOST."""
        self._carrier.cut()


def memory_hop_pair(
    dialler: HopHandler,
    acceptor: HopHandler,
    *,
    dialler_identity: IdentityProvider,
    acceptor_identity: IdentityProvider,
    purpose: HopPurpose = HopPurpose.ADMIT,
    target: Identifier | None = None,
    settings: TransportSettings | None = None,
    scheduler: Scheduler | None = None,
    connection_bindings: tuple[tuple[bytes | None, bytes | None], ...] | None = None,
) -> MemoryHopPair:
    """Return both ends of one hop; the handshake runs when the loop does.

    ``connection_bindings`` are (certificate hash, binding) of the dialler's end and the
    acceptor's; equal unless a test says what somebody in the middle would have made of them.
    """
    loop: Scheduler = asyncio.get_running_loop() if scheduler is None else scheduler
    settings = TransportSettings() if settings is None else settings
    if connection_bindings is None:
        shared = (os.urandom(32), os.urandom(32))
        connection_bindings = (shared, shared)
    ends: list[MemoryCarrier] = []
    for is_dialler, handler, identity, (certificate_hash, binding) in zip(
        (True, False),
        (dialler, acceptor),
        (dialler_identity, acceptor_identity),
        connection_bindings,
        strict=True,
    ):
        end = MemoryCarrier(
            loop, is_dialler=is_dialler, certificate_hash=certificate_hash, binding=binding
        )
        end.hop = CarriedHop(
            next(_HOP_IDS),
            carrier=end,
            handler=handler,
            identity=identity,
            settings=settings,
            dial=(purpose, target) if is_dialler else None,
        )
        ends.append(end)
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    # The acceptor is connected first, as nothing may reach it before.
    ends[1].begin()
    ends[0].begin()
    return MemoryHopPair(ends[0].hop, ends[1].hop, ends[0])
