"""Identity's published vectors: they verify as they say, and each refusal has its own reason.

That it has is proved twice. Each invalid case is a valid one with one change, which is applied here
to what is published: without the change it passes. And no two cases are refused at the same place
of the code, in the same words, because of a change at the same part of the object.
"""

import json
from collections import Counter
from typing import Any, Final

import pytest

from conformance import vector_path
from identity import Code, IdentityError, SigningKey
from tests.conformance.make_vectors import FILES, printed
from tests.conformance.vector_changes import Changer
from tests.conformance.vector_judge import TEXTS, judge, place_of

PUBLISHED: Final[dict[str, Any]] = {
    name: json.loads(vector_path(name).read_text()) for name in FILES
}
SECTIONS: Final[dict[str, Any]] = {
    section: PUBLISHED[name][section] for name, sections in FILES.items() for section in sections
}
_PEOPLE: Final = PUBLISHED["proofs-1"]["people"] | PUBLISHED["policies-1"]["people"]
KEYS: Final = [
    SigningKey.from_private_bytes(bytes.fromhex(key))
    for who in _PEOPLE.values()
    for key in who["signing_keys"]
]
PLACES_MIN: Final = 230


def cases(kind: str, label: str) -> list[Any]:
    return [
        pytest.param(section, case, id=f"{section}: {case[label]}")
        for section, content in SECTIONS.items()
        for case in content[kind]
    ]


def code_of(section: str, case: dict[str, Any]) -> IdentityError:
    with pytest.raises(IdentityError) as refused:
        judge(section, case)
    return refused.value


@pytest.mark.parametrize(("section", "case"), cases("valid", "what"))
def test_a_valid_case_verifies_to_what_it_gives(section: str, case: dict[str, Any]) -> None:
    assert judge(section, case) == case["gives"]


@pytest.mark.parametrize(("section", "case"), cases("invalid", "why"))
def test_an_invalid_case_is_refused_with_its_code(section: str, case: dict[str, Any]) -> None:
    refused = code_of(section, case)

    assert [int(refused.code), refused.code.text] == case["code"]


@pytest.mark.parametrize(("section", "case"), cases("invalid", "why"))
def test_an_invalid_case_is_a_valid_one_with_the_one_change_that_it_states(
    section: str, case: dict[str, Any]
) -> None:
    [valid] = [one for one in SECTIONS[section]["valid"] if one["what"] == case["of"]]
    change = case["change"]
    inputs = dict(valid["inputs"])
    if "input" in change:
        inputs[change["input"]] = change["to"]

    assert _changed(section, valid["encoded"], change) == case["encoded"]
    assert inputs == case["inputs"]
    assert (case["encoded"], case["inputs"]) != (valid["encoded"], valid["inputs"])


def _changed(section: str, encoded: str, change: dict[str, Any]) -> str:
    changer = Changer(KEYS)
    if section in TEXTS:
        return changer.apply_to_ticket(encoded, change)
    return changer.apply(bytes.fromhex(encoded), change).hex()


def reason_of(section: str, case: dict[str, Any]) -> tuple[Any, ...]:
    """The line that refuses it, and those on the way there; its words; the part that is changed."""
    refused = code_of(section, case)
    change = case["change"]
    part = [[kind, change[kind]] for kind in ("set", "remove", "splice") if kind in change]
    if "input" in change:
        part = [[change["input"], "beside", case["of"]]]
    return section, place_of(refused), refused.detail, json.dumps(part)


def test_no_two_invalid_cases_are_refused_for_one_reason() -> None:
    reasons = Counter(
        reason_of(section, case)
        for section, content in SECTIONS.items()
        for case in content["invalid"]
    )

    assert [reason for reason, count in reasons.items() if count > 1] == []
    assert len({(section, place) for section, place, *_ in reasons}) >= PLACES_MIN


def test_two_cases_of_one_reason_would_be_noticed() -> None:
    """Port 0 and port 70,000 are refused at one place because of one part."""
    [port] = [case for case in SECTIONS["tickets"]["invalid"] if case["why"] == "port 0"]
    change = port["change"] | {"to": "1a00011170"}
    [valid] = [one for one in SECTIONS["tickets"]["valid"] if one["what"] == port["of"]]
    other = port | {"change": change, "encoded": _changed("tickets", valid["encoded"], change)}

    assert other["encoded"] != port["encoded"]
    assert reason_of("tickets", other) == reason_of("tickets", port)


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_made_again_byte_by_byte(name: str) -> None:
    assert vector_path(name).read_text() == printed(name)


def test_every_code_by_which_an_identity_can_be_refused_is_among_them() -> None:
    seen = {case["code"][0] for content in SECTIONS.values() for case in content["invalid"]}
    judged_elsewhere = {
        Code.CHANNEL_WRONG_NAME: "names-1 has them",
    }

    assert seen | judged_elsewhere.keys() == {
        Code.CHANNEL_WRONG_NAME,
        Code.CHANNEL_WRONG_AUTHORITY,
        Code.CHANNEL_DELEGATION_EXCEEDED,
        Code.CHANNEL_CREDENTIAL_EXPIRED,
        Code.CHANNEL_PIN_MISMATCH,
        Code.CHANNEL_HISTORY_INVALID,
        Code.CHANNEL_ATTESTATION_INVALID,
        Code.CHANNEL_SELF_CONNECTION,
        Code.CHANNEL_VERSION_UNSUPPORTED,
        Code.CHANNEL_CREDENTIAL_INVALID,
        Code.CHANNEL_TOO_MANY_SIGNATURES,
        Code.CHANNEL_PROOF_INVALID,
        Code.CHANNEL_NOT_YET_VALID,
        Code.CHANNEL_REVOKED,
        Code.CHANNEL_REVOCATIONS_STALE,
        Code.CHANNEL_REVOCATIONS_INVALID,
        Code.CHANNEL_REVOCATIONS_OUTDATED,
        Code.CHANNEL_HISTORY_OUTDATED,
        Code.ENROL_TICKET_MALFORMED,
        Code.POLICY_BUNDLE_INVALID,
        Code.POLICY_BUNDLE_OUTDATED,
    }
