"""The published JSON Schema knows what the reader knows: the same keys, the same policies."""

from typing import Any

import fastjsonschema  # type: ignore[import-untyped]
import pytest

from policy import (
    BASELINE_POLICY,
    STARTER_POLICY,
    PolicyEngine,
    PolicyError,
    documents,
    model,
    rules,
    selftest,
    terms,
)
from policy.schema import policy_schema
from policy.strict_yaml import load_strict
from tests.policy.helpers import DESIGN_EXAMPLE, HEADER

SCHEMA = policy_schema()
CHECK = fastjsonschema.compile(SCHEMA)
RULE = SCHEMA["definitions"]["rule"]["properties"]
TEST = SCHEMA["definitions"]["test"]["properties"]

KEYS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "the file": (SCHEMA["properties"], documents._TOP_KEYS),
    "metadata": (SCHEMA["properties"]["metadata"]["properties"], documents._METADATA_KEYS),
    "a rule": (RULE, rules._RULE_KEYS),
    "from of a rule": (RULE["from"]["properties"], model._SELECTOR_KEYS),
    "to of a rule": (RULE["to"]["properties"], (*model._SELECTOR_KEYS, "service")),
    "limit": (RULE["limit"]["properties"], terms._LIMIT_KEYS),
    "a test": (TEST, selftest.TEST_KEYS),
    "from of a test": (TEST["from"]["properties"], model._SELECTOR_KEYS),
    "to of a test": (TEST["to"]["properties"], (*model._SELECTOR_KEYS, "service")),
}


@pytest.mark.parametrize("where", KEYS)
def test_the_schema_and_the_reader_know_the_same_keys(where: str) -> None:
    written, read = KEYS[where]

    assert set(written) == set(read)


GOOD = {
    "the starter": STARTER_POLICY,
    "the baseline": BASELINE_POLICY,
    "the design's example": DESIGN_EXAMPLE,
    "lists and single values": f"""{HEADER}
rules:
  - {{name: a, effect: deny, actions: hop.admit, from: {{kind: [node, agent], clearance: [1, 2]}}}}
  - {{name: b, effect: allow, actions: [mcp.call], to: {{service: [a, b]}}, tools: [x, "get_*"]}}
""",
    "limits and obligations": f"""{HEADER}
rules:
  - name: a
    effect: allow
    actions: [mcp.call]
    limit: {{rate: 0.5 / min, burst: 3, per: pair}}
    mode: audit
    disclose: rule
    redact: [customer.phones.*.number, secret]
    audit_args: days
    max_bytes: 1000
    max_seconds: 5
""",
    "prompts, resources and results": f"""{HEADER}
rules:
  - {{name: a, effect: allow, actions: mcp.read, resources: ["file:///docs/*"]}}
  - {{name: b, effect: allow, actions: mcp.prompt, prompts: [greet, "sum_*"]}}
  - {{name: c, effect: deny, actions: mcp.result, tools: x, when: result.total > 5}}
tests:
  - {{name: a, action: mcp.read, to: {{service: s}}, resource: "file:///docs/a", expect: allow}}
  - {{name: b, action: mcp.prompt, to: {{service: s}}, prompt: greet, expect: allow}}
  - {{name: c, action: mcp.result, to: {{service: s}}, tool: x, result: {{total: 6}}, expect: deny}}
""",
    "everything commented out": f"{HEADER}rules:\ntests:\n",
}


@pytest.mark.parametrize("what", GOOD)
def test_a_policy_that_loads_is_valid(what: str) -> None:
    data, _ = load_strict(GOOD[what], "policy.yaml")

    CHECK(data)


BAD = {
    "a key that is misspelt": "rules: [{name: a, effect: allow, action: [hop.admit]}]",
    "an action that does not exist": "rules: [{name: a, effect: allow, actions: [hop.admitt]}]",
    "no effect": "rules: [{name: a, actions: [hop.admit]}]",
    "an effect that does not exist": "rules: [{name: a, effect: allo, actions: [hop.admit]}]",
    "an empty list": "rules: [{name: a, effect: allow, actions: []}]",
    "a kind that does not exist": (
        "rules: [{name: a, effect: allow, actions: [hop.admit], from: {kind: agents}}]"
    ),
    "a name that is none": (
        "rules: [{name: a, effect: allow, actions: [hop.admit], from: {name: acme/x}}]"
    ),
    "a service that is a pattern": (
        "rules: [{name: a, effect: allow, actions: [mcp.list], to: {service: 'w*'}}]"
    ),
    "a test without what is expected": "tests: [{name: a, action: hop.admit}]",
    "a size below nothing": ("tests: [{name: a, action: message.ask, expect: deny, size: -1}]"),
    "a rate that is none": (
        "rules: [{name: a, effect: allow, actions: [hop.admit], limit: {rate: often}}]"
    ),
    "a limit without a rate": (
        "rules: [{name: a, effect: allow, actions: [hop.admit], limit: {burst: 3}}]"
    ),
    "a mode that does not exist": (
        "rules: [{name: a, effect: allow, actions: [hop.admit], mode: dry}]"
    ),
    "a field that is none": (
        "rules: [{name: a, effect: allow, actions: [mcp.call], redact: 'a..b'}]"
    ),
    "an unknown key of a test": "tests: [{name: a, action: hop.admit, expect: deny, when: x}]",
    "an identifier that is none": (
        "rules: [{name: a, effect: deny, actions: [hop.admit], from: {identifier: sl1x}}]"
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_an_editor_underlines_the_reader_refuses(what: str) -> None:
    text = f"{HEADER}{BAD[what]}\n"
    data, _ = load_strict(text, "policy.yaml")

    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        CHECK(data)
    with pytest.raises(PolicyError):
        PolicyEngine.load(text, file="policy.yaml").run_tests()


HEADERS = {
    "an attribute of no type": "attributes: {role: string}",
    "a reserved attribute": "attributes: {kind: text}",
    "an attribute with a capital": "attributes: {Role: text}",
    "another version": "apiVersion: sidelink/v2",
    "another kind": "kind: Polity",
    "an unknown key": "rule: []",
}


@pytest.mark.parametrize("what", HEADERS)
def test_so_with_the_head_of_a_file(what: str) -> None:
    head = {"apiVersion": "sidelink/v1", "kind": "Policy"}
    key, _, value = HEADERS[what].partition(": ")
    text = "".join(f"{name}: {said}\n" for name, said in (head | {key: value}).items())
    data, _ = load_strict(text, "policy.yaml")

    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        CHECK(data)
    with pytest.raises(PolicyError):
        PolicyEngine.load(text, file="policy.yaml")
