"""What rules can say of prompts, resources and results, and what nobody asks about and none may."""

import json
from dataclasses import replace
from typing import Any

import pytest

from policy import Action, Permit, PolicyError, Request
from policy.matcher import is_plain_uri
from tests.policy.helpers import (
    BILLING,
    NOW,
    PLANNER,
    call,
    denied,
    is_allowed,
    policy_of,
)


def read(uri: str | None) -> Request:
    args = None if uri is None else {"uri": uri}
    return Request(Action.MCP_READ, PLANNER, BILLING, service="files", uri=uri, args=args)


def prompt(name: str) -> Request:
    return Request(Action.MCP_PROMPT, PLANNER, BILLING, service="files", tool=name, args={})


DOCS = policy_of("effect: allow, actions: [mcp.read], resources: ['file:///docs/*', 'note:one']")
NO_DOCS = policy_of(
    "effect: allow, actions: [mcp.read]",
    "effect: deny, actions: [mcp.read], resources: ['file:///docs/*']",
)

# A URI, and whether a server that tidies it up might see another one.
URIS = {
    "file:///docs/a": True,
    "file:///docs/a.b/c..d": True,
    "note:one": True,
    "https://example.org:8443/a?b=../c": True,
    "file:///docs/%C3%A9": True,
    "file:///docs/../secret": False,
    "file:///docs/..": False,
    "file:///docs/./a": False,
    "file:///docs/%2e%2e/secret": False,
    "file:///docs/%2E./secret": False,
    "file:///docs/..%2fsecret": False,
    "file:///docs/%252e%252e/secret": False,
    "file:///docs/..\\secret": False,
    "file:///docs/%5c..%5csecret": False,
    "FILE:///docs/a": False,
    "https://Example.org/a": False,
    "https://me@example.org/a": False,
    "file:///docs/a\n": False,
    "file:///docs/a b": False,
    "file:///docs/\u202ea": False,
    "docs/a": False,
    "../a": False,
    "": False,
}


@pytest.mark.parametrize("uri", URIS)
def test_knows_a_uri_that_can_only_be_read_in_one_way(uri: str) -> None:
    assert is_plain_uri(uri) is URIS[uri]


@pytest.mark.parametrize("uri", [uri for uri in URIS if uri and not URIS[uri]])
def test_a_uri_in_disguise_is_allowed_by_no_list_and_denied_by_each(uri: str) -> None:
    assert not is_allowed(DOCS, read(uri))
    assert denied(NO_DOCS, read(uri)).rule == "rule 2"


READS = {
    "file:///docs/a": (True, False),
    "file:///docs/a/b": (True, False),
    "note:one": (True, True),
    "note:one/more": (False, True),
    "file:///other": (False, True),
}


@pytest.mark.parametrize("uri", READS)
def test_resources_are_named_outright_or_by_their_beginning(uri: str) -> None:
    assert (is_allowed(DOCS, read(uri)), is_allowed(NO_DOCS, read(uri))) == READS[uri]


def test_prompts_are_named_like_tools() -> None:
    engine = policy_of("effect: allow, actions: [mcp.prompt], prompts: [greet, 'sum_*']")

    found = [is_allowed(engine, prompt(name)) for name in ("greet", "sum_up", "gree", "other")]
    assert found == [True, True, False, False]


def test_a_rule_on_resources_implies_lists_and_leaves_out_what_it_does_not_allow() -> None:
    assert is_allowed(DOCS, replace(read(None), action=Action.MCP_LIST))
    assert DOCS.could_allow(read(None), NOW)
    assert DOCS.could_allow(read("note:one"), NOW)
    assert not DOCS.could_allow(read("note:two"), NOW)


def test_the_uri_is_an_argument_to_conditions() -> None:
    engine = policy_of(
        "effect: allow, actions: [mcp.read], when: args.uri.endsWith('.txt') && size(args.uri) < 20"
    )

    found = [is_allowed(engine, read(uri)) for uri in ("file:///a.txt", "file:///a.bin")]
    assert found == [True, False]


def result(value: Any, **args: Any) -> Request:
    return replace(call(args=args), action=Action.MCP_RESULT, result=value)


CALLS = "effect: allow, actions: [mcp.call]"
SMALL = policy_of(
    CALLS,
    "effect: deny, actions: [mcp.result], tools: [get_forecast], "
    "when: result.structuredContent.total > 100 && args.all != true",
)


def test_the_permit_of_a_call_covers_its_result() -> None:
    assert is_allowed(policy_of(CALLS), result({"content": []}))
    assert not is_allowed(policy_of("effect: allow, actions: [mcp.list]"), result({}))


# What a call gave back, what it was given, and whether it may go.
RESULTS = {
    "little": ({"structuredContent": {"total": 5}}, {"all": False}, True),
    "much": ({"structuredContent": {"total": 500}}, {"all": False}, False),
    "much, as was asked for": ({"structuredContent": {"total": 500}}, {"all": True}, True),
    "something else, which is an error": ({"content": []}, {"all": False}, False),
    "something else, where the other side settles it": ({"content": []}, {"all": True}, True),
    "nothing that can be read": (None, {"all": False}, False),
    "what is too deep": ({"a": json.loads("[" * 100 + "]" * 100)}, {}, False),
}


@pytest.mark.parametrize(("value", "args", "allowed"), RESULTS.values(), ids=RESULTS.keys())
def test_a_rule_denies_a_result_for_what_it_holds(value: Any, args: Any, allowed: bool) -> None:
    assert is_allowed(SMALL, result(value, **args)) is allowed


def test_says_whether_results_need_to_be_asked_about_at_all() -> None:
    assert SMALL.judges_results
    assert not policy_of(CALLS).judges_results


def test_a_permit_for_a_result_is_never_cached() -> None:
    answer = policy_of(CALLS).decide(result({}), NOW)

    assert isinstance(answer, Permit)
    assert not answer.cacheable


@pytest.mark.parametrize("action", ["message.publish", "message.event", "tcp.connect", "mcp.ping"])
def test_what_no_program_asks_about_is_no_action(action: str) -> None:
    with pytest.raises(PolicyError, match="unknown action"):
        policy_of(f"effect: allow, actions: [{action}]")


REFUSED = {
    "resources for a call": ("mcp.call", "resources: ['file:///a']", "says nothing about mcp.call"),
    "prompts for a resource": ("mcp.read", "prompts: [a]", "says nothing about mcp.read"),
    "a resource without a scheme": ("mcp.read", "resources: [docs]", "no URI in its plain form"),
    "a resource with dots": ("mcp.read", "resources: ['file:///a/../b']", "no URI"),
    "a star within a URI": ("mcp.read", "resources: ['file:///*/b']", "no name"),
    "any resource": ("mcp.read", "resources: ['*']", "no URI in its plain form"),
    "result in a rule for calls": ("mcp.call", "when: result.a == 1", "result is not known for"),
}


@pytest.mark.parametrize(("action", "text", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(action: str, text: str, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy_of(f"effect: allow, actions: [{action}], {text}")

    assert words in caught.value.problem
    assert caught.value.remedy
