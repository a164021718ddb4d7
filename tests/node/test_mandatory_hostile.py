"""Members of the domain who bring mandatory policies that do not count."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from identity import (
    Code,
    PolicyFile,
    SignedPolicy,
    decode_signed_policy_untrusted,
    issue_policy,
    issue_policy_under,
)
from link import Frame, FrameError, FrameKind
from link.trust_messages import Held, encode_held, encode_part, parts_of
from node.clocks import ManualClock
from node.spreading import DOCUMENTS_BURST, GIVEN, HELD_BURST
from tests.node.members import DAY_S, Authority
from tests.node.streets import Street

NEW = 1 << 62


def rank_of(number: int) -> int:
    """Of a policy that an authority has signed itself."""
    return number << 25


LIVES = None
"""What is done about those whose hop goes on."""


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    with contextlib.ExitStack() as stack:
        street = Street(tmp_path, ManualClock(), stack)
        for name in ("a", "b"):
            street.add(name)
        street.connect("a", "b")
        street.carry()
        yield street


def _say(street: Street, encoded: bytes, number: int | None = None) -> list[Frame]:
    """As somebody sends a policy, under the rank that he says it has."""
    rank = NEW if number is None else rank_of(number)
    parts = parts_of(street.acme.identifier, rank, encoded)
    return [Frame(0, FrameKind.POLICY, encode_part(part)) for part in parts]


def _issue(
    street: Street,
    by: Authority | None = None,
    *,
    domain: str = "acme",
    ahead: int = 1,
    issued_ahead: int = 0,
) -> bytes:
    return issue_policy(
        (by or street.acme).own,
        domain,
        number=street.now + ahead,
        issued_unix_s=street.now + issued_ahead,
        files=[PolicyFile("base.yaml", "rules: []\n")],
        signers=[street.sides["b"].node.identifier],
    )


def _hold(street: Street, encoded: bytes) -> SignedPolicy:
    street.sides["a"].mandatory.offer_untrusted(encoded)
    return decode_signed_policy_untrusted(encoded)


def _by_a_member(street: Street) -> list[Frame]:
    mallory = Authority()
    mallory.own = street.acme.member(street.now)
    return _say(street, _issue(street, mallory))


def _flipped(street: Street, where: bytes) -> list[Frame]:
    encoded = bytearray(_issue(street))
    encoded[encoded.index(where) + len(where) - 1] ^= 1
    return _say(street, bytes(encoded))


def _old(street: Street) -> list[Frame]:
    _hold(street, _issue(street, ahead=5))
    return _say(street, _issue(street, ahead=4), street.now + 4)


def _old_under_a_new_number(street: Street) -> list[Frame]:
    _hold(street, _issue(street, ahead=5))
    return _say(street, _issue(street, ahead=4), street.now + 6)


def _by_a_signer_who_was_left_out(street: Street) -> list[Frame]:
    before = _hold(street, _issue(street))
    without = issue_policy(
        street.acme.own,
        "acme",
        number=street.now + 2,
        issued_unix_s=street.now,
        files=[],
        signers=[],
    )
    _hold(street, without)
    theirs = issue_policy_under(
        street.sides["b"].node.own,
        before,
        number=street.now + 3,
        issued_unix_s=street.now,
        files=[PolicyFile("mine.yaml", "rules: []\n")],
    )
    return _say(street, theirs, street.now + 3)


def _by_a_revoked_signer(street: Street) -> list[Frame]:
    before = _hold(street, _issue(street))
    signer = street.sides["b"].node
    street.sides["a"].node.trust.offer_untrusted(
        street.acme.revocations(street.now, signer.identifier)
    )
    theirs = issue_policy_under(
        signer.own,
        before,
        number=street.now + 2,
        issued_unix_s=street.now,
        files=[],
    )
    return _say(street, theirs, street.now + 2)


def _held(number: int, authority: Authority) -> Frame:
    return Frame(0, FrameKind.POLICY_HELD, encode_held((Held(authority.identifier, number),)))


HOSTILE: dict[str, tuple[Callable[[Street], list[Frame]], Code | None, Code | None]] = {
    "what is no policy": (
        lambda street: _say(street, b"garbage"),
        LIVES,
        Code.POLICY_BUNDLE_INVALID,
    ),
    "a part that is none": (
        lambda street: [Frame(0, FrameKind.POLICY, b"\x00")],
        Code.HOP_BAD_FRAME,
        None,
    ),
    "a part of a link's": (
        lambda street: [_say(street, _issue(street))[0]._replace(link=7)],
        Code.HOP_BAD_FRAME,
        None,
    ),
    "one signed by a member": (_by_a_member, LIVES, Code.CHANNEL_WRONG_AUTHORITY),
    "one of another domain": (
        lambda street: _say(street, _issue(street, domain="globex")),
        LIVES,
        Code.CHANNEL_WRONG_AUTHORITY,
    ),
    "one of which a bit of a rule is wrong": (
        lambda street: _flipped(street, b"rules"),
        LIVES,
        Code.POLICY_BUNDLE_INVALID,
    ),
    "one of which a bit of the authority's history is wrong, which is known here": (
        lambda street: _flipped(street, street.acme.own.history.encode()),
        LIVES,
        Code.CHANNEL_HISTORY_INVALID,
    ),
    "one of the future": (
        lambda street: _say(street, _issue(street, issued_ahead=3_600)),
        LIVES,
        Code.CHANNEL_NOT_YET_VALID,
    ),
    "one far ahead of the clock": (
        lambda street: _say(street, _issue(street, ahead=10 * DAY_S), street.now + 10 * DAY_S),
        LIVES,
        Code.POLICY_BUNDLE_INVALID,
    ),
    "an old one": (_old, LIVES, None),
    "an old one under a new number": (_old_under_a_new_number, LIVES, Code.POLICY_BUNDLE_OUTDATED),
    "one by a signer who was left out": (
        _by_a_signer_who_was_left_out,
        LIVES,
        Code.POLICY_BUNDLE_OUTDATED,
    ),
    "one by a signer who is revoked": (_by_a_revoked_signer, LIVES, Code.CHANNEL_REVOKED),
    "that one of a stranger is held": (
        lambda street: [_held(1 << 62, Authority())],
        LIVES,
        None,
    ),
    "that one is held, without end": (
        lambda street: [_held(0, street.acme)] * (GIVEN * HELD_BURST + 1),
        Code.HOP_LIMIT_EXCEEDED,
        None,
    ),
    "policies without end": (
        lambda street: [
            frame
            for number in range(GIVEN * DOCUMENTS_BURST + 1)
            for frame in _say(street, b"garbage", street.now + number + 1)
        ],
        Code.HOP_LIMIT_EXCEEDED,
        Code.POLICY_BUNDLE_INVALID,
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_member_changes_no_policy(case: str, street: Street) -> None:
    make, closed_by, refused_for = HOSTILE[case]
    side = street.sides["a"]
    frames = make(street)
    held = side.mandatory.held

    error: Code | None = LIVES
    for frame in frames:
        try:
            street.hear("a", "b", frame)
        except FrameError as exc:
            error = exc.code
            break

    assert error is closed_by
    assert set(side.neighbours.refused) == (set() if refused_for is None else {refused_for})
    assert side.mandatory.held == held
    side.neighbours.hop_closed(street.hops["a", "b"])  # type: ignore[arg-type]
    assert side.neighbours.policies.assembling_bytes == 0


def test_a_claim_to_hold_a_newer_one_keeps_no_policy_from_the_others(street: Street) -> None:
    late = street.add("late")
    street.connect("a", "late")
    street.carry()
    street.hear("a", "b", _held(1 << 62, street.acme))
    _hold(street, _issue(street))
    street.carry()

    assert late.mandatory.held is not None
    assert street.sides["b"].mandatory.held is None
