"""A permit comes from decide(), is for what it says, and cannot be made, changed or carried off."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

import policy
from policy import Action, Denial, Permit, Request, require
from tests.policy.helpers import BILLING, NOW, PLANNER, ask, denied, permitted, policy_of

ENGINE = policy_of("effect: allow, actions: [message.ask]")
PERMIT = permitted(ENGINE, ask())
HOP = Request(Action.HOP_ADMIT, PLANNER, BILLING)
FIELDS: dict[str, Any] = {
    name: getattr(PERMIT, name)
    for name in (
        "action",
        "subject",
        "object_name",
        "policy_version",
        "expires_unix_s",
        "rule",
        "decision_id",
        "message_bytes_max",
        "cacheable",
    )
}


def test_says_what_was_decided() -> None:
    expected = {
        "action": Action.MESSAGE_ASK,
        "subject": PLANNER.identifier,
        "object_name": BILLING.name,
        "policy_version": ENGINE.version,
        "expires_unix_s": NOW + policy.PERMIT_LIFETIME_S,
        "rule": "rule 1",
        "decision_id": "",
        "message_bytes_max": None,
        "cacheable": True,
    }

    found = {**FIELDS, "decision_id": ""}
    assert found == expected


class _LooksAlike:
    action = Action.MESSAGE_ASK
    _seal = getattr(PERMIT, "_seal")  # noqa: B009 - mypy knows that it is private


def _subclass() -> object:
    return type("Wider", (Permit,), {})


FORGERIES: dict[str, Callable[[], object]] = {
    "made by its name": lambda: Permit(**FIELDS, made_by_decide=object()),
    "made without a word": lambda: cast("Any", Permit)(**FIELDS),
    "made with True": lambda: Permit(**FIELDS, made_by_decide=True),
    "changed": lambda: replace(cast("Any", PERMIT), rule="another"),
    "pickled": lambda: pickle.dumps(PERMIT),
    "a subclass": _subclass,
    "made without its constructor": lambda: require(object.__new__(Permit), Action.MESSAGE_ASK),
    "a look-alike": lambda: require(_LooksAlike(), Action.MESSAGE_ASK),
    "a denial": lambda: require(denied(ENGINE, HOP), Action.HOP_ADMIT),
    "nothing": lambda: require(None, Action.MESSAGE_ASK),
    "true": lambda: require(True, Action.MESSAGE_ASK),
    "copied": lambda: copy.copy(PERMIT),
    "deeply copied": lambda: copy.deepcopy(PERMIT),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_nobody_forges(forge: Callable[[], object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        forge()


def test_nothing_in_it_can_be_set() -> None:
    with pytest.raises(AttributeError):
        cast("Any", PERMIT).rule = "another"


def test_what_makes_permits_is_not_exported() -> None:
    assert not [name for name in policy.__all__ if "make" in name]


def test_is_good_for_its_action_its_subject_and_its_time_only() -> None:
    assert require(PERMIT, Action.MESSAGE_ASK, subject=PLANNER.identifier, unix_s=NOW) is PERMIT
    for action, subject, unix_s in (
        (Action.MESSAGE_TELL, None, None),
        (Action.MESSAGE_ASK, BILLING.identifier, None),
        (Action.MESSAGE_ASK, None, PERMIT.expires_unix_s),
    ):
        with pytest.raises(PermissionError):
            require(PERMIT, action, subject=subject, unix_s=unix_s)


def test_covers_messages_up_to_its_bound() -> None:
    bounded = permitted(
        policy_of('effect: allow, actions: [message.ask], when: "message.size <= 100"'), ask()
    )

    assert bounded.covers(100)
    assert not bounded.covers(101)
    assert PERMIT.covers(1 << 40)


def test_a_denial_is_no_permit() -> None:
    answer = ENGINE.decide(ask(replace(PLANNER, identifier=None)), NOW)

    assert isinstance(answer, Denial)
    with pytest.raises(TypeError, match="Denial"):
        require(answer, Action.MESSAGE_ASK)
