"""A hop: the control stream, four lanes, byte streams, and the handshake that opens them.

It stands between an owner (``transport.contract``) and a carrier of streams, which is a QUIC
connection or a pair in memory. It knows no socket and no loop; the carrier says what time it is.
"""

from collections.abc import Sequence
from typing import Final, assert_never

from identity import Code, Identifier, VerifiedPeer
from link import (
    CONTROL_KIND_MIN,
    Frame,
    FrameError,
    FrameKind,
    FrameParser,
    HopLimits,
)
from link.limits import STREAMS_PER_HOP_MAX
from link.messages import (
    decode_code_untrusted,
    decode_hop_accept_untrusted,
    encode_code,
    encode_hop_accept,
)
from transport import limits
from transport.carrier import HopCarrier
from transport.contract import (
    ACTION_OF_PURPOSE,
    HopHandler,
    HopPermit,
    HopPurpose,
    IdentityProvider,
)
from transport.engine import (
    Connected,
    ConnectionIdIssued,
    ConnectionIdRetired,
    EngineEvent,
    PingAnswered,
    StreamData,
    StreamReset,
    Terminated,
)
from transport.errors import TransportError
from transport.hop_handshake import AcceptorHandshake, DiallerHandshake, connection_binding
from transport.hop_held import HeldEvents
from transport.hop_lanes import is_lane_opening
from transport.hop_output import HopOutput
from transport.hop_state import DECIDABLE, PERMITTED, HopInput, HopState, next_state
from transport.hop_streams import CONTROL_STREAM, LANE_STREAMS, ByteStreams
from transport.settings import TransportSettings

_INPUT_OF_KIND: Final = {
    FrameKind.HOP_HELLO: HopInput.HELLO,
    FrameKind.HOP_REPLY: HopInput.REPLY,
    FrameKind.HOP_FINISH: HopInput.FINISH,
    FrameKind.HOP_ACCEPT: HopInput.PEER_ACCEPT,
}
_UNCONNECTED: Final = frozenset({HopState.DIALLING, HopState.ACCEPTING})
_HOP_KIND_MIN: Final = FrameKind.HOP_HELLO


