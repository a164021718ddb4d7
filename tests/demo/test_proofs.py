"""The demo's judgement: good evidence proves every step, and each flaw in it unproves its own."""

from dataclasses import replace

import msgspec
import pytest

from cli.demo.faults import DemoError
from cli.demo.mesh import NodeReport
from cli.demo.proofs import (
    ASKER,
    ASKER_ATTRIBUTES,
    CANARIES,
    HANDLER,
    HANDLER_ATTRIBUTES,
    LEDGER,
    METRICS_SHOWN,
    RECEIVER_RULE,
    SENDER_RULE,
    TOOL_RULE,
    judge,
)
from cli.demo.reports import AskerReport, AssistantReport, Evidence, HandlerReport, Search, Talk
from cli.demo.tap import Tapped

# What is said, written as JSON documents, so that a flaw is a path and a value.
GOOD = {
    "asker": {
        "agent": {"uri": ASKER, "identifier": "sl1asker", "attributes": dict(ASKER_ATTRIBUTES)},
        "distributions": ["msgspec", "sidelink"],
        "steps": {
            "tell": {"seconds": 0.1},
            "ask": {
                "seconds": 0.1,
                "reply": {
                    "sender": HANDLER,
                    "sender_identifier": "sl1handler",
                    "attributes": dict(HANDLER_ATTRIBUTES),
                    "body": {"answer": "canary-reply"},
                },
            },
            "deny-sender": {"seconds": 0.1, "refusal": {}},
            "deny-receiver": {"seconds": 0.1, "refusal": {}},
            "deny-receiver, a tell": {"seconds": 0.1},
        },
    },
    "handler": {"names": [HANDLER, LEDGER], "distributions": ["msgspec", "sidelink"], "seen": []},
    "assistant": {
        "without_token": 401,
        "revision": "2026-07-28",
        "server": "mcp-time 1",
        "list": {"seconds": 0.1, "tools": ["get_current_time"]},
        "call": {
            "seconds": 0.1,
            "answer": {"timezone": "Europe/Berlin", "datetime": "2026-11-22T12:00:00+01:00"},
            "echo": "No time zone found with key canary-mcp-call",
        },
        "refused": {
            "seconds": 0.1,
            "error": {"code": 1, "message": "denied", "data": {"rule": TOOL_RULE, "reason": "no"}},
        },
    },
}
for step, rule in (("deny-sender", SENDER_RULE), ("deny-receiver", RECEIVER_RULE)):
    GOOD["asker"]["steps"][step]["refusal"] = {
        "kind": "PolicyDenied",
        "code": "policy.denied",
        "rule": rule,
        "reason": "no",
    }
for to, kind, canary in (
    (HANDLER, "tell", "tell"),
    (HANDLER, "ask", "ask"),
    (LEDGER, "tell", "deny-receiver"),
):
    GOOD["handler"]["seen"].append(
        {
            "to": to,
            "kind": kind,
            "sender": ASKER,
            "sender_identifier": "sl1asker",
            "attributes": dict(ASKER_ATTRIBUTES),
            "body": {"canary": f"canary-{canary}"},
        }
    )


def evidence_of(said: dict) -> Evidence:
    nodes = [
        NodeReport(label, f"sl1{label}", f"agent://acme/node/{label}", attributes, True, 0.5)
        for label, attributes in (
            ("authority", {}),
            ("gateway", {}),
            ("a", {"site": "berlin"}),
            ("b", {"site": "lisbon"}),
        )
    ]
    metrics = {
        label: "".join(f"{sample} 2\n" for sample in samples)
        for label, samples in METRICS_SHOWN.items()
    }
    return Evidence(
        canaries={name: f"canary-{name}" for name in CANARIES},
        nodes=nodes,
        enrol_seconds=1.0,
        talk=Talk(
            msgspec.convert(said["asker"], AskerReport),
            msgspec.convert(said["handler"], HandlerReport),
        ),
        assistant=msgspec.convert(said["assistant"], AssistantReport),
        search=Search(Tapped((b"a", b"b"), (b"stream",)), frozenset(), 0.1),
        control=Search(Tapped((b"c",), ()), frozenset({"tell", "ask", "reply"}), 0.1),
        metrics=metrics,
        metrics_seconds=0.1,
    )


def unproved(evidence: Evidence) -> set[str]:
    return {step.name for step in judge(evidence) if not step.proved}


def flawed(path: str, value: object) -> dict:
    """The good documents with another value at one place."""
    said = msgspec.json.decode(msgspec.json.encode(GOOD))
    *parents, last = path.split("/")
    place = said
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return said


def test_good_evidence_proves_every_step() -> None:
    assert unproved(evidence_of(GOOD)) == set()


