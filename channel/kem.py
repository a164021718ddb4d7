"""The post-quantum half of the handshake: ML-KEM-768 (FIPS 203), behind a protocol.

The protocol exists because encapsulation draws its own randomness: a test, or a vector, brings
an implementation that does not.
"""

from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
)

from channel.errors import ChannelError
from channel.limits import KEM_CIPHERTEXT_BYTES, KEM_PUBLIC_BYTES
from identity import Code

KEM_NAME: Final = "ML-KEM-768"


class KemPrivateKey(Protocol):
    @property
    def public_bytes(self) -> bytes:
        """The encapsulation key, KEM_PUBLIC_BYTES long."""

    def decapsulate_untrusted(self, ciphertext: bytes) -> bytes:
        """Return the 32 bytes of shared secret. Raises ChannelError for a malformed ciphertext;
        a forged one gives a secret that nobody else has."""


class Kem(Protocol):
    def generate(self) -> KemPrivateKey:
        """Make a fresh key pair, for one handshake."""

    def encapsulate_untrusted(self, public_bytes: bytes) -> tuple[bytes, bytes]:
        """Return (shared secret, ciphertext). Raises ChannelError for a malformed key."""


class MlKem768PrivateKey:
    def __init__(self) -> None:
        self._key = MLKEM768PrivateKey.generate()

    @property
    def public_bytes(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    def decapsulate_untrusted(self, ciphertext: bytes) -> bytes:
        if len(ciphertext) != KEM_CIPHERTEXT_BYTES:
            raise ChannelError(Code.CHANNEL_HANDSHAKE_FAILED, "KEM ciphertext of a wrong length")
        try:
            return self._key.decapsulate(ciphertext)
        except ValueError as exc:
            raise ChannelError(Code.CHANNEL_HANDSHAKE_FAILED, "malformed KEM ciphertext") from exc


class MlKem768:
    def generate(self) -> MlKem768PrivateKey:
        return MlKem768PrivateKey()

    def encapsulate_untrusted(self, public_bytes: bytes) -> tuple[bytes, bytes]:
        if len(public_bytes) != KEM_PUBLIC_BYTES:
            raise ChannelError(Code.CHANNEL_HANDSHAKE_FAILED, "KEM key of a wrong length")
        try:
            return MLKEM768PublicKey.from_public_bytes(public_bytes).encapsulate()
        except ValueError as exc:
            raise ChannelError(Code.CHANNEL_HANDSHAKE_FAILED, "malformed KEM key") from exc
