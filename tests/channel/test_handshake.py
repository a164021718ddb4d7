"""The handshake: who proves what to whom, and all the ways in which it must fail."""

from collections.abc import Callable
from typing import Any

import pytest

from channel import ChannelError, ChannelStateError, Handshake, HandshakeState, Prologue, Role
from channel._noise import NoiseHandshake
from channel.limits import (
    HANDSHAKE_1_BYTES,
    HANDSHAKE_2_BYTES_MAX,
    HANDSHAKE_2_BYTES_MIN,
    HANDSHAKE_3_BYTES_MAX,
    HANDSHAKE_3_BYTES_MIN,
    KEM_CIPHERTEXT_BYTES,
)
from identity import PROOF_BYTES_MAX, Code, NoisePublicKey
from tests.channel.helpers import (
    ALICE,
    BOB,
    MALLORY,
    FakePeer,
    Party,
    channel_prologue,
    fresh_initiator,
    fresh_responder,
    handshake_pair,
    new_handshake,
    run_handshake,
)


def test_each_side_learns_who_the_other_is_and_both_agree_on_the_session() -> None:
    initiator, responder = handshake_pair()

    run_handshake(initiator, responder)

    assert initiator.peer.identifier == BOB.identifier
    assert responder.peer.identifier == ALICE.identifier
    assert initiator.handshake_hash == responder.handshake_hash
    assert len(initiator.handshake_hash) == 32


def test_the_sessions_of_both_sides_open_what_the_other_seals() -> None:
    initiator, responder = handshake_pair()
    run_handshake(initiator, responder)

    ours, theirs = initiator.into_session(), responder.into_session()

    assert theirs.receive.open_untrusted(b"ad", ours.send.seal(b"ad", b"there")) == b"there"
    assert ours.receive.open_untrusted(b"ad", theirs.send.seal(b"ad", b"back")) == b"back"


def test_a_session_is_handed_over_once() -> None:
    initiator, responder = handshake_pair()
    run_handshake(initiator, responder)
    initiator.into_session()

    with pytest.raises(ChannelStateError):
        initiator.into_session()


def test_verify_is_given_the_noise_key_that_the_session_proved() -> None:
    seen: list[bytes] = []

    def verify(proof: bytes, noise_key: bytes) -> Any:
        seen.append(noise_key)
        return ALICE.verify(proof, noise_key)

    initiator = new_handshake(Role.INITIATOR, ALICE, verify=verify)
    responder = new_handshake(Role.RESPONDER, BOB)

    run_handshake(initiator, responder)

    assert seen == [BOB.key.public.raw]


def test_messages_have_the_sizes_of_the_protocol() -> None:
    initiator, responder = handshake_pair()

    first = initiator.write_1()
    responder.read_1_untrusted(first)
    second = responder.write_2()
    initiator.read_2_untrusted(second)
    third = initiator.write_3()

    assert len(first) == HANDSHAKE_1_BYTES == 1232
    assert len(second) == HANDSHAKE_2_BYTES_MIN + len(BOB.proof)
    assert len(third) == HANDSHAKE_3_BYTES_MIN + len(ALICE.proof)


def test_the_largest_proof_passes_on_both_sides() -> None:
    def verify(proof: bytes, noise_key: bytes) -> Any:
        assert len(proof) == PROOF_BYTES_MAX
        return (
            BOB.verify(ALICE.proof, noise_key)
            if noise_key == ALICE.key.public.raw
            else (ALICE.verify(BOB.proof, noise_key))
        )

    pair = handshake_pair(own_proof=bytes(PROOF_BYTES_MAX), verify=verify)
    run_handshake(*pair)

    assert [side.state for side in pair] == [HandshakeState.VERIFIED] * 2


def test_a_proof_beyond_the_limit_is_our_own_mistake() -> None:
    with pytest.raises(ChannelStateError):
        new_handshake(Role.INITIATOR, ALICE, own_proof=bytes(PROOF_BYTES_MAX + 1))


