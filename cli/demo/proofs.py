"""From evidence to steps: what each one claims, and everything that must hold for it. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from cli.demo.faults import DemoError
from cli.demo.mesh import LABELS, NodeReport
from cli.demo.reports import AskerReport, Attempt, Evidence, Seen, Talk

ASKER: Final = "agent://acme/finance/planner"
HANDLER: Final = "agent://acme/billing/main"
LEDGER: Final = "agent://acme/billing/ledger"
PAYROLL: Final = "agent://acme/billing/payroll"
ASKER_ATTRIBUTES: Final[Mapping[str, Any]] = {"role": "planner", "clearance": 2}
HANDLER_ATTRIBUTES: Final[Mapping[str, Any]] = {"role": "clerk"}
SENDER_RULE: Final = "nobody here writes to payroll"
RECEIVER_RULE: Final = "the ledger takes notes and answers no questions"
TOOL_RULE: Final = "nobody converts time"
SDK_ONLY: Final = ["msgspec", "sidelink"]
# One for each thing that is said. Enrolment has its own: the secret codes of the tickets.
CANARIES: Final = (
    "tell",
    "ask",
    "reply",
    "mcp-list",
    "mcp-call",
    "deny-sender",
    "deny-receiver",
    "deny-tool",
)

# What the control run says without a seal, and the tap therefore has to find.
SAID_IN_CONTROL: Final = frozenset({"tell", "ask", "reply"})

METRICS_SHOWN: Final[Mapping[str, tuple[str, ...]]] = {
    "authority": ('sidelink_credentials_issued_total{role="sidecar"}',),
    "gateway": ("sidelink_relayed_frames_total", "sidelink_relayed_stream_bytes_total"),
    "a": ("sidelink_messages_sent_total", "sidelink_channels_opened_total"),
    "b": ("sidelink_messages_received_total", "sidelink_mcp_children"),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the table: what was claimed, and, if it was not proved, why not."""

    name: str
    proved: bool
    seconds: float
    detail: str


ValueT = TypeVar("ValueT")
_Proof = Callable[[Evidence], tuple[float, str]]


def judge(evidence: Evidence) -> list[Step]:
    """Every step, in the order in which they are told."""
    return [_judge_one(name, proof, evidence) for name, proof in _PROOFS.items()]


def _judge_one(name: str, proof: _Proof, evidence: Evidence) -> Step:
    try:
        seconds, detail = proof(evidence)
    except DemoError as error:
        return Step(name, False, 0.0, str(error))
    return Step(name, True, seconds, detail)


def _enrol(evidence: Evidence) -> tuple[float, str]:
    nodes = _reached(evidence.nodes)
    _hold([node.label for node in nodes] == list(LABELS), "not all four programs are there")
    for node in nodes:
        _hold(node.ready, f"{node.label} is not ready")
        enrolled = node.name == f"agent://acme/node/{node.label}"
        _hold(enrolled or node.label == "authority", f"{node.label} has the name {node.name}")
    _hold(len({node.identifier for node in nodes}) == len(nodes), "two have one identifier")
    for label, site in (("a", "berlin"), ("b", "lisbon")):
        (node,) = (node for node in nodes if node.label == label)
        _hold(node.attributes == {"site": site}, f"{label} has other attributes than its ticket")
    lines = ["four processes, each with its own state folder; the nodes enrolled by ticket"]
    return evidence.enrol_seconds, "\n".join([*lines, *map(_describe_node, nodes)])


def _describe_node(node: NodeReport) -> str:
    who = "trust anchor of acme" if node.name is None else node.name
    attributes = "".join(f" {name}={value}" for name, value in node.attributes.items())
    role = {"a": "sidecar a", "b": "sidecar b"}.get(node.label, node.label)
    return f"{role:<9}  {short(node.identifier)}  {who}{attributes}, in {node.seconds:.1f} s"


def _tell(evidence: Evidence) -> tuple[float, str]:
    talk = _reached(evidence.talk)
    attempt = _attempt(talk.asker, "tell")
    _hold(attempt.refusal is None, f"the tell was refused: {attempt.refusal}")
    _seen_as_proved(talk, "tell", evidence.canaries["tell"])
    for name, report in (("A", talk.asker), ("B", talk.handler)):
        _hold(report.distributions == SDK_ONLY, f"{name} has more than the SDK in its environment")
    return attempt.seconds, (
        "A told B, through both sidecars and the gateway\n"
        f"both run with nothing installed but {' and '.join(SDK_ONLY)}"
    )


