"""A hop whose carrier is a list: the test plays the peer, byte by byte, and the clock."""

from dataclasses import dataclass, field

from link import Frame, FrameKind, FrameParser, HopLimits, encode_frame
from link.messages import encode_hop_accept
from tests.transport.helpers import Owner, make_identity
from transport import HopIdentity, HopPurpose, TransportSettings
from transport.engine import Connected, StreamData
from transport.hop import CarriedHop
from transport.hop_handshake import AcceptorHandshake, DiallerHandshake
from transport.limits import ALPN

BINDING = (b"c" * 32, b"b" * 32)
LANE_1 = 8


@dataclass
class ListCarrier:
    """Records what the hop writes. Time moves only by hand."""

    certificate: bytes | None = BINDING[0]
    binding: bytes | None = BINDING[1]
    time_s: float = 100.0
    sent: dict[int, bytearray] = field(default_factory=dict)
    reset: list[tuple[int, int]] = field(default_factory=list)
    next_stream: int = 0
    engine_name: str = "list"
    post_quantum: bool | None = None
    shown_bytes: int = 0

    def now_s(self) -> float:
        return self.time_s

    def flush_soon(self) -> None: ...

    def open_stream(self) -> int:
        self.next_stream += 4
        return self.next_stream - 4

    def send_stream(self, stream: int, data: bytes, end: bool) -> None:
        self.sent.setdefault(stream, bytearray()).extend(data)

    def reset_stream(self, stream: int, code: int) -> None:
        self.reset.append((stream, code))

    def stream_queued_bytes(self, stream: int) -> int:
        return 0

    def send_room_bytes(self) -> int:
        return 1 << 20

    def certificate_hash(self) -> bytes | None:
        return self.certificate

    def take_binding(self) -> bytes | None:
        return self.binding


class Puppet:
    """One real hop and a peer that does what the test says."""

    def __init__(
        self,
        *,
        is_dialler: bool = False,
        owner: Owner | None = None,
        carrier: ListCarrier | None = None,
        peer: HopIdentity | None = None,
    ) -> None:
        self.owner = Owner() if owner is None else owner
        self.carrier = ListCarrier() if carrier is None else carrier
        self.own = make_identity("o")
        self.peer = make_identity("p") if peer is None else peer
        self.hop = CarriedHop(
            1,
            carrier=self.carrier,
            handler=self.owner,
            identity=lambda: self.own,
            settings=TransportSettings(),
            dial=(HopPurpose.ADMIT, self.peer.identifier) if is_dialler else None,
        )
        self._parser = FrameParser()
        self._dialler: DiallerHandshake | None = None
        if is_dialler:
            self._acceptor = AcceptorHandshake(self.peer, BINDING)

    # --- what the peer does -------------------------------------------------------------------

    def connect(self, alpn: str | None = ALPN) -> None:
        self.hop.receive([Connected(alpn)])
        self.hop.deliver()

    def say(self, stream: int, data: bytes, ended: bool = False) -> None:
        self.hop.receive([StreamData(stream, data, ended)])
        self.hop.deliver()

    def say_frame(self, kind: int, body: bytes = b"", *, link: int = 0, stream: int = 0) -> None:
        self.say(stream, encode_frame(link, kind, body))

    def answers(self) -> list[Frame]:
        """Control frames that the hop has sent since the last look."""
        self.hop.write_out()
        data = bytes(self.carrier.sent.pop(0, b""))
        return self._parser.feed_untrusted(data)

    def hello(self, **changed: object) -> bytes:
        """The body of a good HOP_HELLO from the peer; ``binding`` and ``purpose`` may be others."""
        purpose = changed.get("purpose", HopPurpose.ADMIT)
        binding = changed.get("binding", BINDING)
        target = changed.get("target", self.own.identifier)
        self._dialler = DiallerHandshake(self.peer, purpose, target, binding)  # type: ignore[arg-type]
        return self._dialler.hello

    def say_hello(self, **changed: object) -> None:
        self.connect()
        self.say_frame(FrameKind.HOP_HELLO, self.hello(**changed))

    def finish(self) -> bytes:
        assert self._dialler is not None
        (reply,) = self.answers()
        return self._dialler.read_reply_untrusted(reply.body)[1]

    def say_finish(self) -> None:
        self.say_frame(FrameKind.HOP_FINISH, self.finish())

    def say_accept(self) -> None:
        self.say_frame(FrameKind.HOP_ACCEPT, encode_hop_accept(1, HopLimits(10)))

    def open(self) -> None:
        """Go all the way, as an honest dialler would."""
        self.say_hello()
        self.say_finish()
        self.say_accept()
        assert self.hop.is_open

    def reply_to_hello(self) -> bytes:
        """As the acceptor: the body of HOP_REPLY to what the hop under test has sent."""
        (hello,) = self.answers()
        return self._acceptor.read_hello_untrusted(hello.body)

    def wait_s(self, seconds: float) -> None:
        self.carrier.time_s += seconds
        self.hop.handle_deadline(self.carrier.time_s)
        self.hop.deliver()
