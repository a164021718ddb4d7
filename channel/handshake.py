"""Three messages that prove two identities to each other and end in a session.

Noise_XXpsk3_25519_AESGCM_SHA256, hybrid with ML-KEM-768: message 1 carries the initiator's fresh
encapsulation key, message 2 the ciphertext, and the shared secret is the psk mixed at message 3.
Records, and the payload of message 3, stay secret unless both X25519 and ML-KEM fall; who is who
rests on X25519 and Ed25519 alone; the responder's identity, in message 2, has no post-quantum
secrecy, and neither has the initiator's Noise key, which message 3 carries before the psk.

The same object serves hops and channels. It knows no I/O and no clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from channel._noise import XX_PSK3, NoiseCipher, NoiseHandshake, Role
from channel.errors import ChannelError, ChannelStateError
from channel.kem import Kem, KemPrivateKey, MlKem768
from channel.limits import (
    HANDSHAKE_1_BYTES,
    HANDSHAKE_2_BYTES_MAX,
    HANDSHAKE_2_BYTES_MIN,
    HANDSHAKE_3_BYTES_MAX,
    HANDSHAKE_3_BYTES_MIN,
    KEM_CIPHERTEXT_BYTES,
)
from channel.state import HANDSHAKE_TRANSITIONS, HandshakeInput, HandshakeState, next_state
from channel.wire import Prologue
from identity import PROOF_BYTES_MAX, Code, NoiseKey, SidelinkError, VerifiedPeer

VerifyPeer = Callable[[bytes, bytes], VerifiedPeer]
"""(proof, Noise public key) -> who that is. Raises SidelinkError."""

MLKEM_768: Final = MlKem768()


@dataclass(frozen=True, slots=True)
class Session:
    """What a handshake leaves: one cipher for each direction and the name of the session."""

    send: NoiseCipher
    receive: NoiseCipher
    handshake_hash: bytes


class Handshake:
    """One side of one handshake.

    Each ``read_…_untrusted`` raises ChannelError alone, and after that the handshake has failed
    for ever, whatever arrives. The proof that comes with a message is judged by ``verify``
    together with the Noise key that the same message proved.
    """

    def __init__(
        self,
        role: Role,
        prologue: Prologue,
        key: NoiseKey,
        own_proof: bytes,
        verify: VerifyPeer,
        *,
        kem: Kem = MLKEM_768,
    ) -> None:
        if len(own_proof) > PROOF_BYTES_MAX:
            raise ChannelStateError(Code.LOCAL_INTERNAL, f"a proof of {len(own_proof)} bytes")
        self._prologue = prologue
        self._own_public = key.public.raw
        self._own_proof = own_proof
        self._verify = verify
        self._kem = kem
        self._kem_private: KemPrivateKey | None = None
        self._kem_peer_public = b""
        self._peer: VerifiedPeer | None = None
        self._handshake_hash = b""
        self._session: Session | None = None
        initiator = role is Role.INITIATOR
        self._state = HandshakeState.OFFERING if initiator else HandshakeState.AWAITING
        self._noise: NoiseHandshake | None = NoiseHandshake(
            XX_PSK3, role, prologue.encode(), static_private=key.private_bytes()
        )

    @property
    def state(self) -> HandshakeState:
        return self._state

    @property
    def peer(self) -> VerifiedPeer:
        """Who the peer is proved to be. Legal once ``read_2`` or ``read_3`` has returned."""
        if self._peer is None:
            raise ChannelStateError(Code.LOCAL_INTERNAL, "the peer is not verified")
        return self._peer

    @property
    def handshake_hash(self) -> bytes:
        """32 bytes that name this session and no other. Legal once it is verified."""
        if not self._handshake_hash:
            raise ChannelStateError(Code.LOCAL_INTERNAL, "the handshake is not finished")
        return self._handshake_hash

    def write_1(self) -> bytes:
        noise = self._begin(HandshakeInput.WRITE_1)
        self._kem_private = self._kem.generate()
        return self._write(noise, HandshakeInput.WRITE_1, self._kem_private.public_bytes)

    def read_1_untrusted(self, message: bytes) -> None:
        noise = self._begin_untrusted(HandshakeInput.READ_1)
        try:
            _check_length(message, HANDSHAKE_1_BYTES, HANDSHAKE_1_BYTES)
            self._kem_peer_public = noise.read_message_untrusted(message)
        except SidelinkError as exc:
            raise self._fail(exc) from exc
        self._move(HandshakeInput.READ_1)

    def write_2(self) -> bytes:
        """Raises ChannelError too: what message 1 brought is used here for the first time."""
        noise = self._begin(HandshakeInput.WRITE_2)
        try:
            secret, ciphertext = self._kem.encapsulate_untrusted(self._kem_peer_public)
        except SidelinkError as exc:
            raise self._fail(exc) from exc
        noise.replace_psk(secret)
        return self._write(noise, HandshakeInput.WRITE_2, ciphertext + self._own_proof)

    def read_2_untrusted(self, message: bytes) -> VerifiedPeer:
        noise = self._begin_untrusted(HandshakeInput.READ_2)
        try:
            _check_length(message, HANDSHAKE_2_BYTES_MIN, HANDSHAKE_2_BYTES_MAX)
            payload = noise.read_message_untrusted(message)
            assert self._kem_private is not None
            secret = self._kem_private.decapsulate_untrusted(payload[:KEM_CIPHERTEXT_BYTES])
            noise.replace_psk(secret)
            peer = self._verify_peer(payload[KEM_CIPHERTEXT_BYTES:], noise.remote_static)
            self._check_target(peer)
        except SidelinkError as exc:
            raise self._fail(exc) from exc
        self._kem_private = None
        self._move(HandshakeInput.READ_2)
        return peer

    def write_3(self) -> bytes:
        noise = self._begin(HandshakeInput.WRITE_3)
        message = self._write(noise, HandshakeInput.WRITE_3, self._own_proof)
        self._finish(noise)
        return message

    def read_3_untrusted(self, message: bytes) -> VerifiedPeer:
        noise = self._begin_untrusted(HandshakeInput.READ_3)
        try:
            _check_length(message, HANDSHAKE_3_BYTES_MIN, HANDSHAKE_3_BYTES_MAX)
            proof = noise.read_message_untrusted(message)
            peer = self._verify_peer(proof, noise.remote_static)
        except SidelinkError as exc:
            raise self._fail(exc) from exc
        self._move(HandshakeInput.READ_3)
        self._finish(noise)
        return peer

    def into_session(self) -> Session:
        """Hand over the ciphers, once."""
        self._move(HandshakeInput.CONSUME)
        session, self._session = self._session, None
        assert session is not None
        return session

    def _verify_peer(self, proof: bytes, noise_key: bytes) -> VerifiedPeer:
        if noise_key == self._own_public:
            raise ChannelError(Code.CHANNEL_SELF_CONNECTION, "the peer has our own Noise key")
        peer = self._verify(proof, noise_key)
        if peer.noise_key.raw != noise_key:
            raise ChannelError(Code.CHANNEL_ATTESTATION_INVALID, "another Noise key is attested")
        self._peer = peer
        return peer

    def _check_target(self, peer: VerifiedPeer) -> None:
        """The initiator accepts no other than whom it asked for."""
        target = self._prologue.target
        names = {str(peer.identifier), "" if peer.name is None else str(peer.name)}
        if target and target not in names:
            hop = self._prologue.purpose == "hop"
            code = Code.HOP_WRONG_IDENTIFIER if hop else Code.CHANNEL_WRONG_NAME
            raise ChannelError(code, f"asked for {target}, reached {peer.identifier}")

    def _begin(self, input_: HandshakeInput) -> NoiseHandshake:
        next_state(HANDSHAKE_TRANSITIONS, self._state, input_)
        assert self._noise is not None
        return self._noise

    def _begin_untrusted(self, input_: HandshakeInput) -> NoiseHandshake:
        """A message that comes twice or too early is the peer's doing, and fails."""
        try:
            return self._begin(input_)
        except ChannelStateError as exc:
            raise self._fail(
                ChannelError(Code.CHANNEL_HANDSHAKE_FAILED, f"out of order: {exc.detail}")
            ) from exc

    def _write(self, noise: NoiseHandshake, input_: HandshakeInput, payload: bytes) -> bytes:
        try:
            message = noise.write_message(payload)
        except ChannelError as exc:
            raise self._fail(exc) from exc
        self._move(input_)
        return message

    def _finish(self, noise: NoiseHandshake) -> None:
        self._session = Session(*noise.take_ciphers())
        self._handshake_hash = self._session.handshake_hash
        self._noise = None

    def _fail(self, error: SidelinkError) -> ChannelError:
        self._move(HandshakeInput.FAIL)
        if self._state is HandshakeState.FAILED:
            self._noise = self._kem_private = self._peer = self._session = None
            self._handshake_hash = b""
        return error if isinstance(error, ChannelError) else ChannelError(error.code, error.detail)

    def _move(self, input_: HandshakeInput) -> None:
        self._state = next_state(HANDSHAKE_TRANSITIONS, self._state, input_)


def _check_length(message: bytes, bytes_min: int, bytes_max: int) -> None:
    if not bytes_min <= len(message) <= bytes_max:
        raise ChannelError(
            Code.CHANNEL_HANDSHAKE_FAILED, f"a handshake message of {len(message)} bytes"
        )
