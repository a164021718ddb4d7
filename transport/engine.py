"""What the transport asks of a QUIC implementation: one connection, no sockets and no clock.

Two libraries stand behind this protocol (``engine_aioquic``, ``engine_qh3``). Whatever differs
between them ends in those two modules; every test of the transport runs on each and across them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from transport.certificate import ThrowAwayCertificate
from transport.path import Address, PathPlan
from transport.settings import TransportSettings


@dataclass(frozen=True, slots=True)
class Connected:
    """TLS is done on our side: streams and the channel binding are there."""

    alpn: str | None


@dataclass(frozen=True, slots=True)
class StreamData:
    """All that this read brought on one stream without a gap, in one piece."""

    stream: int
    data: bytes
    ended: bool


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The peer gave up a stream: it will send no more of it, or wants no more of it."""

    stream: int
    code: int


@dataclass(frozen=True, slots=True)
class ConnectionIdIssued:
    connection_id: bytes


@dataclass(frozen=True, slots=True)
class ConnectionIdRetired:
    connection_id: bytes


@dataclass(frozen=True, slots=True)
class PingAnswered:
    """The peer acknowledged a PING of ours."""

    number: int


@dataclass(frozen=True, slots=True)
class Terminated:
    """The connection is gone: closed by the peer, timed out, or broken."""

    code: int
    by_application: bool
    """True if ``code`` is the peer's own word (CONNECTION_CLOSE of type 0x1d)."""
    reason: str


EngineEvent = (
    Connected
    | StreamData
    | StreamReset
    | ConnectionIdIssued
    | ConnectionIdRetired
    | PingAnswered
    | Terminated
)


class Flow(NamedTuple):
    """How full a connection is. Bytes of packets in the first two, of streams in the third."""

    window_bytes: int
    """What the congestion controller lets be on the way."""
    in_flight_bytes: int
    queued_bytes: int
    """Handed over, and not sent for the first time yet."""
    round_trip_s: float
    """The last that was measured; 0.0 before."""


class EngineConnection(Protocol):
    """One QUIC connection. Any method may raise anything: the caller gives up the connection.

    A TransportError is the peer's doing, and it learns the code; all else is a fault of the engine.
    """

    @property
    def connection_id(self) -> bytes:
        """The identifier that we chose for ourselves, CONNECTION_ID_BYTES long."""
        ...

    @property
    def post_quantum(self) -> bool | None:
        """Whether TLS agreed its key by X25519MLKEM768; None before the handshake is done."""
        ...

    def connect(self, address: Address, now_s: float) -> None: ...

    @property
    def peer_address(self) -> Address | None:
        """Where datagrams go now; None before that is known."""
        ...

    def receive(self, data: bytes, segment_bytes: int, address: Address, now_s: float) -> None:
        """Take one datagram, or several of ``segment_bytes`` each (the last may be shorter)."""
        ...

    def take_events(self) -> Sequence[EngineEvent]: ...

    def take_datagrams(self, now_s: float) -> Sequence[tuple[bytes, Address]]: ...

    @property
    def deadline_s(self) -> float | None: ...

    def handle_deadline(self, now_s: float) -> None: ...

    def open_stream(self) -> int:
        """Return the next bidirectional stream of ours. The peer sees it with its first bytes."""
        ...

    def send_stream(self, stream: int, data: bytes, end: bool) -> None: ...

    def reset_stream(self, stream: int, code: int) -> None:
        """Give up both directions of a stream."""
        ...

    def stream_queued_bytes(self, stream: int) -> int:
        """Bytes handed over that the peer has not been sent yet (aioquic: not acknowledged)."""
        ...

    def flow(self) -> Flow: ...

    def ping(self) -> int:
        """Ask for a sign of life. Return the number by which ``PingAnswered`` will name it."""
        ...

    @property
    def key_phase(self) -> int | None:
        """Which of the two key phases we send in; None before there are 1-RTT keys."""
        ...

    def renew_keys(self) -> bool:
        """Begin a key update. False while the handshake or the last update is not confirmed."""
        ...

    def close(self, code: int) -> None:
        """Say CONNECTION_CLOSE with an application code in the next datagrams."""
        ...

    def peer_certificate_hash(self) -> bytes | None:
        """SHA-256 of the certificate that the server showed; None if it showed none."""
        ...

    def take_binding(self) -> bytes | None:
        """The channel binding, once; the secrets that made it are wiped."""
        ...

    def wipe(self) -> None:
        """Forget secrets that were kept for the binding."""
        ...


class Engine(Protocol):
    """Makes connections. One for each endpoint."""

    name: str

    def __init__(self, certificate: ThrowAwayCertificate, settings: TransportSettings) -> None: ...

    def dial(self, plan: PathPlan) -> EngineConnection: ...

    def accept(self, *, original_id: bytes, retry_id: bytes, plan: PathPlan) -> EngineConnection:
        """``original_id``: what the client first wrote to; ``retry_id``: what our Retry told it."""
        ...
