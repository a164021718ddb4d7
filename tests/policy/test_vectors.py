"""The published decision vectors: each is decided and explained so, and is made again from here."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any, Final

import msgspec
import pytest

from conformance import vector_path
from node.audit_entry import RequestRecord, request_of
from policy import PolicyEngine, PolicyError
from tests.policy.make_vectors import (
    DECISIONS,
    REFUSALS,
    decide,
    make_decisions,
    make_refusals,
    printed,
    refused_at,
)
from tests.policy.vector_case import Case

DECISIONS_MIN: Final = 300
PUBLISHED: Final[Any] = json.loads(vector_path(DECISIONS).read_text())
REFUSED: Final[Any] = json.loads(vector_path(REFUSALS).read_text())
ENGINES: Final[dict[str, PolicyEngine]] = {}


def engine_of(bundle: str, *, fresh: bool) -> PolicyEngine:
    """Each bundle is loaded once, but where its limits count."""
    if fresh or bundle not in ENGINES:
        ENGINES[bundle] = PolicyEngine.load(PUBLISHED["bundles"][bundle], file="policy.yaml")
    return ENGINES[bundle]


def case_of(published: Any) -> Case:
    """The case as anybody else reads it out of the file."""
    fields = dict(published["request"])
    record = msgspec.convert(fields, RequestRecord)
    if "args" not in fields:
        record = msgspec.structs.replace(record, args_left_out=True)
    request = replace(
        request_of(fields["action"], fields["service"], record),
        uri=fields.get("uri"),
        result=fields.get("result"),
    )
    return Case(
        published["what"],
        published["bundle"],
        request,
        "",
        published["unix_s"],
        record.expires_unix_s,
        published["asked_before"],
    )


@pytest.mark.parametrize("published", PUBLISHED["cases"], ids=lambda case: case["what"])
def test_a_request_is_decided_and_explained_as_published(published: Any) -> None:
    case = case_of(published)
    engine = engine_of(case.bundle, fresh="limit" in case.bundle)

    assert decide(engine, case) == published["gives"]


@pytest.mark.parametrize("published", REFUSED["cases"], ids=lambda case: case["what"])
def test_a_text_is_refused_where_it_is_wrong(published: Any) -> None:
    with pytest.raises(PolicyError) as refused:
        PolicyEngine.load(published["text"], file="policy.yaml")

    assert (refused.value.line, refused.value.column) == (published["line"], published["column"])
    assert refused_at(published["text"]) == (published["line"], published["column"])


def test_both_files_are_made_again_byte_by_byte() -> None:
    assert printed(make_decisions()) == vector_path(DECISIONS).read_text()
    assert printed(make_refusals()) == vector_path(REFUSALS).read_text()


def test_there_are_enough_of_them_and_of_every_answer() -> None:
    answers = Counter(
        (case["gives"]["effect"], case["gives"]["code"]) for case in PUBLISHED["cases"]
    )

    assert sum(answers.values()) >= DECISIONS_MIN
    assert min(answers[one] for one in (("allow", None), ("deny", "policy.no_rule"))) > 100
    assert answers["deny", "policy.denied"] > 50
    assert answers["deny", "policy.limited"] > 0
    assert answers["deny", "policy.not_ready"] > 0
    assert {case["request"]["action"] for case in PUBLISHED["cases"]} >= {
        "hop.admit",
        "link.relay",
        "mcp.call",
        "mcp.result",
        "route.register",
    }