NEW_FACE = {"role": "planner", "clearance": 3}
REPLY = "asker/steps/ask/reply"
REFUSED_BY_SENDER = "asker/steps/deny-sender/refusal"
REFUSED_BY_RECEIVER = "asker/steps/deny-receiver/refusal"
FLAWS = {
    "the tell was refused": (
        "asker/steps/tell/refusal",
        {"kind": "PolicyDenied", "code": "policy.denied", "rule": None, "reason": "no"},
        {"tell"},
    ),
    "B did not see the tell": ("handler/seen/0/to", LEDGER, {"tell"}),
    "B saw the tell twice": ("handler/seen/1/kind", "tell", {"tell", "ask"}),
    "B saw another body": ("handler/seen/0/body", {"canary": "another"}, {"tell"}),
    "B saw another sender": ("handler/seen/1/sender", LEDGER, {"ask"}),
    "B saw another identifier": ("handler/seen/1/sender_identifier", "sl1other", {"ask"}),
    "B saw other attributes": ("handler/seen/1/attributes", NEW_FACE, {"ask"}),
    "A has more installed than the SDK": ("asker/distributions", ["pip", "sidelink"], {"tell"}),
    "B has more installed than the SDK": ("handler/distributions", ["sidelink-node"], {"tell"}),
    "nobody replied": (REPLY, None, {"ask"}),
    "another replied": (f"{REPLY}/sender", LEDGER, {"ask"}),
    "the reply is another": (f"{REPLY}/body", {"answer": "another"}, {"ask"}),
    "the replier has other attributes": (f"{REPLY}/attributes", {}, {"ask"}),
    "the sender's side refused nothing": (REFUSED_BY_SENDER, None, {"deny-sender"}),
    "the sender's side failed otherwise": (
        f"{REFUSED_BY_SENDER}/kind",
        "Unreachable",
        {"deny-sender"},
    ),
    "another rule refused at the sender": (f"{REFUSED_BY_SENDER}/rule", None, {"deny-sender"}),
    "B saw what the sender's side refused": (
        "handler/seen/0/body",
        {"canary": "canary-deny-sender"},
        {"tell", "deny-sender"},
    ),
    "the receiver's side refused nothing": (REFUSED_BY_RECEIVER, None, {"deny-receiver"}),
    "another rule refused at the receiver": (
        f"{REFUSED_BY_RECEIVER}/rule",
        SENDER_RULE,
        {"deny-receiver"},
    ),
    "the ledger saw the ask": ("handler/seen/2/kind", "ask", {"deny-receiver"}),
    "the ledger saw nothing": ("handler/seen/2/body", None, {"deny-receiver"}),
    "anybody gets in without the token": ("assistant/without_token", 200, {"mcp-list"}),
    "another server answered": ("assistant/server", "mcp-clock 1", {"mcp-list"}),
    "a denied tool is listed": (
        "assistant/list/tools",
        ["convert_time", "get_current_time"],
        {"mcp-list"},
    ),
    "no tool is listed": ("assistant/list/tools", [], {"mcp-list"}),
    "the call has no answer": ("assistant/call/answer", None, {"mcp-call"}),
    "the call has another answer": ("assistant/call/answer", {"timezone": "UTC"}, {"mcp-call"}),
    "the server did not see the canary": ("assistant/call/echo", "unknown", {"mcp-call"}),
    "the denied tool answered": ("assistant/refused/error", None, {"deny-tool"}),
    "the denied tool failed otherwise": ("assistant/refused/error/data", None, {"deny-tool"}),
    "another rule refused the tool": (
        "assistant/refused/error/data",
        {"rule": SENDER_RULE},
        {"deny-tool"},
    ),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_in_what_was_said_unproves_its_step(flaw: str) -> None:
    path, value, steps = FLAWS[flaw]

    assert unproved(evidence_of(flawed(path, value))) == steps


BLIND = Tapped((), (b"stream",))
DEAF = Tapped((b"a", b"b"), ())
ZERO = "".join(f"{sample} 0\n" for sample in METRICS_SHOWN["a"])
SEEN_FLAWS = {
    "a node is missing": ("enrol", lambda good: {"nodes": good.nodes[:3]}),
    "a node is not ready": ("enrol", lambda good: {"nodes": last_node(good, ready=False)}),
    "two nodes have one identifier": (
        "enrol",
        lambda good: {"nodes": last_node(good, identifier=good.nodes[2].identifier)},
    ),
    "a node has another name": ("enrol", lambda good: {"nodes": last_node(good, name=None)}),
    "a node lacks its attributes": (
        "enrol",
        lambda good: {"nodes": last_node(good, attributes={})},
    ),
    "the gateway could read a canary": (
        "sealed",
        lambda good: {"search": replace(good.search, found=frozenset({"tell"}))},
    ),
    "the gateway's state holds a canary": (
        "sealed",
        lambda good: {"search": replace(good.search, elsewhere=("state.db",))},
    ),
    "the tap saw no frame": ("sealed", lambda good: {"search": replace(good.search, tapped=BLIND)}),
    "the tap saw no stream": ("sealed", lambda good: {"search": replace(good.search, tapped=DEAF)}),
    "the control run found too little": (
        "sealed",
        lambda good: {"control": replace(good.control, found=frozenset({"tell"}))},
    ),
    "the control run failed": ("sealed", lambda _: {"control": DemoError("it failed")}),
    "a program has no metrics": ("metrics", lambda good: {"metrics": {**good.metrics, "b": ""}}),
    "a counter is zero": ("metrics", lambda good: {"metrics": {**good.metrics, "a": ZERO}}),
    "the tap missed a frame": (
        "metrics",
        lambda good: {"search": replace(good.search, tapped=Tapped((b"a",), (b"stream",)))},
    ),
}


def last_node(evidence: Evidence, **changes: object) -> list[NodeReport]:
    return [*evidence.nodes[:3], replace(evidence.nodes[3], **changes)]


@pytest.mark.parametrize("flaw", SEEN_FLAWS)
def test_a_flaw_in_what_was_seen_unproves_its_step(flaw: str) -> None:
    step, spoil = SEEN_FLAWS[flaw]
    evidence = evidence_of(GOOD)

    found = unproved(replace(evidence, **spoil(evidence)))

    # Metrics are compared with the tap, and fail with it.
    assert found - {"metrics"} == {step} - {"metrics"}
    assert step in found


def test_what_was_not_reached_is_not_proved() -> None:
    steps = judge(Evidence({name: f"canary-{name}" for name in CANARIES}))

    assert {step.detail for step in steps} == {"not reached"}
    assert not any(step.proved for step in steps)
