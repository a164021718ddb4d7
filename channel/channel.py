"""Channel: one sealed session between two agents. Parts of a link in, events out.

One turn of the crank, whoever is cranking:

    events = channel.receive(part, body, now_s)   # the link brought something
    for part, body in channel.take_output(): …    # after every call, always
    wake_at = channel.deadline_s                  # None, or when to call
    events = channel.handle_deadline(now_s)       # …this

It never waits, never looks at a clock, and knows nothing of links, frames or policy.
"""

import math
import os
from typing import Unpack

from channel._noise import Role
from channel.contract import (
    CLAIMABLE_GROUPS,
    INPUT_OF_RECORD,
    PERMITTED_ACTIONS,
    ChannelOptions,
    ChannelPermit,
    MakeCipher,
    Part,
    believed_claim_untrusted,
    cipher_as_it_is,
)
from channel.errors import ChannelError, ChannelStateError
from channel.events import (
    ChannelClosed,
    ChannelDenied,
    ChannelEvent,
    ChannelOpened,
    DataReceived,
    PeerVerified,
)
from channel.handshake import MLKEM_768, Handshake, VerifyPeer
from channel.incoming import Incoming
from channel.kem import Kem
from channel.limits import (
    EARLY_BYTES_MAX,
    HANDSHAKE_S_MAX,
    MESSAGE_BYTES_MAX,
    MOVE_KEY_BYTES,
    REKEY_LIMITS,
    STREAM_OPEN_BYTES_MAX,
    RekeyLimits,
)
from channel.moving import Mover, session_id_of
from channel.outgoing import Outgoing
from channel.state import CHANNEL_TRANSITIONS, ChannelInput, ChannelState, next_state
from channel.telling import renewed_untrusted, told_untrusted
from channel.wire import (
    Address,
    Denial,
    Prologue,
    RecordHeader,
    RecordType,
    Signal,
    decode_code_untrusted,
    decode_denial_untrusted,
    decode_position_untrusted,
    encode_addresses,
    encode_code,
    encode_denial,
    encode_position,
)
from identity import Code, NoiseKey, VerifiedPeer


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
        make_cipher: MakeCipher = cipher_as_it_is,
        verify_renewal: VerifyPeer | None = None,
    ) -> None:
        self._state = ChannelState.NEW
        self._role = role
        self._handshake: Handshake | None = Handshake(role, prologue, key, proof, verify, kem=kem)
        self._verify_renewal = verify_renewal or verify
        self._limits = limits
        self._make_cipher = make_cipher
        self._now_s = now_s
        self._handshake_deadline_s = now_s + HANDSHAKE_S_MAX
        self._peer: VerifiedPeer | None = None
        self._handshake_hash = b""
        self._session: tuple[Outgoing, Incoming] | None = None
        self._output: list[tuple[Part, bytes]] = []
        self._mover: Mover | None = None
        self._ended_awaiting = False
        # The responder's: events that wait for its permit, and the records they came in.
        self._held: list[ChannelEvent] = []
        self._held_bytes = 0

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
    def session_id(self) -> bytes:
        """16 bytes that name this session to its peer on another link. Legal in OPEN."""
        return self._movable().session_id

    @property
    def unacknowledged_bytes(self) -> int:
        """Bytes of sealed records that the peer has not acknowledged."""
        return 0 if self._session is None else self._session[0].sent.held_bytes

    @property
    def waiting_bytes(self) -> int:
        """Bytes of messages that wait for room on the link."""
        return 0 if self._session is None else self._session[0].waiting_bytes

    @property
    def gathered_bytes(self) -> int:
        """Bytes of a message of the peer's that is not here whole. No window counts them."""
        return 0 if self._session is None else self._session[1].message.gathered_bytes

    @property
    def awaits_acknowledgement(self) -> bool:
        """Whether something was said that the peer has not acknowledged; of a closed channel, was
        it so when it ended."""
        return self._ended_awaiting if self._session is None else self._session[0].is_awaiting

    @property
    def deadline_s(self) -> float | None:
        """When to call handle_deadline next."""
        if self._state is ChannelState.CLOSED:
            return None
        if self._state is not ChannelState.OPEN:
            return self._handshake_deadline_s
        outgoing, incoming = self._directions()
        rekey_s, receipt_s = outgoing.writer.rekey_due_s, incoming.receipts.deadline_s
        return rekey_s if receipt_s is None else min(rekey_s, receipt_s)

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
                    # Somebody says that the link is over: not that the peer ended, or refused.
                    self._move(ChannelInput.CLOSE)
                    self._erase()
                    return [ChannelClosed(believed_claim_untrusted(body), sealed=False)]
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
        key = os.urandom(MOVE_KEY_BYTES)
        self._seal(RecordType.ACCEPT, key)
        self._mover = Mover(key, self._role, session_id_of(self._handshake_hash))
        held, self._held, self._held_bytes = self._held, [], 0
        return [ChannelOpened(), *held]

    def deny(self, code: Code, rule: str, reason: str) -> None:
        """Refuse the peer, or an open channel whose permit has ended, under the seal."""
        self._move(ChannelInput.REFUSE)
        self._seal(RecordType.DENY, encode_denial(Denial(code, rule, reason)))
        self._flush_records()
        self._output.append((Part.CLOSE, encode_code(Code.CHANNEL_CLOSED)))
        self._erase()

    def send(self, data: bytes, now_s: float) -> None:
        """Send one message of at most MESSAGE_BYTES_MAX. Legal in OPENING and OPEN.

        Behind message 3, what exceeds the first flight waits here for the peer's ACCEPT.
        """
        if len(data) > MESSAGE_BYTES_MAX:
            raise ChannelStateError(Code.MESSAGE_TOO_LARGE, f"{len(data)} bytes")
        self._tell(now_s)
        self._send(RecordType.DATA, data)

    def open_stream(self, payload: bytes) -> None:
        """Tell the peer of a byte stream. Legal where ``send`` is, and in order with it."""
        if len(payload) > STREAM_OPEN_BYTES_MAX:
            raise ChannelStateError(Code.MESSAGE_TOO_LARGE, f"{len(payload)} bytes")
        self._send(RecordType.STREAM_OPEN, payload)

    def tell_addresses(self, addresses: tuple[Address, ...]) -> None:
        """Tell the peer where our node may be reached without a gateway. Legal in OPEN."""
        self._say(RecordType.ADDRESSES, encode_addresses(addresses))

    def signal(self, signal: Signal) -> None:
        """Offer to put this channel away, refuse that, or say that we stop soon. Behind an offer
        the owner sends nothing until the peer answers it. Legal in OPEN."""
        self._say(RecordType(signal))

    def renew(self, proof: bytes) -> None:
        """Show the peer a newer proof of ourselves, for the key of this channel. Legal in OPEN."""
        self._say(RecordType.RENEW, proof)

    def hurry_acknowledgements(self) -> None:
        """The peer waits for each: it wants to leave this channel in good order."""
        self._directions()[1].receipts.hurry()

    # On another link. Each raises ChannelError for what the peer did not say; the channel then is
    # as it was, but for a peer that stands where it cannot: ``receive`` no longer helps there.

    def ask_to_move(self, nonce: bytes) -> bytes:
        """The message for the LINK_OPEN of this nonce. Legal in OPEN."""
        return self._movable().ask(nonce, self._directions()[1].position)

    def answer_move_untrusted(self, message: bytes, nonce: bytes) -> bytes:
        """Take the peer's wish to go on there; return the answer for LINK_ACCEPT. What it has not
        received is in ``take_output`` again."""
        mover = self._movable()
        self._resume_untrusted(mover.read_ask_untrusted(message, nonce))
        return mover.answer(nonce, self._directions()[1].position)

    def finish_move_untrusted(self, message: bytes) -> None:
        """Take the peer's answer to our last wish. ``take_output`` likewise."""
        self._resume_untrusted(self._movable().read_answer_untrusted(message))

    def close(self, code: Code = Code.CHANNEL_CLOSED) -> None:
        """End the channel, under the seal where there is one. Idempotent; no event follows.

        An initiator that closes on PeerVerified, before it took the output, has not told the
        peer who it is: message 3 is withdrawn.
        """
        if self._state is ChannelState.CLOSED:
            return
        if any(part is Part.FINISH for part, _ in self._output):
            self._output.clear()
            self._session = None
        self._end(code)

    def handle_deadline(self, now_s: float) -> list[ChannelEvent]:
        deadline_s = self.deadline_s
        if deadline_s is None or now_s < deadline_s:
            return []  # Woken early. Waking early is harmless.
        self._tell(now_s)
        if self._state is not ChannelState.OPEN:
            return self._fail(Code.CHANNEL_TIMEOUT)
        outgoing, incoming = self._directions()
        try:
            if now_s >= outgoing.writer.rekey_due_s:
                outgoing.rekey(self._now_s)
            self._acknowledge()
        except ChannelError as exc:
            return self._fail(exc.code)
        incoming.receipts.passed()
        return []

    def take_output(self, room_bytes: float = math.inf) -> list[tuple[Part, bytes]]:
        """What the link must carry, in this order. Of messages as much as fits ``room_bytes``:
        the rest waits, and is lost with a channel that ends."""
        self._flush_records(room_bytes)
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
        self._session = (
            Outgoing(
                self._make_cipher(session.send),
                self._limits,
                self._now_s,
                is_early=self._role is Role.INITIATOR,
            ),
            Incoming(self._make_cipher(session.receive), self._limits),
        )

    def _receive_record_untrusted(self, record: bytes) -> list[ChannelEvent]:
        if self._session is None:
            raise ChannelError(Code.CHANNEL_HANDSHAKE_FAILED, "a record before the handshake")
        opened = self._session[1].open_untrusted(record, self._now_s)
        if opened is None:
            return []
        header, plaintext = opened
        events = self._apply_record_untrusted(header, plaintext)
        if self._state is not ChannelState.VERIFIED:
            if self._state is ChannelState.OPEN:
                self._acknowledge()
            return events
        # Nothing is delivered before the permit, and nobody makes us hold much.
        self._held_bytes += len(record)
        if self._held_bytes > EARLY_BYTES_MAX:
            raise ChannelError(Code.CHANNEL_LIMIT_EXCEEDED, "too much before ACCEPT")
        self._held += events
        return []

    def _apply_record_untrusted(self, header: RecordHeader, body: bytes) -> list[ChannelEvent]:
        input_ = INPUT_OF_RECORD.get(header.type)
        if input_ is None or (self._state, input_) not in CHANNEL_TRANSITIONS:
            raise ChannelError(
                Code.CHANNEL_BAD_RECORD, f"{header.type.name} while {self._state.name}"
            )
        outgoing, incoming = self._directions()
        match header.type:
            case RecordType.DATA:
                message = incoming.message.add_untrusted(body, header.flags)
                return [] if message is None else [DataReceived(message)]
            case RecordType.ACK:
                outgoing.sent.acknowledge_untrusted(decode_position_untrusted(body))
                return []
            case RecordType.RENEW:
                renewed = renewed_untrusted(self._verify_renewal, self.peer, body)
                self._peer = renewed.peer
                return [renewed]
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
                return told_untrusted(header.type, body)  # REKEY the reader has obeyed.

    def _receive_accept_untrusted(self, body: bytes) -> list[ChannelEvent]:
        if len(body) != MOVE_KEY_BYTES:
            raise ChannelError(Code.CHANNEL_BAD_RECORD, "ACCEPT without its key")
        self._move(ChannelInput.RECORD_ACCEPT)
        self._mover = Mover(body, self._role, session_id_of(self._handshake_hash))
        self._directions()[0].open()
        return [ChannelOpened()]

    def _movable(self) -> Mover:
        if self._state is not ChannelState.OPEN or self._mover is None:
            raise ChannelStateError(Code.LOCAL_INTERNAL, f"no moving while {self._state.name}")
        return self._mover

    def _resume_untrusted(self, position: int) -> None:
        self._directions()[0].resend_untrusted(position)
        self._directions()[1].has_moved = True

    def _acknowledge(self) -> None:
        outgoing, incoming = self._directions()
        if incoming.receipts.is_due_untrusted(self._now_s, unheard=outgoing.sent.replies):
            self._seal(RecordType.ACK, encode_position(incoming.position))
            incoming.receipts.acknowledged()

    def _send(self, type_: RecordType, data: bytes) -> None:
        self._move(ChannelInput.SEND)
        self._directions()[0].queue(type_, data)

    def _say(self, type_: RecordType, body: bytes = b"") -> None:
        self._move(ChannelInput.SAY)
        self._directions()[0].queue(type_, body)

    def _seal(self, type_: RecordType, data: bytes) -> None:
        self._directions()[0].seal(type_, data, self._now_s)

    def _directions(self) -> tuple[Outgoing, Incoming]:
        assert self._session is not None, "there are no keys yet, or no longer"
        return self._session

    def _flush_records(self, room_bytes: float = 0) -> None:
        """Records come behind the parts that were there before them, and ahead of what follows."""
        if self._session is not None:
            ready = self._session[0].take_ready(room_bytes, self._now_s)
            self._output += [(Part.RECORD, record) for record in ready]

    def _fail(self, code: Code) -> list[ChannelEvent]:
        self._end(code)
        return [ChannelClosed(code, sealed=False)]

    def _end(self, code: Code) -> None:
        """Tell the peer why, sealed if that can be; tell those between as little as possible."""
        claimed = code if code.group in CLAIMABLE_GROUPS else Code.CHANNEL_CLOSED
        if self._session is not None:
            try:
                self._seal(RecordType.CLOSE, encode_code(code))
                claimed = Code.CHANNEL_CLOSED
            except ChannelError:
                claimed = Code.CHANNEL_LIMIT_EXCEEDED  # No key is left to say it with.
        self._flush_records()
        self._output.append((Part.CLOSE, encode_code(claimed)))
        self._move(ChannelInput.CLOSE)
        self._erase()

    def _erase(self) -> None:
        """Keys and what they opened do not outlive the channel."""
        self._ended_awaiting = self.awaits_acknowledgement
        self._handshake = self._session = self._mover = None
        self._held = []

    def _tell(self, now_s: float) -> None:
        self._now_s = max(self._now_s, now_s)

    def _move(self, input_: ChannelInput) -> None:
        self._state = next_state(CHANNEL_TRANSITIONS, self._state, input_)
