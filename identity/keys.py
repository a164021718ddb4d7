"""Key types. Distinct types, so that the wrong key cannot be passed; no secret in any repr."""

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from identity.codes import Code
from identity.errors import IdentityError

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_FIELD: Final = 2**255 - 19
# The y coordinates of the eight points of small order on edwards25519. For such a "key" anybody
# can make signatures, so it identifies nobody.
_SMALL_ORDER_Y: Final = frozenset(
    (
        0,
        1,
        _FIELD - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    )
)


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """An Ed25519 public key. Raises IdentityError for a key that no honest generator makes."""

    raw: bytes

    def __post_init__(self) -> None:
        if type(self.raw) is not bytes or len(self.raw) != KEY_BYTES:
            raise IdentityError(Code.CHANNEL_HISTORY_INVALID, f"a key is {KEY_BYTES} bytes")
        y = int.from_bytes(self.raw, "little") & (2**255 - 1)
        if y >= _FIELD or y in _SMALL_ORDER_Y:
            raise IdentityError(Code.CHANNEL_HISTORY_INVALID, "a key of small order or spelling")

    def verify(self, signature: bytes, data: bytes) -> None:
        """Check one signature over exactly these bytes, or raise IdentityError."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except (InvalidSignature, ValueError) as error:
            raise IdentityError(Code.CHANNEL_PROOF_INVALID, "a signature is wrong") from error


class SigningKey:
    """An Ed25519 private key."""

    __slots__ = ("_private", "verify_key")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.verify_key = VerifyKey(private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> "SigningKey":
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_private_bytes(cls, raw: bytes) -> "SigningKey":
        """ValueError unless there are 32 bytes."""
        return cls(Ed25519PrivateKey.from_private_bytes(raw))

    def private_bytes(self) -> bytes:
        """The secret itself; only the keystore asks for it."""
        return self._private.private_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data)

    def __repr__(self) -> str:
        return f"SigningKey({self.verify_key.raw[:4].hex()}…)"


@dataclass(frozen=True, slots=True)
class NoisePublicKey:
    """An X25519 public key. Raises IdentityError unless it is 32 bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if type(self.raw) is not bytes or len(self.raw) != KEY_BYTES:
            raise IdentityError(Code.CHANNEL_ATTESTATION_INVALID, f"a key is {KEY_BYTES} bytes")


class NoiseKey:
    """An X25519 private key: one Noise static key."""

    __slots__ = ("_private", "public")

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self.public = NoisePublicKey(private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> "NoiseKey":
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_private_bytes(cls, raw: bytes) -> "NoiseKey":
        """ValueError unless there are 32 bytes."""
        return cls(X25519PrivateKey.from_private_bytes(raw))

    def private_bytes(self) -> bytes:
        """The secret itself; the keystore and the Noise library ask for it."""
        return self._private.private_bytes_raw()

    def __repr__(self) -> str:
        return f"NoiseKey({self.public.raw[:4].hex()}…)"
