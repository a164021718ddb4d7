"""One whole session and one stream, byte by byte: what another implementation must produce.

The file holds every secret that was drawn, and what came out. A change here is a change of the
protocol.
"""

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from channel import Handshake, Prologue, Role, StreamSecret, StreamSession
from channel._noise import NoiseHandshake
from channel.kem import MlKem768PrivateKey
from channel.limits import REKEY_LIMITS
from channel.moving import Mover, session_id_of
from channel.records import RecordReader, RecordWriter
from channel.wire import RecordType, encode_addresses, encode_position
from conformance import vector_path
from identity import Code, NoiseKey, NoisePublicKey
from tests.channel.helpers import FakePeer, identifier_of

VECTOR_PATH = vector_path("session-1")
VECTOR: dict[str, Any] = json.loads(VECTOR_PATH.read_text())


class KnownKem:
    """ML-KEM-768 with the randomness of the vector."""

    def __init__(self, vector: dict[str, Any]) -> None:
        self._vector = vector

    def generate(self) -> MlKem768PrivateKey:
        private = MlKem768PrivateKey()
        private._key = MLKEM768PrivateKey.from_seed_bytes(
            bytes.fromhex(self._vector["initiator"]["kem_seed"])
        )
        return private

    def encapsulate_untrusted(self, public_bytes: bytes) -> tuple[bytes, bytes]:
        kem = self._vector["responder"]
        return bytes.fromhex(kem["kem_secret"]), bytes.fromhex(kem["kem_ciphertext"])


def set_ephemeral(noise: NoiseHandshake | None, private: str) -> None:
    assert noise is not None
    keypair_class = noise._connection.noise_protocol.keypair_class
    noise._state.e = keypair_class.from_private_bytes(bytes.fromhex(private))


def side_of(vector: dict[str, Any], role: Role) -> Handshake:
    own = vector["initiator" if role is Role.INITIATOR else "responder"]
    prologue = vector["prologue"]

    def verify(proof: bytes, noise_key: bytes) -> Any:
        other = vector["responder" if role is Role.INITIATOR else "initiator"]
        assert proof.hex() == other["proof"]
        return FakePeer(identifier_of(noise_key), NoisePublicKey(noise_key), None)

    handshake = Handshake(
        role,
        Prologue(prologue["purpose"], prologue["target"], bytes.fromhex(prologue["nonce"])),
        NoiseKey.from_private_bytes(bytes.fromhex(own["static"])),
        bytes.fromhex(own["proof"]),
        verify,
        kem=KnownKem(vector),
    )
    set_ephemeral(handshake._noise, own["ephemeral"])
    return handshake


def run_session(vector: dict[str, Any]) -> dict[str, str]:
    initiator, responder = side_of(vector, Role.INITIATOR), side_of(vector, Role.RESPONDER)
    out = {"message_1": (first := initiator.write_1()).hex()}
    responder.read_1_untrusted(first)
    out["message_2"] = (second := responder.write_2()).hex()
    initiator.read_2_untrusted(second)
    out["message_3"] = (third := initiator.write_3()).hex()
    responder.read_3_untrusted(third)
    out["handshake_hash"] = responder.handshake_hash.hex()

    ours, theirs = initiator.into_session(), responder.into_session()
    writer = RecordWriter(ours.send, REKEY_LIMITS, 0.0)
    answers = RecordWriter(theirs.send, REKEY_LIMITS, 0.0)
    reader = RecordReader(theirs.receive, REKEY_LIMITS)
    records = {
        "data": writer.seal(RecordType.DATA, b"tell", 0.0)[0],
        "rekey": writer.rekey(0.0),
        "data_after_rekey": writer.seal(RecordType.DATA, b"", 0.0)[0],
    }
    for record in records.values():
        reader.open_untrusted(record)
    key = bytes.fromhex(vector["move"]["key"])
    records["accept"] = answers.seal(RecordType.ACCEPT, key, 0.0)[0]
    records["ack"] = answers.seal(RecordType.ACK, encode_position(3), 0.0)[0]
    addresses = encode_addresses((("192.0.2.7", 7_440), ("2001:db8::7", 7_440)))
    records["addresses"] = answers.seal(RecordType.ADDRESSES, addresses, 0.0)[0]
    records["rest"] = answers.seal(RecordType.REST, b"", 0.0)[0]
    records["wake"] = writer.seal(RecordType.WAKE, b"", 0.0)[0]
    records["leaving"] = writer.seal(RecordType.LEAVING, b"", 0.0)[0]
    return out | {name: record.hex() for name, record in records.items()}


def run_stream(vector: dict[str, Any]) -> dict[str, str]:
    known = vector["stream"]
    binding: dict[str, Any] = {
        "channel_hash": bytes.fromhex(vector["expected"]["handshake_hash"]),
        "stream": known["stream"],
        "service": known["service"],
        "opened_by_initiator": known["opened_by_initiator"],
    }
    secret = bytes.fromhex(known["secret"])
    opener = StreamSession(Role.INITIATOR, StreamSecret(secret), **binding)
    other = StreamSession(Role.RESPONDER, StreamSecret(secret), **binding)
    set_ephemeral(opener._noise, known["opener_ephemeral"])
    set_ephemeral(other._noise, known["other_ephemeral"])
    out = {"first_chunk": (first := opener.write(b"hello")).hex()}
    other.feed_untrusted(first)
    out["answer_chunk"] = (answer := other.take_output()).hex()
    opener.feed_untrusted(answer)
    out["data_chunk"] = opener.write(b"world").hex()
    out["fin_chunk"] = opener.finish().hex()
    out["reset_chunk"] = other.reset(Code.STREAM_RESET).hex()
    return out


def run_move(vector: dict[str, Any]) -> dict[str, str]:
    """The responder asks to go on, at 4 records, on a link of this nonce; the initiator answers."""
    known = vector["move"]
    key, nonce = bytes.fromhex(known["key"]), bytes.fromhex(known["nonce"])
    session_id = session_id_of(bytes.fromhex(vector["expected"]["handshake_hash"]))
    asker = Mover(key, Role.RESPONDER, session_id)
    answerer = Mover(key, Role.INITIATOR, session_id)
    move = asker.ask(nonce, known["position"])
    assert answerer.read_ask_untrusted(move, nonce) == known["position"]
    moved = answerer.answer(nonce, known["answer_position"])
    assert asker.read_answer_untrusted(moved) == known["answer_position"]
    return {"session_id": session_id.hex(), "move": move.hex(), "moved": moved.hex()}


def test_a_move_with_a_known_key_has_known_bytes() -> None:
    assert run_move(VECTOR) == VECTOR["move"]["expected"]


def test_a_session_with_known_secrets_has_known_bytes() -> None:
    assert run_session(VECTOR) == VECTOR["expected"]


def test_a_stream_with_known_secrets_has_known_bytes() -> None:
    assert run_stream(VECTOR) == VECTOR["stream"]["expected"]
