"""Every code an agent may meet has a class that says what to do about it."""

import pytest
from sidelink import errors
from sidelink.errors import SidelinkError, error_from_code

from identity import Code

AGENT_GROUPS = {"hop", "channel", "route", "policy", "message", "local"}


@pytest.mark.parametrize("code", [c for c in Code if c.group in AGENT_GROUPS], ids=lambda c: c.text)
def test_every_code_that_reaches_an_agent_has_a_class_of_its_own(code: Code) -> None:
    error = error_from_code(code.text, "why", rule="r", remedy="do")

    assert type(error) is not SidelinkError
    assert (error.code, error.message, error.rule, error.remedy) == (code.text, "why", "r", "do")


def test_every_code_named_here_is_in_the_registry() -> None:
    registry = {code.text for code in Code}

    assert set(errors._CLASS_OF_CODE) <= registry
    assert set(errors._OUTCOME_UNKNOWN) <= registry


def test_a_code_of_a_later_version_is_still_an_error() -> None:
    error = error_from_code("weather.rain", "wet")

    assert type(error) is SidelinkError
    assert str(error) == "weather.rain: wet"


def test_only_a_lost_answer_leaves_the_outcome_unknown() -> None:
    assert error_from_code("message.timeout").outcome_unknown
    assert not error_from_code("policy.denied").outcome_unknown
    assert not error_from_code("message.rejected").outcome_unknown
