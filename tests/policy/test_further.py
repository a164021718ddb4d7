"""What other issuers say, in `when`: by issuer, and never mixed with what proves the name."""

from dataclasses import replace

import pytest

from policy import Party
from tests.policy.helpers import BILLING, PLANNER, ask, denied, is_allowed, load, policy_of

AUDITORS = "sl1" + "q" * 58
OTHERS = "sl1" + "p" * 58
WHEN = f"subject.from[\"{AUDITORS}\"].role == 'auditor'"
ALLOW = f"effect: allow, actions: [message.ask], when: '{WHEN.replace(chr(39), chr(39) * 2)}'"


def said(party: Party, **by_issuer: dict[str, object]) -> Party:
    issuers = {"auditors": AUDITORS, "others": OTHERS}
    return replace(party, further={issuers[key]: value for key, value in by_issuer.items()})  # type: ignore[misc]


SAID = {
    "the issuer that is meant": ({"auditors": {"role": "auditor"}}, True),
    "that issuer, and another value": ({"auditors": {"role": "clerk"}}, False),
    "another issuer": ({"others": {"role": "auditor"}}, False),
    "that issuer, without the attribute": ({"auditors": {"team": "a"}}, False),
    "that issuer, of another type": ({"auditors": {"role": 7}}, False),
    "nobody": ({}, False),
}


@pytest.mark.parametrize("case", SAID)
def test_an_allow_rule_hears(case: str) -> None:
    by_issuer, allowed = SAID[case]
    engine = policy_of(ALLOW)
    subject = said(PLANNER, **by_issuer)

    assert is_allowed(engine, ask(subject, BILLING)) is allowed


def test_the_chain_that_proves_the_name_does_not_speak_for_another_issuer() -> None:
    engine = policy_of(ALLOW)
    subject = replace(PLANNER, attributes={"role": "auditor"})

    assert denied(engine, ask(subject, BILLING))


def test_another_issuer_does_not_speak_for_the_chain_that_proves_the_name() -> None:
    engine = policy_of("effect: allow, actions: [message.ask], from: {role: auditor}")
    subject = said(PLANNER, auditors={"role": "auditor"})

    assert denied(engine, ask(subject, BILLING))


def test_an_attribute_cannot_be_called_from() -> None:
    with pytest.raises(Exception, match="from"):
        load(
            "apiVersion: sidelink/v1\nkind: Policy\nmetadata: {name: a}\nattributes: {from: text}\n"
        )