class CarriedHop:
    """Implements ``transport.contract.Hop`` over a carrier."""

    def __init__(
        self,
        hop_id: int,
        *,
        carrier: HopCarrier,
        handler: HopHandler,
        identity: IdentityProvider,
        settings: TransportSettings,
        dial: tuple[HopPurpose, Identifier | None] | None,
    ) -> None:
        """``dial`` is what we want from whom; None for a hop that came to us."""
        self.id = hop_id
        self.is_dialler = dial is not None
        self.purpose = HopPurpose.ADMIT if dial is None else dial[0]
        self.opened_in_s = 0.0
        self.own_key = b""
        self.state = HopState.ACCEPTING if dial is None else HopState.DIALLING
        self.closing: tuple[Code, str] | None = None
        """Why it ended, once it has; the carrier takes this as the word to close."""
        self._target = None if dial is None else dial[1]
        self._carrier = carrier
        self._handler = handler
        self._identity = identity
        self._settings = settings
        self._peer: VerifiedPeer | None = None
        self._dialler: DiallerHandshake | None = None
        self._acceptor: AcceptorHandshake | None = None
        self._started_s = carrier.now_s()
        self.deadline_s: float | None = self._started_s + settings.handshake_timeout_s
        self._parsers = {stream: FrameParser() for stream in (CONTROL_STREAM, *LANE_STREAMS)}
        self._output = HopOutput(is_dialler=self.is_dialler)
        self._frames: list[Frame] = []
        self._streams = ByteStreams(is_dialler=self.is_dialler)
        self._held = HeldEvents()
        self._opened_is_due = False
        self._closed_is_due = False
        # The acceptor cannot write on the control stream before the dialler has.
        self._control_is_there = False
        self._peer_close: Code | None = None
        self._peer_terms: tuple[int, HopLimits] | None = None

    # --- what the owner sees -----------------------------------------------------------------

    @property
    def peer(self) -> VerifiedPeer:
        if self._peer is None:
            raise RuntimeError("the peer of this hop is not verified")
        return self._peer

    def renewed(self, peer: VerifiedPeer) -> None:
        assert peer.identifier == self.peer.identifier
        self._peer = peer

    @property
    def engine(self) -> str:
        return self._carrier.engine_name

    @property
    def post_quantum(self) -> bool | None:
        return self._carrier.post_quantum

    @property
    def is_open(self) -> bool:
        return self.state is HopState.OPEN

    @property
    def peer_limits(self) -> HopLimits:
        return self._terms()[1]

    @property
    def peer_epoch(self) -> int:
        return self._terms()[0]

    def accept(self, permit: HopPermit) -> None:
        if self.state is HopState.CLOSED:
            return  # It ended while the owner was deciding.
        if self.state not in DECIDABLE:
            raise RuntimeError(f"accept while {self.state.name}")
        if permit.subject != self.peer.identifier:
            raise PermissionError("the permit is for another identity")
        if permit.action != ACTION_OF_PURPOSE[self.purpose]:
            raise PermissionError(f"the permit is for {permit.action}, not for {self.purpose}")
        self._move(HopInput.PERMIT)
        body = encode_hop_accept(
            self._settings.epoch,
            HopLimits(self._settings.links_max),
            pad_bytes=self._carrier.shown_bytes,
        )
        self._send_control(FrameKind.HOP_ACCEPT, body)
        if self.is_dialler:
            self._output.open_lanes(self._carrier)
        if self.state is HopState.OPEN:
            self._opened_is_due = True

    def refuse(self, code: Code) -> None:
        if self.state is HopState.CLOSED:
            return
        if self.state not in DECIDABLE:
            raise RuntimeError(f"refuse while {self.state.name}")
        self._end(code, "refused by this node", tell=True)

    def send_frame(self, link: int, kind: int, body: bytes) -> None:
        if self.state is not HopState.OPEN:
            if self.state is HopState.CLOSED:
                return
            raise RuntimeError(f"send_frame while {self.state.name}")
        if kind < CONTROL_KIND_MIN:
            self._output.add(link, kind, body)
        else:
            self._output.add_control(link, kind, body)
        self._carrier.flush_soon()

    def drop_link(self, link: int) -> None:
        self._output.drop(link)

    def open_stream(self) -> int:
        if self.state is not HopState.OPEN:
            raise TransportError(Code.HOP_CLOSED, "no stream on a hop that is not open")
        if len(self._streams) >= STREAMS_PER_HOP_MAX:
            raise TransportError(Code.STREAM_LIMIT, "too many byte streams on this hop")
        stream = self._carrier.open_stream()
        self._streams.add_own(stream)
        return stream

    def send_stream(self, stream: int, data: bytes, end: bool = False) -> None:
        if self.state is not HopState.OPEN or not self._streams.can_send(stream):
            return  # It was reset or the hop closed; the owner is told, or will be.
        self._output.add_stream(stream, data, end)
        if end:
            self._streams.end_here(stream)
        self._carrier.flush_soon()

    def reset_stream(self, stream: int, code: int) -> None:
        if self.state is not HopState.OPEN or stream not in self._streams:
            return
        self._output.drop_stream(stream)
        self._carrier.reset_stream(stream, code)
        self._streams.drop(stream)
        self._carrier.flush_soon()

    def stream_queued_bytes(self, stream: int) -> int:
        if self.state is not HopState.OPEN or stream not in self._streams:
            return 0
        return self._output.stream_queued_bytes(stream) + self._carrier.stream_queued_bytes(stream)

    @property
    def queued_bytes(self) -> int:
        output = self._output
        return output.queued_bytes + (
            output.handed_down_bytes(self._carrier) if self.is_open else 0
        )

    def close(self, code: Code) -> None:
        if self.state is HopState.OPEN:  # What was sent before leaves before.
            self._output.write_control(self._carrier)
            self._output.write(self._carrier, limits.LAST_WORDS_BYTES_MAX)
        self._end(code, "closed by this node", tell=True)

    # --- what the carrier calls --------------------------------------------------------------

    @property
    def is_permitted(self) -> bool:
        """Whether our owner has let the peer in: from here on it may cost us more."""
        return self.state in PERMITTED

    def receive(self, events: Sequence[EngineEvent]) -> None:
        """Take what one read brought. What the peer does wrong ends the hop, and raises nothing."""
        self.deliver()  # Who accepted late hears of the open hop before what came on it.
        self._receive_all(events)
        self._hand_over_frames()
        self.deliver()

    def handle_deadline(self, now_s: float) -> None:
        if self.deadline_s is None or now_s < self.deadline_s:
            return
        if self.state in _UNCONNECTED:
            self._end(Code.HOP_UNREACHABLE, "no answer in time", tell=False)
        else:
            self._end(Code.HOP_TIMEOUT, f"no progress while {self.state.name}", tell=True)

    def end(self, code: Code, detail: str) -> None:
        """The carrier wants no more of this hop; the peer is told why."""
        self._end(code, detail, tell=True)

    def lose(self, code: Code, detail: str) -> None:
        """The carrier is gone: nothing can be said to the peer any more."""
        self._end(code, detail, tell=False)

    def write_out(self) -> None:
        """Hand to the carrier what this turn queued, as far as it has room."""
        self._output.write_control(self._carrier)
        if self.state is HopState.OPEN and self._output.has_more:
            self._output.write(self._carrier, self._carrier.send_room_bytes())

    @property
    def has_more(self) -> bool:
        """Whether frames still wait for room below."""
        return self._output.has_more

    @property
    def speaker_changes(self) -> int:
        return self._output.speaker_changes

    @property
    def has_unsent(self) -> bool:
        """Whether the carrier still holds what this hop handed down while it was open."""
        return self.opened_in_s > 0 and self._output.handed_down_bytes(self._carrier) > 0

    def deliver(self) -> None:
        """Tell the owner what became due. Never called from within a call of the owner's."""
        if self._opened_is_due and self.state is HopState.OPEN:
            self._opened_is_due = False
            self._opened()
            self._hand_over_frames()
        if self._closed_is_due:
            self._closed_is_due = False
            assert self.closing is not None
            self._handler.hop_closed(self, *self.closing)

    # --- receiving ---------------------------------------------------------------------------

    def _receive_all(self, events: Sequence[EngineEvent]) -> None:
        try:
            for event in events:
                if self.state is HopState.CLOSED:
                    break
                self._receive_one(event)
        except (FrameError, TransportError) as error:
            self._hand_over_frames()  # What came in order before the fault is good.
            self._end(error.code, error.detail, tell=True)
        if self._peer_close is not None:
            self._hand_over_frames()
            self._end(self._peer_close, "closed by the peer", tell=False)

    def _receive_one(self, event: EngineEvent) -> None:
        match event:
            case StreamData():
                self._receive_stream(event)
            case StreamReset():
                self._receive_reset(event)
            case Connected():
                self._connected(event)
            case Terminated():
                self._terminated(event)
            case ConnectionIdIssued() | ConnectionIdRetired() | PingAnswered():
                pass  # The carrier's own affair.
            case _:
                assert_never(event)

    def _receive_stream(self, event: StreamData) -> None:
        stream = event.stream
        if stream == CONTROL_STREAM:
            self._control_is_there = True
            for frame in self._parsers[stream].feed_untrusted(event.data):
                self._receive_control(frame)
                if self.state is HopState.CLOSED or self._peer_close is not None:
                    return
            self._check_not_ended(event)
        elif stream in LANE_STREAMS:
            self._receive_lane(event)
        elif not self._streams.is_legal(stream):
            raise TransportError(Code.HOP_BAD_FRAME, f"stream {stream} is not defined")
        elif self.state is not HopState.OPEN:
            self._hold(event)
        else:
            self._receive_bytes(event)

    def _receive_control(self, frame: Frame) -> None:
        kind = FrameKind(frame.kind)
        if kind is FrameKind.HOP_CLOSE:
            # Other streams of the same read may hold what was said before: they go first.
            self._peer_close = decode_code_untrusted(frame.body)
            return
        if self.state is HopState.OPEN:
            if not CONTROL_KIND_MIN <= kind < _HOP_KIND_MIN:
                raise TransportError(Code.HOP_BAD_FRAME, f"{kind.name} on an open control stream")
            self._frames.append(frame)
            return
        input_ = _INPUT_OF_KIND.get(kind)
        if input_ is None or next_state(self.state, input_) is None or frame.link:
            raise TransportError(Code.HOP_BAD_FRAME, f"{kind.name} while {self.state.name}")
        if input_ is HopInput.HELLO:
            self._receive_hello(frame.body)
        elif input_ is HopInput.REPLY:
            self._receive_reply(frame.body)
        elif input_ is HopInput.FINISH:
            self._receive_finish(frame.body)
        else:
            self._receive_accept(frame.body)

    def _receive_lane(self, event: StreamData) -> None:
        self._output.lane_seen(event.stream)
        if self.state is HopState.ACCEPTED:
            # Streams overtake each other: this came before the peer's HOP_ACCEPT did.
            self._hold(event)
            return
        lane = LANE_STREAMS.index(event.stream)
        for frame in self._parsers[event.stream].feed_untrusted(event.data):
            if not is_lane_opening(frame, lane, self.state):
                self._frames.append(frame)
        self._check_not_ended(event)

    def _receive_bytes(self, event: StreamData) -> None:
        stream = event.stream
        if not self._streams.meet(stream):
            return  # It was reset here; what was on its way is of no use.
        if event.ended:
            self._streams.end_there(stream)
        self._handler.stream_received(self, stream, event.data, event.ended)

    def _receive_reset(self, event: StreamReset) -> None:
        stream = event.stream
        if not self._streams.is_legal(stream):
            raise TransportError(Code.HOP_BAD_FRAME, f"stream {stream} was reset")
        if self.state is not HopState.OPEN:
            self._hold(event)
            return
        self._streams.meet(stream)
        if stream in self._streams:
            self._output.drop_stream(stream)
            self._carrier.reset_stream(stream, event.code)
            self._streams.drop(stream)
            self._handler.stream_reset(self, stream, event.code)

    def _hold(self, event: StreamData | StreamReset) -> None:
        if self.state is not HopState.ACCEPTED:
            raise TransportError(Code.HOP_BAD_FRAME, f"a byte stream while {self.state.name}")
        self._held.hold(event)

    @staticmethod
    def _check_not_ended(event: StreamData) -> None:
        if event.ended:
            raise TransportError(Code.HOP_BAD_FRAME, f"stream {event.stream} must not end")

    def _hand_over_frames(self) -> None:
        if self._frames:
            frames, self._frames = self._frames, []
            self._handler.frames_received(self, frames)

    # --- the handshake -----------------------------------------------------------------------

    def _connected(self, event: Connected) -> None:
        if event.alpn != limits.ALPN:
            raise TransportError(Code.HOP_VERSION_UNSUPPORTED, f"ALPN {event.alpn!r}")
        binding = connection_binding(self._carrier.certificate_hash(), self._carrier.take_binding())
        self._move(HopInput.CONNECTED)
        identity = self._identity()
        self.own_key = identity.key.public.raw
        if not self.is_dialler:
            self._acceptor = AcceptorHandshake(identity, binding)
            return
        self._dialler = DiallerHandshake(identity, self.purpose, self._target, binding)
        opened = self._carrier.open_stream()
        assert opened == CONTROL_STREAM, f"opened stream {opened} first"
        self._control_is_there = True
        self._send_control(FrameKind.HOP_HELLO, self._dialler.hello)

    def _receive_hello(self, body: bytes) -> None:
        assert self._acceptor is not None
        reply = self._acceptor.read_hello_untrusted(body)
        self.purpose = self._acceptor.purpose
        self._move(HopInput.HELLO)
        self._send_control(FrameKind.HOP_REPLY, reply)

    def _receive_reply(self, body: bytes) -> None:
        assert self._dialler is not None
        peer, finish = self._dialler.read_reply_untrusted(body)
        self._send_control(FrameKind.HOP_FINISH, finish)
        self._verified(HopInput.REPLY, peer)

    def _receive_finish(self, body: bytes) -> None:
        assert self._acceptor is not None
        self._verified(HopInput.FINISH, self._acceptor.read_finish_untrusted(body))

    def _verified(self, input_: HopInput, peer: VerifiedPeer) -> None:
        self._peer = peer
        self._dialler = self._acceptor = None
        self._move(input_)
        # The owner has as long again to decide as the peer had to prove itself.
        self.deadline_s = self._carrier.now_s() + self._settings.handshake_timeout_s
        self._handler.hop_verified(self)

    def _receive_accept(self, body: bytes) -> None:
        self._peer_terms = decode_hop_accept_untrusted(body)
        self._move(HopInput.PEER_ACCEPT)
        if self.state is HopState.OPEN:
            self._opened()

    def _opened(self) -> None:
        self.opened_in_s = self._carrier.now_s() - self._started_s
        self.deadline_s = None
        self._handler.hop_opened(self)
        self._receive_all(self._held.take())

    # --- ending ------------------------------------------------------------------------------

    def _terminated(self, event: Terminated) -> None:
        self._hand_over_frames()
        if event.by_application:
            code = Code.from_number_untrusted(event.code) if event.code else Code.HOP_CLOSED
            self._end(code, "closed by the peer", tell=False)
        elif self.state in _UNCONNECTED:
            self._end(Code.HOP_HANDSHAKE_FAILED, f"QUIC: {event.reason}", tell=False)
        else:
            self._end(Code.HOP_PEER_LOST, f"QUIC: {event.reason}", tell=False)

    def _end(self, code: Code, detail: str, *, tell: bool) -> None:
        if self.state is HopState.CLOSED:
            return
        if tell and self._control_is_there:
            self._send_control(FrameKind.HOP_CLOSE, encode_code(code))
        self._move(HopInput.CLOSE)
        self.closing = (code, detail)
        self._closed_is_due = True
        self.deadline_s = None
        self._held.take()
        self._dialler = self._acceptor = None
        self._carrier.flush_soon()

    def _send_control(self, kind: FrameKind, body: bytes) -> None:
        self._output.add_control(0, kind, body)
        self._carrier.flush_soon()

    def _move(self, input_: HopInput) -> None:
        moved = next_state(self.state, input_)
        assert moved is not None, f"{input_.name} while {self.state.name}"
        self.state = moved

    def _terms(self) -> tuple[int, HopLimits]:
        if self._peer_terms is None:
            raise RuntimeError("the peer has not accepted this hop")
        return self._peer_terms
