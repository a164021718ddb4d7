"""Records that are not sealed, for the control run: with them the tap has to find what it seeks."""

from typing import Final

from channel import NoiseCipher, RecordCipher

# As long as an AEAD's tag, so that nothing but the sealing is missing from a record.
NO_TAG: Final = bytes(16)


class PlainCodec:
    """Fits RecordCipher, and protects nothing."""

    def seal(self, associated_data: bytes, plaintext: bytes | bytearray | memoryview) -> bytes:
        return bytes(plaintext) + NO_TAG

    def open_untrusted(
        self, associated_data: bytes, ciphertext: bytes | bytearray | memoryview
    ) -> bytes:
        return bytes(ciphertext[: -len(NO_TAG)])

    def rekey(self) -> None:
        """There is no key."""


def make_plain(cipher: NoiseCipher) -> RecordCipher:
    """In the place of the cipher that the handshake made."""
    return PlainCodec()
