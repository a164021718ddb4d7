"""The registry of codes: complete, stable, and useful to a person."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import Code, IdentityError, SidelinkError

GROUPS = {
    1: "hop",
    2: "enrol",
    3: "channel",
    4: "route",
    5: "policy",
    6: "message",
    7: "stream",
    8: "local",
    9: "config",
}


@pytest.mark.parametrize("code", Code)
def test_every_code_tells_a_person_what_to_do_in_one_sentence(code: Code) -> None:
    assert re.fullmatch(r"[A-Z].*\.", code.remedy)
    assert len(code.remedy) < 200


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.PEER_ERROR_UNKNOWN])
def test_every_code_stands_in_the_hundred_of_its_group(code: Code) -> None:
    assert code.group == GROUPS[code // 100]
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", code.text)


def test_texts_are_unique() -> None:
    assert len({code.text for code in Code}) == len(Code)


def test_texts_and_numbers_that_others_rely_on_do_not_move() -> None:
    assert int(Code.ENROL_TICKET_EXPIRED) == 202
    assert Code.ENROL_TICKET_EXPIRED.text == "enrol.ticket_expired"
    assert int(Code.CHANNEL_DELEGATION_EXCEEDED) == 304
    assert Code.ROUTE_PREFIX_DENIED.text == "route.prefix_denied"
    assert int(Code.CONFIG_MASTER_KEY) == 909


def test_a_known_number_from_a_peer_is_its_code() -> None:
    assert [Code.from_number_untrusted(int(code)) for code in Code] == list(Code)


@pytest.mark.parametrize(
    "number", [0, 2, 100, 65_535, -1, 2**64, True, 101.0, "101", None, b"", []]
)
def test_an_unknown_number_from_a_peer_is_the_unknown_code(number: object) -> None:
    assert Code.from_number_untrusted(number) is Code.PEER_ERROR_UNKNOWN


@given(st.integers())
def test_no_number_from_a_peer_raises(number: int) -> None:
    assert Code.from_number_untrusted(number) in Code


def test_an_error_prints_its_code_and_detail() -> None:
    error = IdentityError(Code.CHANNEL_PIN_MISMATCH, "a history that forks")

    assert isinstance(error, SidelinkError)
    assert str(error) == "channel.pin_mismatch: a history that forks"
    assert str(SidelinkError(Code.HOP_TIMEOUT)) == "hop.timeout"