def _ask(evidence: Evidence) -> tuple[float, str]:
    talk = _reached(evidence.talk)
    attempt = _attempt(talk.asker, "ask")
    _hold(attempt.refusal is None, f"the ask was refused: {attempt.refusal}")
    reply = attempt.reply
    _hold(reply is not None, "there was no reply")
    assert reply is not None
    _hold(reply.sender == HANDLER, f"the reply is from {reply.sender}")
    _hold(reply.attributes == HANDLER_ATTRIBUTES, "the reply has other attributes than B's")
    _hold(reply.body == {"answer": evidence.canaries["reply"]}, "the reply is not B's")
    seen = _seen_as_proved(talk, "ask", evidence.canaries["ask"])
    attributes = ", ".join(f"{name}={value}" for name, value in seen.attributes.items())
    return attempt.seconds, (
        f"B's handler saw {seen.sender}\n"
        f"  {short(seen.sender_identifier)}, verified: {attributes}\n"
        f"A's reply came from {reply.sender}"
    )


def _seen_as_proved(talk: Talk, kind: str, canary: str) -> Seen:
    """What B's handler saw of a message is what A is; nothing of it was A's own claim."""
    seen = [one for one in talk.handler.seen if one.to == HANDLER and one.kind == kind]
    _hold(len(seen) == 1, f"B saw {len(seen)} messages of the kind {kind}")
    (one,) = seen
    _hold(one.body == {"canary": canary}, "B saw another body")
    agent = talk.asker.agent
    _hold(one.sender == agent.uri == ASKER, f"B saw the sender {one.sender}")
    _hold(one.sender_identifier == agent.identifier, "B saw another identifier than A's")
    _hold(one.attributes == agent.attributes == ASKER_ATTRIBUTES, "B saw other attributes")
    return one


def _mcp_list(evidence: Evidence) -> tuple[float, str]:
    report = _reached(evidence.assistant)
    _hold(report.without_token == 401, f"without the token: HTTP {report.without_token}")
    _hold(report.server is not None and report.server.startswith("mcp-time "), "another server")
    tools = report.list.tools
    _hold(tools == ["get_current_time"], f"the tools listed are {', '.join(tools) or 'none'}")
    return report.list.seconds, (
        f"the official client, revision {report.revision}, found {report.server}\n"
        f"offered: {', '.join(tools)}; what policy denies is not even listed\n"
        "the time includes the start of the server\n"
        f"without its bearer token: HTTP {report.without_token}"
    )


def _mcp_call(evidence: Evidence) -> tuple[float, str]:
    report = _reached(evidence.assistant)
    answer = report.call.answer
    _hold(isinstance(answer, dict), "get_current_time gave no answer")
    _hold(answer.get("timezone") == "Europe/Berlin", "the answer is for another time zone")
    moment = answer.get("datetime")
    _hold(isinstance(moment, str), "the answer has no time")
    echoed = evidence.canaries["mcp-call"] in report.call.echo
    _hold(echoed, "the server did not quote the time zone that it was asked for")
    return report.call.seconds, (
        f"get_current_time answered {moment}\n"
        "by mcp-server-time on stdio beside sidecar b, confined\n"
        "it also complained of a made-up time zone, quoting it"
    )


def _deny_sender(evidence: Evidence) -> tuple[float, str]:
    talk = _reached(evidence.talk)
    seconds, refusal = _refused(talk, "deny-sender", SENDER_RULE)
    _hold(not _bodies_with(talk, evidence.canaries["deny-sender"]), "B saw it all the same")
    return seconds, f"A's own sidecar: {refusal}"


def _deny_receiver(evidence: Evidence) -> tuple[float, str]:
    talk = _reached(evidence.talk)
    seconds, refusal = _refused(talk, "deny-receiver", RECEIVER_RULE)
    note = _attempt(talk.asker, "deny-receiver, a tell")
    _hold(note.refusal is None, "the tell, which is allowed, was refused too")
    seen = _bodies_with(talk, evidence.canaries["deny-receiver"])
    as_wished = [one.kind for one in seen] == ["tell"] and seen[0].to == LEDGER
    _hold(as_wished, "the ledger saw something else than the one tell that it takes")
    return seconds, f"B's sidecar: {refusal}\nthe ask did not reach its handler; a tell did"


