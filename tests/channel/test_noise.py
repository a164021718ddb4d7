"""The adapter of the Noise library, against public vectors and against its own traps."""

import json
from pathlib import Path
from typing import Any

import pytest

from channel import ChannelError, ChannelStateError
from channel._noise import NN_PSK0, XX_PSK3, NoiseCipher, NoiseHandshake, Role
from identity import Code
from tests.channel.helpers import ALICE, BOB

# From cacophony and snow, for the patterns that our adapter can make.
VECTORS_PATH = Path(__file__).parent.parent / "vectors" / "noise-25519-aesgcm-sha256.json"
VECTORS: list[dict[str, Any]] = json.loads(VECTORS_PATH.read_text())["vectors"]


def handshake_of_vector(vector: dict[str, Any], side: str, psk_late: bool) -> NoiseHandshake:
    """Build one side; the psk either from the start or, as our handshake does, later."""
    psks = vector.get(f"{side}_psks")
    psk = bytes.fromhex(psks[0]) if psks else None
    static = vector.get(f"{side}_static")
    handshake = NoiseHandshake(
        vector["protocol_name"].encode(),
        Role.INITIATOR if side == "init" else Role.RESPONDER,
        bytes.fromhex(vector[f"{side}_prologue"]),
        static_private=bytes.fromhex(static) if static else None,
        psk=None if psk_late else psk,
    )
    if psk_late:
        assert psk is not None
        handshake.replace_psk(psk)
    ephemeral = bytes.fromhex(vector[f"{side}_ephemeral"])
    keypair_class = handshake._connection.noise_protocol.keypair_class
    handshake._state.e = keypair_class.from_private_bytes(ephemeral)
    return handshake


CASES = [
    pytest.param(vector, late, id=f"{vector['protocol_name']}-{number}{'-late' * late}")
    for number, vector in enumerate(VECTORS)
    for late in ((False, True) if vector.get("init_psks") else (False,))
]


def test_the_vectors_cover_both_patterns_that_we_speak() -> None:
    names = {vector["protocol_name"].encode() for vector in VECTORS}
    assert {XX_PSK3, NN_PSK0} <= names


@pytest.mark.parametrize(("vector", "psk_late"), CASES)
def test_public_vectors_come_out_byte_by_byte(vector: dict[str, Any], psk_late: bool) -> None:
    writer = handshake_of_vector(vector, "init", psk_late)
    reader = handshake_of_vector(vector, "resp", psk_late)
    messages = iter(vector["messages"])
    while not writer.finished:
        message = next(messages)
        written = writer.write_message(bytes.fromhex(message["payload"]))
        assert written.hex() == message["ciphertext"]
        assert reader.read_message_untrusted(written).hex() == message["payload"]
        writer, reader = reader, writer

    # The vectors go on taking turns.
    sealing, opening = writer.take_ciphers(), reader.take_ciphers()
    assert sealing[2] == opening[2]
    if "handshake_hash" in vector:
        assert sealing[2].hex() == vector["handshake_hash"]
    for message in messages:
        sealed = sealing[0].seal(b"", bytes.fromhex(message["payload"]))
        assert sealed.hex() == message["ciphertext"]
        assert opening[1].open_untrusted(b"", sealed).hex() == message["payload"]
        sealing, opening = opening, sealing


def _xx(role: Role, private: bytes, psk: bytes | None = None) -> NoiseHandshake:
    return NoiseHandshake(XX_PSK3, role, b"prologue", static_private=private, psk=psk)


def _ciphers() -> tuple[NoiseCipher, NoiseCipher]:
    """One that seals, and the one that opens."""
    initiator = NoiseHandshake(NN_PSK0, Role.INITIATOR, b"", psk=bytes(32))
    responder = NoiseHandshake(NN_PSK0, Role.RESPONDER, b"", psk=bytes(32))
    responder.read_message_untrusted(initiator.write_message(b""))
    initiator.read_message_untrusted(responder.write_message(b""))
    return initiator.take_ciphers()[0], responder.take_ciphers()[1]


