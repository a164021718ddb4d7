"""Makes conformance/vectors/policy/*.json; a test makes them again.

.venv/bin/python -m tests.policy.make_vectors

Effect, rule and what is refused where stand in the tables, written by hand. The explanation of a
decision is what our own engine says of each rule, so that a change of it is seen.
"""

import json
from typing import Any, Final

import msgspec

from conformance import vector_path
from node.audit_entry import record_of
from policy import Permit, PolicyEngine, PolicyError
from tests.policy import (
    vector_chains,
    vector_conditions,
    vector_mcp,
    vector_names,
    vector_refusals,
    vector_values,
)
from tests.policy.vector_case import Case

TABLES: Final = (vector_names, vector_values, vector_conditions, vector_chains, vector_mcp)
DECISIONS: Final = "policy/decisions-1"
REFUSALS: Final = "policy/refusals-1"
ABOUT_DECISIONS: Final = (
    "How to read this file: conformance/README.md. Each case asks the bundle of that name, beside "
    "the built-in baseline, and gets the answer that it gives."
)
ABOUT_REFUSALS: Final = (
    "How to read this file: conformance/README.md. Each text is refused when it is loaded, for "
    "what stands at that line and column."
)


def cases() -> list[Case]:
    return [case for table in TABLES for case in table.CASES]


def bundles() -> dict[str, str]:
    found: dict[str, str] = {}
    for table in TABLES:
        assert not found.keys() & table.BUNDLES.keys()
        found |= table.BUNDLES
    return found


def make_decisions() -> dict[str, Any]:
    texts = bundles()
    made = [_decided(case, texts[case.bundle]) for case in cases()]
    assert len({case["what"] for case in made}) == len(made)
    assert {case["bundle"] for case in made} == texts.keys()
    return {"about": ABOUT_DECISIONS, "bundles": texts, "cases": made}


def make_refusals() -> dict[str, Any]:
    made = []
    for what, (text, line, column) in vector_refusals.REFUSALS.items():
        made.append({"what": what, "text": text, "line": line, "column": column})
    return {"about": ABOUT_REFUSALS, "cases": made}


def request_fields(case: Case) -> dict[str, Any]:
    """The request as a line of the audit log has it, with all that a log leaves out."""
    request = case.request
    record = record_of(
        request, audit_args=tuple(request.args or ()), expires_unix_s=case.expires_unix_s
    )
    fields: dict[str, Any] = msgspec.to_builtins(record)
    # A log leaves out what may be secret; a vector holds all of it.
    for name in ("args", "uri", "result"):
        if (value := getattr(request, name)) is not None:
            fields[name] = value
    return {"action": str(request.action), "service": request.service, **fields}


def decide(engine: PolicyEngine, case: Case) -> dict[str, Any]:
    for _ in range(case.asked_before):
        engine.decide(case.request, case.unix_s)
    decision = engine.decide(case.request, case.unix_s, expires_unix_s=case.expires_unix_s)
    allowed = isinstance(decision, Permit)
    return {
        "effect": "allow" if allowed else "deny",
        "rule": decision.rule,
        "code": None if isinstance(decision, Permit) else decision.code.text,
        "audited": [[one.name, one.effect] for one in decision.audited],
        "explanation": explanation(engine, case),
    }


def explanation(engine: PolicyEngine, case: Case) -> dict[str, Any]:
    """Of each rule that speaks of the action: whether it applies, and how its clauses fare."""
    return {
        rule.name: {
            "applies": rule.matched,
            "clauses": {one.clause: one.outcome for one in rule.clauses},
        }
        for rule in engine.trace(case.request, case.unix_s).rules
    }


def _decided(case: Case, text: str) -> dict[str, Any]:
    gives = decide(PolicyEngine.load(text, file="policy.yaml"), case)
    effect, _, rule = case.expect.partition(" ")
    assert (gives["effect"], gives["rule"]) == (effect, rule or None), (case.what, gives)
    return {
        "what": case.what,
        "bundle": case.bundle,
        "unix_s": case.unix_s,
        "asked_before": case.asked_before,
        "request": request_fields(case),
        "gives": gives,
    }


def refused_at(text: str) -> tuple[int, int]:
    try:
        PolicyEngine.load(text, file="policy.yaml").run_tests()
    except PolicyError as error:
        return error.line, error.column
    raise AssertionError("it is not refused")


def printed(made: dict[str, Any]) -> str:
    """One line a case, so that a change of one is one line of a difference."""
    head = {key: value for key, value in made.items() if key != "cases"}
    listed = ",\n".join(json.dumps(case, separators=(",", ":")) for case in made["cases"])
    return f'{json.dumps(head, indent=1)[:-2]},\n "cases": [\n{listed}\n ]\n}}\n'


if __name__ == "__main__":
    for name, content in ((DECISIONS, make_decisions()), (REFUSALS, make_refusals())):
        vector_path(name).parent.mkdir(exist_ok=True)
        vector_path(name).write_text(printed(content))
