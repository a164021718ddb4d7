"""Neighbours who are not to be believed, and those who cost too much."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from identity import Code, Identifier, Purpose, SigningKey
from link import Frame, FrameError, FrameKind
from link.trust_messages import (
    HELD_MAX,
    PART_BYTES_MAX,
    DocumentPart,
    Held,
    encode_held,
    encode_part,
    parts_of,
)
from node import spreading
from node.clocks import ManualClock
from node.metrics import Metrics
from node.neighbours import KINDS, RENEWALS_BURST, Neighbours
from node.spreading import ASSEMBLING_SECONDS_MAX, DOCUMENTS_BURST, GIVEN, HELD_BURST
from tests.node.members import DAY_S, START_UNIX_S, Authority
from tests.node.streets import FakeHop, Street

SOMEBODY = Identifier(b"s" * 32)
MANY = tuple(Identifier(number.to_bytes(32, "big")) for number in range(1, 4_000))
"""So many that a list of them takes several frames."""
LIVES = None
"""What is done about those whose hop goes on."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def street(tmp_path: Path, clock: ManualClock) -> Iterator[Street]:
    with contextlib.ExitStack() as stack:
        yield Street(tmp_path, clock, stack)


def _acme(street: Street) -> Identifier:
    return street.acme.identifier


def _parts(street: Street, number: int = 1, **changes: Any) -> list[DocumentPart]:
    """A sound list of several parts, under a number of its own."""
    encoded = street.acme.revocations(street.now, *MANY, number=street.now + number)
    parts = parts_of(_acme(street), street.now + number, encoded)
    return [_changed(part, **changes) for part in parts]


def _changed(part: DocumentPart, **changes: Any) -> DocumentPart:
    fields = {name: getattr(part, name) for name in ("authority", "number", "total_bytes")}
    return DocumentPart(**{**fields, "offset": part.offset, "data": part.data, **changes})


def _say(*parts: DocumentPart) -> list[Frame]:
    return [Frame(0, FrameKind.LIST, encode_part(part)) for part in parts]


def _held(*held: Held) -> Frame:
    return Frame(0, FrameKind.LISTS_HELD, encode_held(held))


def _renew(proof: bytes) -> Frame:
    return Frame(0, FrameKind.RENEW, proof)


def _proof_by_another_member(street: Street) -> list[Frame]:
    other = street.acme.member(street.now, name="node/b", ttl_s=DAY_S)
    shown = street.hops["a", "b"].peer.noise_key
    return [_renew(other.proof_for(shown, Purpose.HOP, unix_s=street.now))]


def _proof_of(street: Street, **changes: Any) -> list[Frame]:
    own = street.sides["b"].node.own
    changed = own.with_chain((street.acme.link(own, street.now, **changes),))
    return [_renew(changed.proof(Purpose.HOP))]


def _proof_by_another_authority(street: Street) -> list[Frame]:
    own = street.sides["b"].node.own
    other = Authority()
    return [
        _renew(own.with_chain((other.link(own, street.now, name="node/b"),)).proof(Purpose.HOP))
    ]


def _proof_without_chain(street: Street) -> list[Frame]:
    return [_renew(street.sides["b"].node.own.with_chain(()).proof(Purpose.HOP))]


def _outdated_proof(street: Street) -> list[Frame]:
    own = street.sides["b"].node.own
    before = _renew(own.proof(Purpose.HOP))
    newer = own.with_next_key(SigningKey.generate(), unix_s=street.now, overlap_s=60)
    return [_renew(newer.proof(Purpose.HOP)), before]


def _proof_of_a_revoked_one(street: Street) -> list[Frame]:
    node = street.sides["b"].node
    street.sides["a"].node.trust.offer_untrusted(
        street.acme.revocations(street.now, node.identifier)
    )
    return [_renew(node.own.proof(Purpose.HOP))]