def test_two_placeholders_for_the_psk_are_never_equal() -> None:
    one, other = (_xx(Role.INITIATOR, ALICE.key.private_bytes()) for _ in range(2))
    assert one._connection.noise_protocol.psks != other._connection.noise_protocol.psks


def test_the_peers_static_key_outlives_the_librarys_memory() -> None:
    psk = bytes(32)
    initiator = _xx(Role.INITIATOR, ALICE.key.private_bytes(), psk)
    responder = _xx(Role.RESPONDER, BOB.key.private_bytes(), psk)
    responder.read_message_untrusted(initiator.write_message(b""))
    initiator.read_message_untrusted(responder.write_message(b""))
    responder.read_message_untrusted(initiator.write_message(b""))

    assert responder.finished
    assert responder.remote_static == ALICE.key.public.raw
    assert initiator.remote_static == BOB.key.public.raw


def test_a_psk_cannot_be_replaced_after_it_was_mixed() -> None:
    initiator = NoiseHandshake(NN_PSK0, Role.INITIATOR, b"", psk=bytes(32))
    initiator.write_message(b"")

    with pytest.raises(ChannelStateError):
        initiator.replace_psk(b"\x01" * 32)


def test_ciphers_are_taken_once_and_not_before_the_end() -> None:
    initiator = NoiseHandshake(NN_PSK0, Role.INITIATOR, b"", psk=bytes(32))
    with pytest.raises(ChannelStateError):
        initiator.take_ciphers()
    responder = NoiseHandshake(NN_PSK0, Role.RESPONDER, b"", psk=bytes(32))
    responder.read_message_untrusted(initiator.write_message(b""))
    responder.write_message(b"")
    responder.take_ciphers()

    with pytest.raises(ChannelStateError):
        responder.take_ciphers()


def test_a_read_out_of_turn_is_a_channel_error() -> None:
    initiator = NoiseHandshake(NN_PSK0, Role.INITIATOR, b"", psk=bytes(32))

    with pytest.raises(ChannelError) as caught:
        initiator.read_message_untrusted(bytes(64))

    assert caught.value.code is Code.CHANNEL_HANDSHAKE_FAILED


def test_a_longer_message_than_noise_allows_is_refused_before_the_library_sees_it() -> None:
    responder = NoiseHandshake(NN_PSK0, Role.RESPONDER, b"", psk=bytes(32))
    with pytest.raises(ChannelError) as caught:
        responder.read_message_untrusted(bytes(65_536))
    assert "too long" in caught.value.detail


def test_a_memoryview_is_sealed_and_opened_without_a_copy_by_the_caller() -> None:
    seal, open_ = _ciphers()
    sealed = seal.seal(b"ad", memoryview(b"xxhelloxx")[2:7])
    assert open_.open_untrusted(b"ad", memoryview(b"--" + sealed)[2:]) == b"hello"


def test_rekeying_both_ends_keeps_them_together_and_the_nonce_counting() -> None:
    seal, open_ = _ciphers()
    open_.open_untrusted(b"", seal.seal(b"", b"before"))
    seal.rekey()
    open_.rekey()

    assert open_.open_untrusted(b"", seal.seal(b"", b"after")) == b"after"
    assert seal._state.n == open_._state.n == 2


def test_a_cipher_that_rekeyed_alone_opens_nothing() -> None:
    seal, open_ = _ciphers()
    seal.rekey()
    with pytest.raises(ChannelError) as caught:
        open_.open_untrusted(b"", seal.seal(b"", b"after"))
    assert caught.value.code is Code.CHANNEL_RECORD_INVALID


def test_the_last_nonce_is_never_used_for_a_record() -> None:
    seal, open_ = _ciphers()
    seal._state.set_nonce(2**64 - 1)
    open_._state.set_nonce(2**64 - 1)

    with pytest.raises(ChannelError) as caught:
        seal.seal(b"", b"")
    assert caught.value.code is Code.CHANNEL_LIMIT_EXCEEDED
    with pytest.raises(ChannelError):
        open_.open_untrusted(b"", bytes(16))
