"""Channel: one sealed session between two agents. Parts of a link in, events out.

One turn of the crank, whoever is cranking:

    events = channel.receive(part, body, now_s)   # the link brought something
    for part, body in channel.take_output(): …    # after every call, always
    wake_at = channel.deadline_s                  # None, or when to call
    events = channel.handle_deadline(now_s)       # …this

It never waits, never looks at a clock, and knows nothing of links, frames or policy.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum, auto, unique
from typing import Final, Protocol, TypedDict, Unpack

from channel._noise import NoiseCipher, RecordCipher, Role
from channel.errors import ChannelError, ChannelStateError
from channel.events import (
    ChannelClosed,
    ChannelDenied,
    ChannelEvent,
    ChannelOpened,
    DataReceived,
    PeerVerified,
    StreamOpenReceived,
)
from channel.handshake import MLKEM_768, Handshake, VerifyPeer
from channel.kem import Kem
from channel.limits import (
    EARLY_BYTES_MAX,
    HANDSHAKE_S_MAX,
    MESSAGE_BYTES_MAX,
    RECORD_OVERHEAD_BYTES,
    RECORD_PLAINTEXT_BYTES_MAX,
    REKEY_LIMITS,
    STREAM_OPEN_BYTES_MAX,
    UNSENT_BYTES_MAX,
    RekeyLimits,
)
from channel.messages import MessageAssembler, fragments_of
from channel.records import RecordReader, RecordWriter
from channel.state import CHANNEL_TRANSITIONS, ChannelInput, ChannelState, next_state
from channel.wire import (
    Denial,
    Prologue,
    RecordHeader,
    RecordType,
    decode_code_untrusted,
    decode_denial_untrusted,
    encode_code,
    encode_denial,
)
from identity import Code, Identifier, NoiseKey, VerifiedPeer

PERMITTED_ACTIONS: Final = frozenset({"channel.open", "node.enrol"})
# What may be said, and believed as a hint, without a seal: why a link could not serve. Never
# what a policy, a mailbox or a service answered.
CLAIMABLE_GROUPS: Final = frozenset({"hop", "channel", "route"})


@unique
class Part(Enum):
    """What a link carries for a channel; each is one kind of frame."""

    OPEN = auto()
    ACCEPT = auto()
    FINISH = auto()
    RECORD = auto()
    CLOSE = auto()


class ChannelPermit(Protocol):
    """Proof that policy said yes to this peer."""

    @property
    def subject(self) -> Identifier | None: ...
    @property
    def action(self) -> str: ...


MakeCipher = Callable[[NoiseCipher], RecordCipher]


class ChannelOptions(TypedDict, total=False):
    """What a test, or another composition, may bring. ``make_cipher`` may wrap each direction."""

    limits: RekeyLimits
    kem: Kem
    make_cipher: MakeCipher


_INPUT_OF_TYPE: Final = {
    RecordType.DATA: ChannelInput.RECORD_DATA,
    RecordType.ACCEPT: ChannelInput.RECORD_ACCEPT,
    RecordType.DENY: ChannelInput.RECORD_DENY,
    RecordType.REKEY: ChannelInput.RECORD_REKEY,
    RecordType.STREAM_OPEN: ChannelInput.RECORD_STREAM_OPEN,
    RecordType.CLOSE: ChannelInput.CLOSE,
}
# What may come between two fragments of one message.
_BETWEEN_FRAGMENTS: Final = frozenset(
    {RecordType.DATA, RecordType.REKEY, RecordType.DENY, RecordType.CLOSE}
)


def _as_it_is(cipher: NoiseCipher) -> RecordCipher:
    return cipher


class Channel:
    """One side of one channel, from its first message to its erased keys."""

    def __init__(
        self,
        role: Role,
        prologue: Prologue,
        key: NoiseKey,
        proof: bytes,
        verify: VerifyPeer,
        now_s: float,
        *,
        limits: RekeyLimits = REKEY_LIMITS,
        kem: Kem = MLKEM_768,
        make_cipher: MakeCipher = _as_it_is,
    ) -> None:
        self._state = ChannelState.NEW
        self._handshake: Handshake | None = Handshake(role, prologue, key, proof, verify, kem=kem)
        self._limits = limits
        self._make_cipher = make_cipher
        self._now_s = now_s
        self._handshake_deadline_s = now_s + HANDSHAKE_S_MAX
        self._peer: VerifiedPeer | None = None
        self._handshake_hash = b""
        self._writer: RecordWriter | None = None
        self._reader: RecordReader | None = None
        self._output: list[tuple[Part, bytes]] = []
        self._incoming = MessageAssembler()
        self._wire_bytes = 0
        # The responder's: events that wait for its permit, and the records they came in.
        self._held: list[ChannelEvent] = []
        self._held_bytes = 0
        # The initiator's: what it sent before ACCEPT, and what has no room before it.
        self._early_bytes = 0
        self._unsent: deque[tuple[RecordType, bytes]] = deque()
        self._unsent_bytes = 0

    @classmethod
    def connect(
        cls,
        *,
        prologue: Prologue,
        key: NoiseKey,
        proof: bytes,
        verify: VerifyPeer,
        now_s: float,
        **options: Unpack[ChannelOptions],
    ) -> "Channel":
        """The initiator. Its first part, OPEN, is in ``take_output`` at once."""
        channel = cls(Role.INITIATOR, prologue, key, proof, verify, now_s, **options)
        assert channel._handshake is not None
        channel._output.append((Part.OPEN, channel._handshake.write_1()))
        channel._move(ChannelInput.CONNECT)
        return channel

    @classmethod
    def respond(
        cls,
        *,
        prologue: Prologue,
        key: NoiseKey,
        proof: bytes,
        verify: VerifyPeer,
        now_s: float,
        **options: Unpack[ChannelOptions],
    ) -> "Channel":
        """The responder. Its first input is the part OPEN."""
        return cls(Role.RESPONDER, prologue, key, proof, verify, now_s, **options)

    @property
    def state(self) -> ChannelState:
        return self._state

    @property
    def peer(self) -> VerifiedPeer:
        """Who the peer is proved to be. Legal from PeerVerified on."""
        if self._peer is None:
            raise ChannelStateError(Code.LOCAL_INTERNAL, "the peer is not verified")
        return self._peer

    @property
    def handshake_hash(self) -> bytes:
        """32 bytes that name this session. Legal from PeerVerified on."""
        if not self._handshake_hash:
            raise ChannelStateError(Code.LOCAL_INTERNAL, "the handshake is not finished")
        return self._handshake_hash

    @property
    def deadline_s(self) -> float | None:
        """When to call handle_deadline next."""
        if self._state is ChannelState.CLOSED:
            return None
        if self._state is ChannelState.OPEN and self._writer is not None:
            return self._writer.rekey_due_s
        return self._handshake_deadline_s

    def receive(self, part: Part, body: bytes, now_s: float) -> list[ChannelEvent]:
        """Take what the link brought.

        Nothing that a peer, or somebody between, can send makes this raise: it costs the channel,
        and the last event is then ChannelClosed.
        """
        if self._state is ChannelState.CLOSED:
            return []
        self._tell(now_s)
        if self._state is not ChannelState.OPEN and now_s >= self._handshake_deadline_s:
            return self.handle_deadline(now_s)
        try:
            match part:
                case Part.RECORD:
                    return self._receive_record_untrusted(body)
                case Part.CLOSE:
                    return self._receive_unsealed_close(body)
                case _:
                    return self._receive_handshake_untrusted(part, body)
        except ChannelError as exc:
            return self._fail(exc.code)

    def accept(self, permit: ChannelPermit) -> list[ChannelEvent]:
        """Let the verified peer in. Returns ChannelOpened and then what was held until now.

        Raises ChannelStateError, and opens nothing, for a permit of another subject or action.
        """
        opened = next_state(CHANNEL_TRANSITIONS, self._state, ChannelInput.PERMIT)
        if permit.subject is None or permit.subject != self.peer.identifier:
            raise ChannelStateError(Code.LOCAL_INTERNAL, "a permit for somebody else")
        if permit.action not in PERMITTED_ACTIONS:
            raise ChannelStateError(Code.LOCAL_INTERNAL, f"a permit to {permit.action}")
        self._state = opened
        self._seal(RecordType.ACCEPT, b"")
        held, self._held, self._held_bytes = self._held, [], 0
        return [ChannelOpened(), *held]

    def deny(self, code: Code, rule: str, reason: str) -> None:
        """Refuse the peer, or an open channel whose permit has ended, under the seal."""
        self._move(ChannelInput.REFUSE)
        self._seal(RecordType.DENY, encode_denial(Denial(code, rule, reason)))
        self._output.append((Part.CLOSE, encode_code(Code.CHANNEL_CLOSED)))
        self._erase()

    def send(self, data: bytes, now_s: float) -> None:
        """Send one message of at most MESSAGE_BYTES_MAX. Legal in OPENING and OPEN.

        Behind message 3, what exceeds the first flight waits here for the peer's ACCEPT.
        """
        if len(data) > MESSAGE_BYTES_MAX:
            raise ChannelStateError(Code.MESSAGE_TOO_LARGE, f"{len(data)} bytes")
        self._move(ChannelInput.SEND)
        self._tell(now_s)
        self._send(RecordType.DATA, data)

    def open_stream(self, payload: bytes) -> None:
        """Tell the peer of a byte stream. Legal where ``send`` is, and in order with it."""
        if len(payload) > STREAM_OPEN_BYTES_MAX:
            raise ChannelStateError(Code.MESSAGE_TOO_LARGE, f"{len(payload)} bytes")
        self._move(ChannelInput.SEND)
        self._send(RecordType.STREAM_OPEN, payload)

    def close(self, code: Code = Code.CHANNEL_CLOSED) -> None:
        """End the channel, under the seal where there is one. Idempotent; no event follows.

        An initiator that closes on PeerVerified, before it took the output, has not told the
        peer who it is: message 3 is withdrawn.
        """
        if self._state is ChannelState.CLOSED:
            return
        if any(part is Part.FINISH for part, _ in self._output):
            self._output.clear()
            self._writer = None
        self._end(code)

    def handle_deadline(self, now_s: float) -> list[ChannelEvent]:
        deadline_s = self.deadline_s
        if deadline_s is None or now_s < deadline_s:
            return []  # Woken early. Waking early is harmless.
        self._tell(now_s)
        if self._state is not ChannelState.OPEN:
            return self._fail(Code.CHANNEL_TIMEOUT)
        assert self._writer is not None
        try:
            self._output.append((Part.RECORD, self._writer.rekey(self._now_s)))
        except ChannelError as exc:
            return self._fail(exc.code)
        return []

    def take_output(self) -> list[tuple[Part, bytes]]:
        """What the link must carry, in this order."""
        taken, self._output = self._output, []
        return taken

    def _receive_handshake_untrusted(self, part: Part, body: bytes) -> list[ChannelEvent]:
        handshake = self._handshake
        if handshake is None:
            raise ChannelError(Code.CHANNEL_HANDSHAKE_FAILED, f"{part.name} after the handshake")
        match self._state, part:
            case ChannelState.NEW, Part.OPEN:
                handshake.read_1_untrusted(body)
                self._output.append((Part.ACCEPT, handshake.write_2()))
                self._move(ChannelInput.HANDSHAKE_1)
                return []
            case ChannelState.CONNECTING, Part.ACCEPT:
                self._peer = handshake.read_2_untrusted(body)
                self._output.append((Part.FINISH, handshake.write_3()))
                self._move(ChannelInput.HANDSHAKE_2)
            case ChannelState.RESPONDING, Part.FINISH:
                self._peer = handshake.read_3_untrusted(body)
                self._move(ChannelInput.HANDSHAKE_3)
            case _:
                raise ChannelError(
                    Code.CHANNEL_HANDSHAKE_FAILED, f"{part.name} while {self._state.name}"
                )
        self._begin_session(handshake)
        return [PeerVerified(self._peer)]

    def _begin_session(self, handshake: Handshake) -> None:
        session = handshake.into_session()
        self._handshake = None
        self._handshake_hash = session.handshake_hash
        self._writer = RecordWriter(self._make_cipher(session.send), self._limits, self._now_s)
        self._reader = RecordReader(self._make_cipher(session.receive), self._limits)

    def _receive_record_untrusted(self, record: bytes) -> list[ChannelEvent]:
        if self._reader is None:
            raise ChannelError(Code.CHANNEL_HANDSHAKE_FAILED, "a record before the handshake")
        header, plaintext = self._reader.open_untrusted(record)
        self._wire_bytes += len(record)
        events = self._apply_record_untrusted(header, plaintext)
        if self._state is not ChannelState.VERIFIED:
            return events
        # Nothing is delivered before the permit, and nobody makes us hold much.
        self._held_bytes += len(record)
        if self._held_bytes > EARLY_BYTES_MAX:
            raise ChannelError(Code.CHANNEL_LIMIT_EXCEEDED, "too much before ACCEPT")
        self._held += events
        return []

    def _apply_record_untrusted(self, header: RecordHeader, body: bytes) -> list[ChannelEvent]:
        input_ = _INPUT_OF_TYPE.get(header.type)
        if input_ is None or (self._state, input_) not in CHANNEL_TRANSITIONS:
            raise ChannelError(
                Code.CHANNEL_BAD_RECORD, f"{header.type.name} while {self._state.name}"
            )
        if self._incoming.is_between_fragments and header.type not in _BETWEEN_FRAGMENTS:
            raise ChannelError(Code.CHANNEL_BAD_RECORD, f"{header.type.name} between fragments")
        match header.type:
            case RecordType.DATA:
                message = self._incoming.add_untrusted(body, header.flags)
                return [] if message is None else [DataReceived(message, self._take_wire_bytes())]
            case RecordType.STREAM_OPEN:
                return [StreamOpenReceived(body, self._take_wire_bytes())]
            case RecordType.ACCEPT:
                return self._receive_accept_untrusted(body)
            case RecordType.DENY:
                denial = decode_denial_untrusted(body)
                self._move(input_)
                self._erase()
                return [
                    ChannelDenied(denial.code, denial.rule, denial.reason),
                    ChannelClosed(denial.code, sealed=True),
                ]
            case RecordType.CLOSE:
                code = decode_code_untrusted(body)
                self._move(input_)
                self._erase()
                return [ChannelClosed(code, sealed=True)]
            case _:
                return []  # REKEY, which the reader has obeyed.

    def _receive_accept_untrusted(self, body: bytes) -> list[ChannelEvent]:
        if body:
            raise ChannelError(Code.CHANNEL_BAD_RECORD, "ACCEPT with a body")
        self._move(ChannelInput.RECORD_ACCEPT)
        unsent, self._unsent, self._unsent_bytes = self._unsent, deque(), 0
        for type_, data in unsent:
            self._seal(type_, data)
        return [ChannelOpened()]

    def _receive_unsealed_close(self, body: bytes) -> list[ChannelEvent]:
        """Somebody says that the link is over. Not that the peer ended, and not that it refused."""
        try:
            code = decode_code_untrusted(body)
        except ChannelError:
            code = Code.CHANNEL_UNSEALED_END
        if code is Code.CHANNEL_CLOSED or _group_of(code) not in CLAIMABLE_GROUPS:
            code = Code.CHANNEL_UNSEALED_END
        self._move(ChannelInput.CLOSE)
        self._erase()
        return [ChannelClosed(code, sealed=False)]

    def _send(self, type_: RecordType, data: bytes) -> None:
        if self._state is ChannelState.OPENING and not self._takes_first_flight(len(data)):
            if self._unsent_bytes + len(data) > UNSENT_BYTES_MAX:
                raise ChannelStateError(Code.MESSAGE_QUEUE_FULL, "too much waits for ACCEPT")
            self._unsent.append((type_, data))
            self._unsent_bytes += len(data)
            return
        self._seal(type_, data)

    def _takes_first_flight(self, data_bytes: int) -> bool:
        records = max(1, -(-data_bytes // RECORD_PLAINTEXT_BYTES_MAX))
        # At worst, each record has a REKEY before it.
        self._early_bytes += data_bytes + 2 * records * RECORD_OVERHEAD_BYTES
        if self._early_bytes <= EARLY_BYTES_MAX:
            return True
        # The first that does not fit ends the flight, so that nothing overtakes what waits.
        self._early_bytes = EARLY_BYTES_MAX
        return False

    def _seal(self, type_: RecordType, data: bytes) -> None:
        """Seal one body, in as many records as it takes."""
        assert self._writer is not None
        for fragment, flags in fragments_of(data):
            for record in self._writer.seal(type_, fragment, self._now_s, flags):
                self._output.append((Part.RECORD, record))

    def _fail(self, code: Code) -> list[ChannelEvent]:
        self._end(code)
        return [ChannelClosed(code, sealed=False)]

    def _end(self, code: Code) -> None:
        """Tell the peer why, sealed if that can be; tell those between as little as possible."""
        claimed = code if _group_of(code) in CLAIMABLE_GROUPS else Code.CHANNEL_CLOSED
        if self._writer is not None:
            try:
                self._seal(RecordType.CLOSE, encode_code(code))
                claimed = Code.CHANNEL_CLOSED
            except ChannelError:
                claimed = Code.CHANNEL_LIMIT_EXCEEDED  # No key is left to say it with.
        self._output.append((Part.CLOSE, encode_code(claimed)))
        self._move(ChannelInput.CLOSE)
        self._erase()

    def _erase(self) -> None:
        """Keys and what they opened do not outlive the channel."""
        self._handshake = self._writer = self._reader = None
        self._incoming.clear()
        self._held = []
        self._unsent.clear()

    def _take_wire_bytes(self) -> int:
        taken, self._wire_bytes = self._wire_bytes, 0
        return taken

    def _tell(self, now_s: float) -> None:
        self._now_s = max(self._now_s, now_s)

    def _move(self, input_: ChannelInput) -> None:
        self._state = next_state(CHANNEL_TRANSITIONS, self._state, input_)


def _group_of(code: Code) -> str:
    return code.text.partition(".")[0]