def _list_of(street: Street, encoded: bytes, number: int | None = None) -> list[Frame]:
    return _say(*parts_of(_acme(street), number or street.now + 1, encoded))


def _old_list(street: Street) -> list[Frame]:
    trust = street.sides["a"].node.trust
    trust.offer_untrusted(street.acme.revocations(street.now, number=street.now + 5))
    old = street.acme.revocations(street.now, SOMEBODY, number=street.now + 4)
    return _list_of(street, old, street.now + 4)


def _old_list_under_a_new_number(street: Street) -> list[Frame]:
    trust = street.sides["a"].node.trust
    trust.offer_untrusted(street.acme.revocations(street.now, number=street.now + 5))
    old = street.acme.revocations(street.now, SOMEBODY, number=street.now + 4)
    return _list_of(street, old, street.now + 6)


def _list_signed_by_a_member(street: Street) -> list[Frame]:
    mallory = Authority()
    mallory.own = street.acme.member(street.now)
    return _list_of(street, mallory.revocations(street.now, SOMEBODY))


def _list_of_a_stranger(street: Street) -> list[Frame]:
    stranger = Authority()
    encoded = stranger.revocations(street.now, SOMEBODY)
    return _say(*parts_of(stranger.identifier, street.now, encoded))


def _list_of_another_domain(street: Street) -> list[Frame]:
    street.acme.trust_domain = "globex"
    encoded = street.acme.revocations(street.now, SOMEBODY)
    street.acme.trust_domain = "acme"
    return _list_of(street, encoded)


def _list_of_the_future(street: Street) -> list[Frame]:
    return _list_of(street, street.acme.revocations(street.now + 3_600, number=street.now))


def _list_far_ahead(street: Street) -> list[Frame]:
    number = street.now + 10 * DAY_S
    return _list_of(street, street.acme.revocations(street.now, number=number), number)


