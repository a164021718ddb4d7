"""What a permit asks of whoever acts on it, and how results are redacted."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import Obligations, PolicyError, redact
from tests.policy.helpers import call, permitted, policy_of

CALLS = "effect: allow, actions: [mcp.call]"


def test_a_permit_carries_the_obligations_of_the_rule_that_granted_it() -> None:
    rule = f"{CALLS}, redact: [a.b], audit_args: [days], max_bytes: 1000, max_seconds: 5"

    assert permitted(policy_of(rule), call()).obligations == Obligations(
        ("a.b",), ("days",), 1000, 5
    )


def test_a_rule_without_obligations_grants_before_one_that_has_some() -> None:
    engine = policy_of(f"{CALLS}, max_bytes: 10", CALLS)

    assert permitted(engine, call()).obligations == Obligations()


def test_of_two_permits_all_obligations_hold() -> None:
    one = Obligations(("a",), ("x",), 10, None)
    other = Obligations(("b", "a"), (), 20, 3)

    assert one.joined(other) == Obligations(("a", "b"), ("x",), 10, 3)


REFUSED = {
    "redaction of what is no result": ("message.ask", "redact: [a]", "nothing enforces `redact`"),
    "a size of what has a size of its own": ("message.ask", "max_bytes: 5", "`max_bytes`"),
    "a time for a channel": ("channel.open", "max_seconds: 5", "`max_seconds`"),
    "arguments of what has none": ("mcp.list", "audit_args: [a]", "`audit_args`"),
    "redaction of a resource": ("mcp.read", "redact: [a]", "nothing enforces `redact`"),
}


@pytest.mark.parametrize(("action", "text", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_nothing_enforces_is_refused(action: str, text: str, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy_of(f"effect: allow, actions: [{action}], {text}")

    assert words in caught.value.problem


STRUCTURED = {"name": "x", "phones": [{"number": "1", "kind": "home"}, {"number": "2"}], "n": 5}

# Paths, and what is left.
REDACTIONS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "a field": (["name"], {**STRUCTURED, "name": "[redacted]"}),
    "a field that is no text": (["n"], {**STRUCTURED, "n": None}),
    "a field within each item of a list": (
        ["phones.*.number"],
        {
            **STRUCTURED,
            "phones": [{"number": "[redacted]", "kind": "home"}, {"number": "[redacted]"}],
        },
    ),
    "the same without a star": (
        ["phones.number"],
        {
            **STRUCTURED,
            "phones": [{"number": "[redacted]", "kind": "home"}, {"number": "[redacted]"}],
        },
    ),
    "every field": (["*"], {"name": "[redacted]", "phones": None, "n": None}),
    "two fields": (["n", "name"], {**STRUCTURED, "n": None, "name": "[redacted]"}),
    "a field that is not there": (["zip.code"], STRUCTURED),
    "a field of a text": (["name.first"], STRUCTURED),
}


@pytest.mark.parametrize(("paths", "left"), REDACTIONS.values(), ids=REDACTIONS.keys())
def test_redacts_structured_content_and_its_repetition_as_text(
    paths: list[str], left: dict[str, Any]
) -> None:
    text = {"type": "text", "text": json.dumps(STRUCTURED)}

    found = redact({"structuredContent": STRUCTURED, "content": [text]}, paths)

    assert found["structuredContent"] == left
    assert json.loads(found["content"][0]["text"]) == left


@pytest.mark.parametrize(
    "item",
    [
        {"type": "text", "text": "her name is x"},
        {"type": "text", "text": "5"},
        {"type": "image", "data": "aGVyIG5hbWU="},
        {"type": "resource", "resource": {"uri": "file:///x", "text": "her name is x"}},
        "her name is x",
        {"type": "text", "text": ["her name is x"]},
        {"type": "text", "text": "[" * 100_000},
    ],
)
def test_leaves_out_content_that_it_cannot_look_through(item: object) -> None:
    assert redact({"content": [item]}, ["name"])["content"] == [
        {"type": "text", "text": "[redacted]"}
    ]


def test_keeps_the_rest_of_a_result_and_all_of_it_without_paths() -> None:
    result = {"isError": True, "content": [{"type": "text", "text": "no"}], "_meta": {"a": 1}}

    assert redact(result, []) == result
    assert redact(result, ["x"])["isError"] is True


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just("SECRET") | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_nothing_below_a_redacted_field_is_left(value: Any) -> None:
    result = {"structuredContent": {"a": value}, "content": [{"type": "text", "text": "SECRET"}]}

    assert "SECRET" not in json.dumps(redact(result, ["a"]))
