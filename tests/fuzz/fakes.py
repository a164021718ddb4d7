"""Stand-ins for slow cryptography, so that thousands of inputs a second reach what decides.

``fast_crypto`` puts a keyed hash in the place of Noise's Diffie-Hellman and AEAD, and random bytes
in that of ML-KEM. Lengths, states, errors and what is authenticated stay as they are: whatever is
changed on the way still fails to open. Nothing is hidden, which no machine here looks at.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import channel.handshake
import channel.stream
import transport.endpoint
from channel import ChannelError, RecordCipher, Role
from channel._noise import XX_PSK3
from channel.kem import MlKem768
from channel.limits import (
    AEAD_TAG_BYTES,
    DH_BYTES,
    KEM_CIPHERTEXT_BYTES,
    KEM_PUBLIC_BYTES,
    NOISE_MESSAGE_BYTES_MAX,
    PSK_BYTES,
)
from identity import Code, NoiseKey
from transport.certificate import ThrowAwayCertificate

_MESSAGES: Final = 3


class TaggedCipher:
    """Fits RecordCipher: hides nothing, and notices whatever was changed or came out of turn."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._turn = 0

    def seal(self, associated_data: bytes, plaintext: Any) -> bytes:
        sealed = bytes(plaintext)
        sealed += self._tag(associated_data, sealed)
        self._turn += 1
        return sealed

    def open_untrusted(self, associated_data: bytes, ciphertext: Any) -> bytes:
        plaintext, tag = bytes(ciphertext[:-AEAD_TAG_BYTES]), bytes(ciphertext[-AEAD_TAG_BYTES:])
        if tag != self._tag(associated_data, plaintext):
            raise ChannelError(Code.CHANNEL_RECORD_INVALID, "a record does not open")
        self._turn += 1
        return plaintext

    def rekey(self) -> None:
        self._key = hashlib.sha256(self._key).digest()

    def _tag(self, associated_data: bytes, plaintext: bytes) -> bytes:
        return _tag(self._key, self._turn.to_bytes(8, "big"), associated_data, plaintext)


def tagged_cipher() -> RecordCipher:
    """One direction of a session that never shook hands."""
    return TaggedCipher(bytes(32))


class FastNoise:
    """Fits NoiseHandshake, for XXpsk3 and NNpsk0."""

    def __init__(
        self,
        pattern: bytes,
        role: Role,
        prologue: bytes,
        *,
        static_private: bytes | None = None,
        psk: bytes | None = None,
    ) -> None:
        self._is_xx = pattern == XX_PSK3
        self._is_initiator = role is Role.INITIATOR
        self._hash = hashlib.sha256(pattern + prologue + (b"" if self._is_xx else psk or b""))
        self._own_public = b"" if static_private is None else _public_of(static_private)
        self._psk = os.urandom(PSK_BYTES) if psk is None else psk
        self._turn = 0
        self.remote_static = b""

    @property
    def finished(self) -> bool:
        return self._turn == (_MESSAGES if self._is_xx else _MESSAGES - 1)

    def replace_psk(self, psk: bytes) -> None:
        self._psk = psk

    def write_message(self, payload: bytes) -> bytes:
        head = os.urandom(DH_BYTES) if self._turn < 2 else b""
        if self._has_static:
            head += self._own_public + bytes(AEAD_TAG_BYTES)
        return head + payload + self._mix(head + payload)

    def read_message_untrusted(self, message: bytes) -> bytes:
        head = DH_BYTES if self._turn < 2 else 0
        static = head if self._has_static else None
        head += DH_BYTES + AEAD_TAG_BYTES if self._has_static else 0
        if not head + AEAD_TAG_BYTES <= len(message) <= NOISE_MESSAGE_BYTES_MAX:
            raise ChannelError(Code.CHANNEL_HANDSHAKE_FAILED, "a message of a wrong length")
        content, tag = message[:-AEAD_TAG_BYTES], message[-AEAD_TAG_BYTES:]
        if tag != self._mix(content):
            raise ChannelError(Code.CHANNEL_HANDSHAKE_FAILED, "a message does not authenticate")
        if static is not None:
            self.remote_static = content[static : static + DH_BYTES]
        return content[head:]

    def take_ciphers(self) -> tuple[Any, Any, bytes]:
        assert self.finished
        digest = self._hash.digest()
        ways = [TaggedCipher(hashlib.sha256(digest + way).digest()) for way in (b"i", b"r")]
        if not self._is_initiator:
            ways.reverse()
        return ways[0], ways[1], digest

    @property
    def _has_static(self) -> bool:
        return self._is_xx and self._turn > 0

    def _mix(self, content: bytes) -> bytes:
        if self._is_xx and self._turn == 2:
            self._hash.update(self._psk)
        self._hash.update(content)
        self._turn += 1
        return self._hash.digest()[:AEAD_TAG_BYTES]


class _FastKemKey:
    public_bytes = bytes(KEM_PUBLIC_BYTES)

    def decapsulate_untrusted(self, ciphertext: bytes) -> bytes:
        if len(ciphertext) != KEM_CIPHERTEXT_BYTES:
            raise ChannelError(Code.CHANNEL_HANDSHAKE_FAILED, "KEM ciphertext of a wrong length")
        return ciphertext[:PSK_BYTES]


def _generate(_kem: MlKem768) -> Any:
    return _FastKemKey()


def _encapsulate(_kem: MlKem768, public_bytes: bytes) -> tuple[bytes, bytes]:
    if len(public_bytes) != KEM_PUBLIC_BYTES:
        raise ChannelError(Code.CHANNEL_HANDSHAKE_FAILED, "KEM key of a wrong length")
    secret = os.urandom(PSK_BYTES)
    return secret, secret + bytes(KEM_CIPHERTEXT_BYTES - PSK_BYTES)


@contextmanager
def fast_crypto() -> Iterator[None]:
    """Within it, handshakes of channels, hops and streams cost microseconds."""
    places: list[tuple[Any, str, Any]] = [
        (channel.handshake, "NoiseHandshake", FastNoise),
        (channel.stream, "NoiseHandshake", FastNoise),
        (MlKem768, "generate", _generate),
        (MlKem768, "encapsulate_untrusted", _encapsulate),
        (transport.endpoint, "ThrowAwayCertificate", _OneCertificate),
    ]
    before = [getattr(place, name) for place, name, _ in places]
    for place, name, stand_in in places:
        setattr(place, name, stand_in)
    try:
        yield
    finally:
        for (place, name, _), real in zip(places, before, strict=True):
            setattr(place, name, real)


class _OneCertificate:
    """The same for all endpoints of the process."""

    @staticmethod
    @cache
    def generate() -> ThrowAwayCertificate:
        return ThrowAwayCertificate.generate()


@cache
def _public_of(private: bytes) -> bytes:
    return NoiseKey.from_private_bytes(private).public.raw


def _tag(key: bytes, *parts: bytes) -> bytes:
    digest = hashlib.blake2b(key=key, digest_size=AEAD_TAG_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()