def _flipped_list(street: Street) -> list[Frame]:
    encoded = bytearray(street.acme.revocations(street.now, SOMEBODY))
    encoded[len(encoded) // 3] ^= 1
    return _list_of(street, bytes(encoded))


HOSTILE: dict[str, tuple[Callable[[Street], list[Frame]], Code | None, Code | None]] = {
    "a proof that is none": (
        lambda street: [_renew(b"garbage")],
        LIVES,
        Code.CHANNEL_PROOF_INVALID,
    ),
    "a proof by another member": (_proof_by_another_member, Code.HOP_BAD_FRAME, None),
    "a proof under another name": (
        lambda street: _proof_of(street, name="node/c"),
        Code.HOP_BAD_FRAME,
        None,
    ),
    "a proof in another role": (
        lambda street: _proof_of(street, name="node/b", role="gateway"),
        Code.HOP_BAD_FRAME,
        None,
    ),
    "a proof that ends in another authority": (
        _proof_by_another_authority,
        LIVES,
        Code.CHANNEL_WRONG_AUTHORITY,
    ),
    "a proof that names nobody": (_proof_without_chain, Code.HOP_BAD_FRAME, None),
    "a proof from before the last one": (_outdated_proof, LIVES, Code.CHANNEL_HISTORY_OUTDATED),
    "a proof of somebody who is revoked": (_proof_of_a_revoked_one, LIVES, Code.CHANNEL_REVOKED),
    "proofs without end": (
        lambda street: [_renew(b"garbage")] * (GIVEN * RENEWALS_BURST + 1),
        Code.HOP_LIMIT_EXCEEDED,
        Code.CHANNEL_PROOF_INVALID,
    ),
    "lists held that are no array": (
        lambda street: [Frame(0, FrameKind.LISTS_HELD, b"\x00")],
        Code.HOP_BAD_FRAME,
        None,
    ),
    "more lists held than there are": (
        lambda street: [_held(*(Held(one, 0) for one in MANY[: HELD_MAX + 1]))],
        Code.HOP_BAD_FRAME,
        None,
    ),
    "lists held of strangers": (
        lambda street: [_held(*(Held(one, 9) for one in MANY[:HELD_MAX]))],
        LIVES,
        None,
    ),
    "lists held without end": (
        lambda street: [_held()] * (GIVEN * HELD_BURST + 1),
        Code.HOP_LIMIT_EXCEEDED,
        None,
    ),
    "parts out of order": (
        lambda street: [_say(*_parts(street))[at] for at in (0, 2)],
        Code.HOP_BAD_FRAME,
        None,
    ),
    "a part twice": (
        lambda street: [_say(*_parts(street))[at] for at in (0, 1, 1)],
        Code.HOP_BAD_FRAME,
        None,
    ),
    "parts of two lists": (
        lambda street: [_say(*_parts(street))[0], _say(*_parts(street, 2))[1]],
        Code.HOP_BAD_FRAME,
        None,
    ),
    "parts that change their mind about how many they are": (
        lambda street: [_say(*_parts(street))[0], _say(*_parts(street, total_bytes=200_000))[1]],
        Code.HOP_BAD_FRAME,
        None,
    ),
    "the middle of a list that nobody began": (
        lambda street: _say(*_parts(street)[1:]),
        LIVES,
        None,
    ),
    "a list that is larger than it said": (
        lambda street: [
            Frame(0, FrameKind.LIST, _beyond_its_end(street)),
        ],
        Code.HOP_BAD_FRAME,
        None,
    ),
    "a list that is longer than any list": (
        lambda street: [
            Frame(0, FrameKind.LIST, encode_part(_parts(street, total_bytes=1 << 24)[0]))
        ],
        Code.HOP_BAD_FRAME,
        None,
    ),
    "a list that is cut short": (
        lambda street: _list_of(street, street.acme.revocations(street.now)[:-1]),
        LIVES,
        Code.CHANNEL_REVOCATIONS_INVALID,
    ),
    "an old list": (_old_list, LIVES, None),
    "an old list under a new number": (
        _old_list_under_a_new_number,
        LIVES,
        Code.CHANNEL_REVOCATIONS_OUTDATED,
    ),
    "a list signed by a member": (_list_signed_by_a_member, LIVES, Code.CHANNEL_WRONG_AUTHORITY),
    "a list of a stranger": (_list_of_a_stranger, LIVES, None),
    "a list of another domain": (_list_of_another_domain, LIVES, Code.CHANNEL_WRONG_AUTHORITY),
    "a list of the future": (_list_of_the_future, LIVES, Code.CHANNEL_NOT_YET_VALID),
    "a list far ahead of the clock": (
        _list_far_ahead,
        LIVES,
        Code.CHANNEL_REVOCATIONS_INVALID,
    ),
    "a list of which one bit is wrong": (
        _flipped_list,
        LIVES,
        Code.CHANNEL_REVOCATIONS_INVALID,
    ),
    "lists without end": (
        lambda street: [
            frame
            for number in range(GIVEN * DOCUMENTS_BURST + 1)
            for frame in _list_of(street, b"garbage", street.now + number)
        ],
        Code.HOP_LIMIT_EXCEEDED,
        Code.CHANNEL_REVOCATIONS_INVALID,
    ),
}


def _beyond_its_end(street: Street) -> bytes:
    part = _parts(street)[0]
    return encode_part(_changed(part, total_bytes=len(part.data) - 1))


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_neighbour_changes_nothing(case: str, street: Street) -> None:
    make, closed_by, refused_for = HOSTILE[case]
    side = street.add("a")
    street.add("b")
    street.connect("a", "b")
    street.carry()
    hop = street.hops["a", "b"]
    before = hop.peer
    frames = make(street)
    number = side.number(street.acme)
    error: Code | None = None
    try:
        for frame in frames:
            street.hear("a", "b", frame)
    except FrameError as exc:
        error = exc.code

    assert error is closed_by
    assert set(side.neighbours.refused) == (set() if refused_for is None else {refused_for})
    assert side.number(street.acme) == number
    assert (hop.peer.identifier, hop.peer.name) == (before.identifier, before.name)
    assert hop.peer.identity.role_of_node == before.identity.role_of_node
    side.neighbours.hop_closed(hop)  # type: ignore[arg-type]
    assert side.assembling_bytes == 0


def test_nothing_is_remembered_of_authorities_whom_nobody_trusts(street: Street) -> None:
    side = street.add("a")
    street.add("b")
    street.connect("a", "b")
    street.carry()
    for number in range(3 * DOCUMENTS_BURST):
        street.tick(2.0)
        stranger = Authority()
        data = stranger.revocations(START_UNIX_S)
        for part in parts_of(stranger.identifier, number + 1, data):
            street.hear("a", "b", *_say(part))

    [neighbour] = side.neighbours.lists._open.values()
    assert neighbour.numbers.keys() <= {_acme(street)}


def test_half_a_list_is_not_kept_for_ever(street: Street) -> None:
    side = street.add("a")
    street.add("b")
    street.connect("a", "b")
    street.carry()
    street.hear("a", "b", _say(*_parts(street))[0])
    before = side.assembling_bytes
    street.tick(ASSEMBLING_SECONDS_MAX - 1)
    kept = side.assembling_bytes
    street.tick(1)

    assert before == kept == PART_BYTES_MAX
    assert side.assembling_bytes == 0


def test_nobody_keeps_lists_from_others_with_halves_of_some(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "ASSEMBLING_BYTES_MAX", 4 * PART_BYTES_MAX)
    side = street.add("a")
    hostile = ["h1", "h2", "h3", "h4"]
    for name in hostile:
        street.add(name)
        street.connect("a", name)
    honest = street.add("b")
    street.connect("a", "b")
    street.carry()
    for name in hostile:
        street.hear("a", name, _say(*_parts(street, 5))[0])
    full = side.assembling_bytes
    honest.node.trust.offer_untrusted(street.acme.revocations(street.now, *MANY))
    street.carry()

    assert full == 4 * PART_BYTES_MAX
    assert side.number(street.acme) == street.now
    assert side.neighbours.refused[Code.HOP_LIMIT_EXCEEDED] == 3


def test_a_list_in_the_smallest_parts_takes_no_more_memory_than_it_has_bytes(
    street: Street,
) -> None:
    side = street.add("a")
    street.add("b")
    street.connect("a", "b")
    street.carry()
    for offset in range(0, 2_000, 2):
        part = DocumentPart(_acme(street), street.now + 1, 1 << 20, offset, b"xy")
        street.hear("a", "b", *_say(part))

    [neighbour] = side.neighbours.lists._open.values()
    assert side.assembling_bytes == 2_000
    assert neighbour.parts.__sizeof__() < 2 * 2_000


def test_frames_of_a_hop_that_is_no_neighbours_are_not_read(street: Street) -> None:
    """One that enrols, for example."""
    side = street.add("a")
    street.add("b")
    street.connect("a", "b")
    stranger: Any = FakeHop(99, street.hops["a", "b"].peer)
    for kind in KINDS:
        side.neighbours.receive_untrusted(stranger, Frame(0, kind, b"garbage"))

    assert not side.neighbours.refused
    assert stranger.sent == []


def test_lists_that_did_not_count_show_as_a_metric(street: Street) -> None:
    side = street.add("a")
    street.add("b")
    street.connect("a", "b")
    metrics = Metrics("test", "1")
    side.neighbours = Neighbours(side.node, side.mandatory, street.clock, metrics)
    side.neighbours.hop_opened(street.hops["a", "b"])  # type: ignore[arg-type]
    street.hear("a", "b", _renew(b"garbage"))

    name = "neighbours_not_believed_total"
    assert metrics.value(name, code="channel.proof_invalid") == 1