# Both sides draw a random placeholder for the psk; each row forgets to replace it somewhere.
FORGETFUL = {
    "the initiator forgets to replace the psk": (True, False),
    "the responder forgets to replace the psk": (False, True),
    "both sides forget to replace the psk": (True, True),
}


@pytest.mark.parametrize(
    ("initiator_forgets", "responder_forgets"), FORGETFUL.values(), ids=FORGETFUL
)
def test_a_forgotten_psk_replacement_fails_at_message_3(
    initiator_forgets: bool, responder_forgets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    initiator, responder = handshake_pair()
    for side, forgets in ((initiator, initiator_forgets), (responder, responder_forgets)):
        if forgets:
            monkeypatch.setattr(side._noise, "replace_psk", lambda psk: None)
    responder.read_1_untrusted(initiator.write_1())
    initiator.read_2_untrusted(responder.write_2())
    third = initiator.write_3()

    with pytest.raises(ChannelError) as caught:
        responder.read_3_untrusted(third)

    assert caught.value.code is Code.CHANNEL_HANDSHAKE_FAILED
    assert responder.state is HandshakeState.FAILED


def test_the_psk_of_the_session_is_the_shared_secret_of_the_kem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replaced: list[bytes] = []
    replace = NoiseHandshake.replace_psk

    def spy(self: NoiseHandshake, psk: bytes) -> None:
        replaced.append(psk)
        replace(self, psk)

    monkeypatch.setattr(NoiseHandshake, "replace_psk", spy)
    run_handshake(*handshake_pair())

    assert replaced[0] == replaced[1]
    assert len(replaced[0]) == 32


BASE = channel_prologue(versions=(1, 2), extra=(b"one", b"two"))
PROLOGUES_THAT_DIFFER = {
    "in the purpose": channel_prologue(purpose="hop", versions=(1, 2), extra=(b"one", b"two")),
    "in the offered versions": channel_prologue(extra=(b"one", b"two")),
    "in the order of the versions": channel_prologue(versions=(2, 1), extra=(b"one", b"two")),
    "in the chosen version": channel_prologue(versions=(1, 2), version=2, extra=(b"one", b"two")),
    "in the target": channel_prologue("", versions=(1, 2), extra=(b"one", b"two")),
    "in the nonce": channel_prologue(nonce=bytes(16), versions=(1, 2), extra=(b"one", b"two")),
    "in what the hop adds": channel_prologue(versions=(1, 2), extra=(b"one", b"TWO")),
    "in how much the hop adds": channel_prologue(versions=(1, 2), extra=(b"one",)),
    "in where one addition ends": channel_prologue(versions=(1, 2), extra=(b"onet", b"wo")),
}


@pytest.mark.parametrize("other", PROLOGUES_THAT_DIFFER.values(), ids=PROLOGUES_THAT_DIFFER)
def test_prologues_that_differ_never_meet(other: Prologue) -> None:
    initiator = new_handshake(Role.INITIATOR, ALICE, BASE)
    responder = new_handshake(Role.RESPONDER, BOB, other)

    with pytest.raises(ChannelError) as caught:
        responder.read_1_untrusted(initiator.write_1())

    assert caught.value.code is Code.CHANNEL_HANDSHAKE_FAILED
    assert responder.state is HandshakeState.FAILED


def test_the_name_of_the_kem_is_part_of_the_prologue() -> None:
    assert b"ML-KEM-768" in channel_prologue().encode()


PROLOGUES_WITHOUT_AN_ENCODING: dict[str, dict[str, Any]] = {
    "no such purpose": {"purpose": "stream"},
    "a short nonce": {"nonce": bytes(15)},
    "too many versions": {"versions": tuple(range(1, 10))},
    "a long target": {"target": "a" * 256},
    "too many additions": {"extra": (b"",) * 9},
    "a long addition": {"extra": (bytes(257),)},
}


@pytest.mark.parametrize(
    "changes", PROLOGUES_WITHOUT_AN_ENCODING.values(), ids=PROLOGUES_WITHOUT_AN_ENCODING
)
def test_a_prologue_out_of_bounds_is_refused(changes: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"purpose": "channel", "target": "", "nonce": bytes(16)} | changes
    with pytest.raises(ValueError):  # noqa: PT011 — one type, many sentences.
        Prologue(**fields)


@pytest.mark.parametrize("versions", [(), (2,), (0, 255)])
def test_a_version_that_was_not_offered_is_not_spoken(versions: tuple[int, ...]) -> None:
    with pytest.raises(ChannelError) as caught:
        channel_prologue(versions=versions)
    assert caught.value.code is Code.CHANNEL_VERSION_UNSUPPORTED


class Recording:
    """One honest handshake's messages, and another's between the same parties."""

    def __init__(self) -> None:
        self.initiator, self.responder = handshake_pair()
        self.first = self.initiator.write_1()
        self.responder.read_1_untrusted(self.first)
        self.second = self.responder.write_2()
        self.initiator.read_2_untrusted(self.second)
        self.third = self.initiator.write_3()


def _verified_responder(recording: Recording) -> Handshake:
    recording.responder.read_3_untrusted(recording.third)
    return recording.responder


MISPLACED: dict[str, Callable[[Recording], Any]] = {
    "message 2 of another session is replayed": lambda r: fresh_initiator().read_2_untrusted(
        r.second
    ),
    "message 3 of another session is replayed": lambda r: fresh_responder().read_3_untrusted(
        r.third
    ),
    "message 1 is duplicated": lambda r: r.responder.read_1_untrusted(r.first),
    "message 2 is duplicated": lambda r: r.initiator.read_2_untrusted(r.second),
    "message 3 is duplicated": lambda r: _verified_responder(r).read_3_untrusted(r.third),
    "message 3 comes before message 1": lambda r: new_handshake(
        Role.RESPONDER, BOB
    ).read_3_untrusted(r.third),
    "message 2 comes before message 1 was sent": lambda r: new_handshake(
        Role.INITIATOR, ALICE
    ).read_2_untrusted(r.second),
    "message 2 is sent to the responder": lambda r: r.responder.read_2_untrusted(r.second),
    "message 1 is reflected as message 2": lambda r: fresh_initiator().read_2_untrusted(r.first),
    "message 1 is sent as message 3": lambda r: fresh_responder().read_3_untrusted(r.first),
    "message 2 is sent as message 3": lambda r: r.responder.read_3_untrusted(r.second),
    "message 3 is sent as message 2": lambda r: fresh_initiator().read_2_untrusted(r.third),
}


@pytest.mark.parametrize("misplace", MISPLACED.values(), ids=MISPLACED)
def test_a_misplaced_message_fails_the_handshake(misplace: Callable[[Recording], Any]) -> None:
    recording = Recording()

    with pytest.raises(ChannelError) as caught:
        misplace(recording)

    assert caught.value.code is Code.CHANNEL_HANDSHAKE_FAILED


def test_message_1_replayed_to_a_new_responder_proves_nobody() -> None:
    recording = Recording()
    responder = new_handshake(Role.RESPONDER, BOB)
    responder.read_1_untrusted(recording.first)
    responder.write_2()

    with pytest.raises(ChannelError):
        responder.read_3_untrusted(recording.third)

    with pytest.raises(ChannelStateError):
        _ = responder.peer


def test_after_a_failed_read_the_true_message_comes_too_late() -> None:
    recording = Recording()
    with pytest.raises(ChannelError):
        recording.responder.read_3_untrusted(bytes(200))

    with pytest.raises(ChannelError):
        recording.responder.read_3_untrusted(recording.third)

    assert recording.responder.state is HandshakeState.FAILED


def test_a_handshake_that_failed_late_forgets_whom_it_had_verified() -> None:
    recording = Recording()
    responder = _verified_responder(recording)
    with pytest.raises(ChannelError):
        responder.read_3_untrusted(recording.third)

    with pytest.raises(ChannelStateError):
        _ = responder.peer
    with pytest.raises(ChannelStateError):
        _ = responder.handshake_hash
    with pytest.raises(ChannelStateError):
        responder.into_session()


def test_an_encapsulation_key_that_is_none_is_a_channel_error() -> None:
    initiator, responder = handshake_pair()
    assert initiator._noise is not None
    responder.read_1_untrusted(initiator._noise.write_message(b"\xff" * 1184))

    with pytest.raises(ChannelError) as caught:
        responder.write_2()

    assert caught.value.code is Code.CHANNEL_HANDSHAKE_FAILED
    assert responder.state is HandshakeState.FAILED


def _flip(message: bytes, index: int) -> bytes:
    changed = bytearray(message)
    changed[index] ^= 0x01
    return bytes(changed)


POSITIONS_1 = {"the ephemeral": 0, "the encapsulation key": 40, "the tag": -1}
POSITIONS_2 = {
    "the ephemeral": 0,
    "the static key": 40,
    "the KEM ciphertext": 100,
    "the proof": 80 + KEM_CIPHERTEXT_BYTES + 5,
    "the tag": -1,
}
POSITIONS_3 = {"the static key": 3, "the proof": 60, "the tag": -1}


@pytest.mark.parametrize("index", POSITIONS_1.values(), ids=POSITIONS_1)
def test_message_1_with_one_bit_changed_is_refused(index: int) -> None:
    initiator, responder = handshake_pair()
    with pytest.raises(ChannelError):
        responder.read_1_untrusted(_flip(initiator.write_1(), index))


@pytest.mark.parametrize("index", POSITIONS_2.values(), ids=POSITIONS_2)
def test_message_2_with_one_bit_changed_is_refused(index: int) -> None:
    initiator, responder = handshake_pair()
    responder.read_1_untrusted(initiator.write_1())
    with pytest.raises(ChannelError):
        initiator.read_2_untrusted(_flip(responder.write_2(), index))


@pytest.mark.parametrize("index", POSITIONS_3.values(), ids=POSITIONS_3)
def test_message_3_with_one_bit_changed_is_refused(index: int) -> None:
    recording = Recording()
    with pytest.raises(ChannelError):
        recording.responder.read_3_untrusted(_flip(recording.third, index))


WRONG_LENGTHS = {
    "nothing": 0,
    "one byte": 1,
    "message 1 less one byte": HANDSHAKE_1_BYTES - 1,
    "message 1 and one byte": HANDSHAKE_1_BYTES + 1,
    "message 2 beyond its limit": HANDSHAKE_2_BYTES_MAX + 1,
    "message 3 beyond its limit": HANDSHAKE_3_BYTES_MAX + 1,
    "more than the library takes": 70_000,
}


@pytest.mark.parametrize("length", WRONG_LENGTHS.values(), ids=WRONG_LENGTHS)
def test_a_message_of_a_wrong_length_is_refused_unread(length: int) -> None:
    message = bytes(length)
    with pytest.raises(ChannelError):
        new_handshake(Role.RESPONDER, BOB).read_1_untrusted(message)
    with pytest.raises(ChannelError):
        fresh_initiator().read_2_untrusted(message)
    with pytest.raises(ChannelError):
        fresh_responder().read_3_untrusted(message)


def test_a_low_order_ephemeral_is_a_channel_error() -> None:
    # X25519 with the point 0 yields no secret; the library finds out only when it writes.
    initiator, responder = handshake_pair()
    noise = initiator._noise
    assert noise is not None
    pair = noise._connection.noise_protocol.dh_fn.generate_keypair()
    pair.public_bytes = bytes(32)
    noise._state.e = pair
    responder.read_1_untrusted(initiator.write_1())

    with pytest.raises(ChannelError) as caught:
        responder.write_2()

    assert caught.value.code is Code.CHANNEL_HANDSHAKE_FAILED
    assert responder.state is HandshakeState.FAILED


def test_a_peer_with_our_own_noise_key_is_ourselves_whatever_its_proof_says() -> None:
    def verify(proof: bytes, noise_key: bytes) -> Any:
        return FakePeer(BOB.identifier, NoisePublicKey(noise_key), BOB.uri)

    initiator = new_handshake(Role.INITIATOR, ALICE, verify=verify)
    responder = new_handshake(Role.RESPONDER, ALICE)
    responder.read_1_untrusted(initiator.write_1())

    with pytest.raises(ChannelError) as caught:
        initiator.read_2_untrusted(responder.write_2())

    assert caught.value.code is Code.CHANNEL_SELF_CONNECTION


def test_a_self_connection_that_verify_finds_is_surfaced_with_its_code() -> None:
    # The same identity under a second Noise key: only the proof can tell.
    other_key = Party("bob")

    def verify(proof: bytes, noise_key: bytes) -> Any:
        return BOB.verify(proof, BOB.key.public.raw)

    initiator = new_handshake(Role.INITIATOR, other_key, channel_prologue(BOB.uri), verify=verify)
    responder = new_handshake(Role.RESPONDER, BOB, channel_prologue(BOB.uri))
    responder.read_1_untrusted(initiator.write_1())

    with pytest.raises(ChannelError) as caught:
        initiator.read_2_untrusted(responder.write_2())

    assert caught.value.code is Code.CHANNEL_SELF_CONNECTION


def test_a_verdict_about_another_noise_key_is_not_believed() -> None:
    def verify(proof: bytes, noise_key: bytes) -> Any:
        return FakePeer(BOB.identifier, MALLORY.key.public, BOB.uri)

    initiator = new_handshake(Role.INITIATOR, ALICE, verify=verify)
    responder = new_handshake(Role.RESPONDER, BOB)
    responder.read_1_untrusted(initiator.write_1())

    with pytest.raises(ChannelError) as caught:
        initiator.read_2_untrusted(responder.write_2())

    assert caught.value.code is Code.CHANNEL_ATTESTATION_INVALID


def test_a_proof_of_somebody_else_is_refused() -> None:
    # Mallory shows Bob's proof, but the session proved Mallory's Noise key.
    initiator = new_handshake(Role.INITIATOR, ALICE)
    responder = new_handshake(Role.RESPONDER, MALLORY, own_proof=BOB.proof)
    responder.read_1_untrusted(initiator.write_1())

    with pytest.raises(ChannelError) as caught:
        initiator.read_2_untrusted(responder.write_2())

    assert caught.value.code is Code.CHANNEL_ATTESTATION_INVALID
    assert initiator.state is HandshakeState.FAILED


WRONG_TARGETS = {
    "a channel that asked for a name": ("channel", str(BOB.uri), Code.CHANNEL_WRONG_NAME),
    "a channel that asked for an identifier": (
        "channel",
        str(BOB.identifier),
        Code.CHANNEL_WRONG_NAME,
    ),
    "a hop that asked for an identifier": ("hop", str(BOB.identifier), Code.HOP_WRONG_IDENTIFIER),
}


@pytest.mark.parametrize(("purpose", "target", "code"), WRONG_TARGETS.values(), ids=WRONG_TARGETS)
def test_whoever_proves_another_name_than_the_one_asked_for_is_refused(
    purpose: str, target: str, code: Code
) -> None:
    prologue = channel_prologue(target, purpose=purpose)
    initiator = new_handshake(Role.INITIATOR, ALICE, prologue)
    responder = new_handshake(Role.RESPONDER, MALLORY, prologue)
    responder.read_1_untrusted(initiator.write_1())

    with pytest.raises(ChannelError) as caught:
        initiator.read_2_untrusted(responder.write_2())

    assert caught.value.code is code


def test_a_peer_without_a_name_is_not_the_name_asked_for() -> None:
    def verify(proof: bytes, noise_key: bytes) -> Any:
        return FakePeer(BOB.identifier, BOB.key.public, None)

    initiator = new_handshake(Role.INITIATOR, ALICE, channel_prologue("None"), verify=verify)
    responder = new_handshake(Role.RESPONDER, BOB, channel_prologue("None"))
    responder.read_1_untrusted(initiator.write_1())

    with pytest.raises(ChannelError) as caught:
        initiator.read_2_untrusted(responder.write_2())

    assert caught.value.code is Code.CHANNEL_WRONG_NAME