def _refused(talk: Talk, step: str, rule: str) -> tuple[float, str]:
    attempt = _attempt(talk.asker, step)
    refusal = attempt.refusal
    _hold(refusal is not None, "it was not refused")
    assert refusal is not None
    _hold(refusal.kind == "PolicyDenied", f"it failed otherwise: {refusal.code} {refusal.reason}")
    _hold(refusal.rule == rule, f"another rule refused it: {refusal.rule}")
    return attempt.seconds, _say_refusal(rule, refusal.reason)


def _deny_tool(evidence: Evidence) -> tuple[float, str]:
    refused = _reached(evidence.assistant).refused
    error = refused.error
    _hold(error is not None, "convert_time was answered")
    assert error is not None
    _hold(isinstance(error.data, dict), f"it failed otherwise: {error.message}")
    _hold(error.data.get("rule") == TOOL_RULE, f"it failed otherwise: {error.message}")
    said = _say_refusal(TOOL_RULE, str(error.data.get("reason")))
    return refused.seconds, f"B's sidecar, for convert_time: {said}"


def _say_refusal(rule: str, reason: str) -> str:
    return f"rule “{rule}”\n  {reason}"


def _sealed(evidence: Evidence) -> tuple[float, str]:
    search = _reached(evidence.search)
    _hold(len(search.tapped.frames) > 0, "the tap saw no frame")
    _hold(search.tapped.stream_bytes > 0, "the tap saw no stream")
    _hold(not search.found, f"the gateway could read: {', '.join(sorted(search.found))}")
    _hold(not search.elsewhere, f"a canary is in {', '.join(search.elsewhere)}")
    control = _reached(evidence.control)
    missed = SAID_IN_CONTROL - control.found
    _hold(not missed, f"without a seal the tap missed: {', '.join(sorted(missed))}")
    return search.seconds, (
        f"the gateway relayed {len(search.tapped.frames)} frames and "
        f"{search.tapped.stream_bytes} bytes of streams\n"
        f"in them is none of {len(evidence.canaries)} canaries, no ticket's code, no MCP token; "
        "nor in gateway's or authority's state and logs\n"
        f"control without a seal: found {', '.join(sorted(control.found))} "
        f"in {len(control.tapped.frames)} frames"
    )


def _metrics(evidence: Evidence) -> tuple[float, str]:
    texts = _reached(evidence.metrics)
    lines = []
    values: dict[str, float] = {}
    for label in LABELS:
        for sample in METRICS_SHOWN[label]:
            value = sample_value(texts.get(label, ""), sample)
            _hold(value is not None, f"{label} has no {sample}")
            assert value is not None
            values[sample] = value
            lines.append(f"{label:<9}  {sample} {value:g}")
    _hold(all(value > 0 for value in values.values()), f"a counter is zero: {values}")
    # Read before the mesh stopped, so the tap may have seen more; less would be a leak in it.
    tapped = _reached(evidence.search).tapped
    for sample, seen in (
        ("sidelink_relayed_frames_total", len(tapped.frames)),
        ("sidelink_relayed_stream_bytes_total", tapped.stream_bytes),
    ):
        _hold(values[sample] <= seen, f"{sample} is {values[sample]:g}, but the tap saw {seen}")
    return evidence.metrics_seconds, "\n".join(lines)


def sample_value(text: str, sample: str) -> float | None:
    """One sample of an exposition, by its name and labels as they are written there."""
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name == sample:
            return float(value)
    return None


def short(identifier: str) -> str:
    """Enough of an identifier for a person to compare two by eye."""
    return f"{identifier[:11]}…{identifier[-4:]}"


def _attempt(report: AskerReport, step: str) -> Attempt:
    attempt = report.steps.get(step)
    if attempt is None:
        raise DemoError("A did not try it")
    return attempt


def _bodies_with(talk: Talk, canary: str) -> list[Seen]:
    return [one for one in talk.handler.seen if one.body == {"canary": canary}]


def _reached(found: ValueT | DemoError) -> ValueT:
    if isinstance(found, DemoError):
        raise found
    return found


def _hold(condition: bool, otherwise: str) -> None:
    if not condition:
        raise DemoError(otherwise)


_PROOFS: Final[Mapping[str, _Proof]] = {
    "enrol": _enrol,
    "tell": _tell,
    "ask": _ask,
    "mcp-list": _mcp_list,
    "mcp-call": _mcp_call,
    "deny-sender": _deny_sender,
    "deny-receiver": _deny_receiver,
    "deny-tool": _deny_tool,
    "sealed": _sealed,
    "metrics": _metrics,
}
