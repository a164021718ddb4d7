"""The only module that imports the Noise library.

The library speaks of trouble in several unrelated exceptions, forgets the peer's key when the
handshake ends, and wants every psk before the start. Here it becomes a handshake whose psk comes
when it is known, whose failures are one error, and which ends in two ciphers and nothing else.
"""

import os
from enum import Enum, auto, unique
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidTag
from noise.connection import Keypair, NoiseConnection
from noise.exceptions import (
    NoiseHandshakeError,
    NoiseInvalidMessage,
    NoiseMaxNonceError,
    NoiseValueError,
)

from channel.errors import ChannelError, ChannelStateError
from channel.limits import (
    DH_BYTES,
    HASH_BYTES,
    NOISE_MESSAGE_BYTES_MAX,
    PSK_BYTES,
)
from identity import Code

# A static key proved by each side; the psk arrives with message 2 and is mixed at message 3.
XX_PSK3: Final = b"Noise_XXpsk3_25519_AESGCM_SHA256"
# No static keys: whoever has the psk, which a channel carried, is the peer.
NN_PSK0: Final = b"Noise_NNpsk0_25519_AESGCM_SHA256"

Buffer = bytes | bytearray | memoryview

# Everything the library, and the AEAD below it, was seen to raise for hostile bytes.
_LIBRARY_ERRORS: Final = (
    InvalidTag,
    NoiseHandshakeError,
    NoiseInvalidMessage,
    NoiseMaxNonceError,
    NoiseValueError,
    IndexError,
    OverflowError,
    TypeError,
    ValueError,
)


@unique
class Role(Enum):
    INITIATOR = auto()
    RESPONDER = auto()


class RecordCipher(Protocol):
    """One direction of a session. The nonce counts by itself, from 0, and never goes back."""

    def seal(self, associated_data: bytes, plaintext: Buffer) -> bytes: ...

    def open_untrusted(self, associated_data: bytes, ciphertext: Buffer) -> bytes:
        """Raises ChannelError(CHANNEL_RECORD_INVALID); the session is then over."""

    def rekey(self) -> None: ...


class NoiseCipher:
    """A cipher state of the library after the handshake, and nothing else of it."""

    __slots__ = ("_state",)

    def __init__(self, state: Any) -> None:
        self._state = state

    def seal(self, associated_data: bytes, plaintext: Buffer) -> bytes:
        try:
            sealed: bytes = self._state.encrypt_with_ad(associated_data, plaintext)
        except NoiseMaxNonceError as exc:
            raise ChannelError(Code.CHANNEL_LIMIT_EXCEEDED, "out of nonces") from exc
        return sealed

    def open_untrusted(self, associated_data: bytes, ciphertext: Buffer) -> bytes:
        try:
            opened: bytes = self._state.decrypt_with_ad(associated_data, ciphertext)
        except _LIBRARY_ERRORS as exc:
            raise ChannelError(Code.CHANNEL_RECORD_INVALID, "a record does not open") from exc
        return opened

    def rekey(self) -> None:
        """Noise revision 34, section 11.3. The nonce goes on counting."""
        self._state.rekey()


class NoiseHandshake:
    """One handshake. A failed read leaves it useless; whoever holds it must drop it."""

    def __init__(
        self,
        pattern: bytes,
        role: Role,
        prologue: bytes,
        *,
        static_private: bytes | None = None,
        psk: bytes | None = None,
    ) -> None:
        """``psk`` None means that it comes later; until then a random one stands in its place,
        so that forgetting it can only fail."""
        connection = NoiseConnection.from_name(pattern)
        if role is Role.INITIATOR:
            connection.set_as_initiator()
        else:
            connection.set_as_responder()
        connection.set_prologue(prologue)
        if connection.noise_protocol.is_psk_handshake:
            connection.set_psks(psk if psk is not None else os.urandom(PSK_BYTES))
        if static_private is not None:
            connection.set_keypair_from_private_bytes(Keypair.STATIC, static_private)
        connection.start_handshake()
        self._connection = connection
        # The library deletes its handshake state at the end; the peer's key is read from here.
        self._state = connection.noise_protocol.handshake_state

    @property
    def finished(self) -> bool:
        return bool(self._connection.handshake_finished)

    @property
    def remote_static(self) -> bytes:
        """The peer's static key: proved by possession once the read that brought it returned."""
        public: bytes = self._state.rs.public_bytes
        assert len(public) == DH_BYTES
        return public

    def replace_psk(self, psk: bytes) -> None:
        """Put the real secret where the placeholder stands. Before its token, or not at all."""
        assert len(psk) == PSK_BYTES
        if not self._connection.noise_protocol.psks:
            raise ChannelStateError(Code.LOCAL_INTERNAL, "the psk was already mixed")
        self._connection.noise_protocol.psks = [psk]

    def write_message(self, payload: bytes) -> bytes:
        try:
            return bytes(self._connection.write_message(payload))
        except _LIBRARY_ERRORS as exc:
            # X25519 refuses a peer's low-order point only when it is used, which may be here.
            raise ChannelError(Code.CHANNEL_HANDSHAKE_FAILED, "no message can be made") from exc

    def read_message_untrusted(self, message: bytes) -> bytes:
        """Return the payload. Raises ChannelError(CHANNEL_HANDSHAKE_FAILED)."""
        if len(message) > NOISE_MESSAGE_BYTES_MAX:
            raise ChannelError(Code.CHANNEL_HANDSHAKE_FAILED, "a handshake message is too long")
        try:
            return bytes(self._connection.read_message(bytes(message)))
        except _LIBRARY_ERRORS as exc:
            raise ChannelError(
                Code.CHANNEL_HANDSHAKE_FAILED, "a handshake message does not authenticate"
            ) from exc

    def take_ciphers(self) -> tuple[NoiseCipher, NoiseCipher, bytes]:
        """Return (for sending, for receiving, handshake hash), and keep none of them."""
        if not self.finished:
            raise ChannelStateError(Code.LOCAL_INTERNAL, "the handshake is not finished")
        protocol = self._connection.noise_protocol
        ciphers = protocol.cipher_state_encrypt, protocol.cipher_state_decrypt
        protocol.cipher_state_encrypt = protocol.cipher_state_decrypt = None
        if None in ciphers:
            raise ChannelStateError(Code.LOCAL_INTERNAL, "the ciphers were already taken")
        handshake_hash = bytes(protocol.handshake_hash)
        assert len(handshake_hash) == HASH_BYTES
        return NoiseCipher(ciphers[0]), NoiseCipher(ciphers[1]), handshake_hash
