"""Several files are one policy: attributes and names hold across them, and all is good or none."""

import contextlib
import gc
from collections.abc import Sequence

import pytest

from policy import Denial, Permit, PolicyEngine, PolicyError, PolicySource
from policy.bundles import BASELINE_POLICY
from policy.documents import FILES_MAX
from tests.policy.helpers import NOW, ask, call

TOP = "apiVersion: sidelink/v1\nkind: Policy\n"
ASKS_RULE = """\
rules:
  - {name: asks, effect: allow, actions: [message.ask], from: {role: planner}}
"""
ASKS = TOP + ASKS_RULE
CALLS = ASKS.replace("asks", "calls").replace("message.ask", "mcp.call")
DECLARES = f"{TOP}attributes: {{role: text}}\n"
ASKS_ALONE = DECLARES + ASKS_RULE


def bundle(*texts: str) -> PolicyEngine:
    """Files named a.yaml, b.yaml and so on."""
    return PolicyEngine.load_bundle(sources(texts))


def sources(texts: Sequence[str]) -> list[PolicySource]:
    return [PolicySource(f"{chr(97 + at)}.yaml", text) for at, text in enumerate(texts)]


def test_rules_of_all_files_hold_with_the_attributes_that_any_declares() -> None:
    engine = bundle(ASKS, CALLS, DECLARES)

    assert engine.rule_names[:2] == ("asks", "calls")
    assert isinstance(engine.decide(ask(), NOW), Permit)
    assert isinstance(engine.decide(call(), NOW), Permit)


def test_a_deny_rule_of_one_file_overrides_what_another_allows() -> None:
    denies = f"{TOP}rules:\n  - {{name: never, effect: deny, actions: [message.ask]}}\n"

    answer = bundle(ASKS_ALONE, denies).decide(ask(), NOW)

    assert isinstance(answer, Denial)
    assert answer.rule == "never"


def test_the_same_declaration_may_stand_in_each_file() -> None:
    assert bundle(DECLARES, ASKS + "attributes: {role: text}\n").ready


REFUSED = {
    "an attribute of two types": (
        [DECLARES, f"{TOP}attributes:\n  role: int\n"],
        "b.yaml:4:9: role is declared as int here, and as text on line 3 of a.yaml.",
    ),
    "a rule's name in two files": (
        [ASKS_ALONE, ASKS],
        'b.yaml:4:12: a rule named "asks" is already on line 5 of a.yaml.',
    ),
    "a file that is no policy": ([DECLARES, "kind: Role\n"], "b.yaml:1:1: the policy lacks"),
    "a file that is not YAML": ([DECLARES, "a: 'x"], "b.yaml:1:6: "),
    "a name of a built-in rule": (
        [DECLARES, ASKS.replace("name: asks", 'name: "baseline: x"')],
        'b.yaml:4:12: names that begin with "baseline: "',
    ),
    "too many attributes in all": (
        [
            f"{TOP}attributes: {{{name}1: text, {name}2: text}}\n"
            for name in map("a{}_".format, range(33))
        ],
        "64 at most",
    ),
    "too many files": ([""] * (FILES_MAX + 1), f"at most {FILES_MAX} are read"),
}


@pytest.mark.parametrize(("texts", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_is_refused_as_a_whole(texts: list[str], words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        bundle(*texts)

    assert words in str(caught.value)


def test_files_without_content_are_no_fault() -> None:
    assert bundle("# nothing yet\n", ASKS_ALONE).ready
    assert not bundle("", "# nothing yet\n").ready
    assert not PolicyEngine.load_bundle([]).ready


def test_the_version_is_that_of_all_texts_whatever_their_order_and_names() -> None:
    texts = [DECLARES, ASKS, CALLS]
    found = bundle(*texts).version
    renamed = [PolicySource(f"{at}.yml", text) for at, text in enumerate(reversed(texts))]

    assert len(found) == 16
    assert PolicyEngine.load_bundle(renamed).version == found
    assert bundle(DECLARES, ASKS).version != found
    assert bundle(ASKS_ALONE).version == PolicyEngine.load(ASKS_ALONE, file="elsewhere").version


def test_a_files_tests_may_name_the_rules_of_another() -> None:
    test = "{name: t, action: message.ask, from: {role: planner}, expect: allow, rule: asks}"

    (outcome,) = bundle(ASKS, f"{DECLARES}tests:\n  - {test}\n").run_tests()

    assert outcome.passed


@pytest.mark.parametrize("text", [BASELINE_POLICY, "rules: ["], ids=["good", "bad"])
@pytest.mark.parametrize("enabled", [True, False])
def test_a_load_leaves_the_garbage_collector_as_it_was(text: str, enabled: bool) -> None:
    was_enabled = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with contextlib.suppress(PolicyError):
            PolicyEngine.load(text, file="p", baseline=False)
        found = gc.isenabled()
    finally:
        (gc.enable if was_enabled else gc.disable)()

    assert found is enabled
