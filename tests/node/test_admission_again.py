"""What was let in is asked about again under another policy: once, with a line for each no."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from identity import AgentUri, Code, NamePrefix, VerifiedPeer
from node.admission import CUTS_LOGGED_BURST, Admission
from node.audit import AuditLog
from node.clocks import ManualClock
from node.metrics import Metrics
from policy import STARTER_POLICY, Denial, Permit, PolicyEngine
from tests.node import audit_logs
from tests.node.test_parts import OWN, peer

ALPHA = peer("node", "agent://acme/alpha", "acme")
NEVER = PolicyEngine.load(
    STARTER_POLICY.replace(
        "rules:\n",
        "rules:\n  - name: never\n    effect: deny\n"
        "    actions: [hop.admit, route.register, link.relay]\n",
        1,
    ),
    file="policy.yaml",
)


class FakeHop:
    """What admission sees of a hop."""

    purpose = "admit"

    def __init__(self, who: VerifiedPeer = ALPHA) -> None:
        self.peer = who
        self.accepted: Permit | None = None
        self.closed: Code | None = None

    def accept(self, permit: Permit) -> None:
        self.accepted = permit

    def close(self, code: Code) -> None:
        self.closed = code


class Gate:
    """An admission whose policy can be replaced."""

    def __init__(self, path: Path, audit: AuditLog, clock: ManualClock) -> None:
        self.engine = PolicyEngine.load(STARTER_POLICY, file="policy.yaml")
        self.metrics = Metrics("gateway", "0")
        self.clock = clock
        self._audit = audit
        self._path = path
        self.admission = Admission(
            engine=lambda: self.engine,
            own=lambda: OWN,
            clock=clock,
            trust=SimpleNamespace(verifier=SimpleNamespace(recheck=lambda *_: None)),  # type: ignore[arg-type]
            audit=audit,
            metrics=self.metrics,
        )

    def hop(self) -> Any:
        hop = FakeHop()
        self.admission.answer_hop(hop)  # type: ignore[arg-type]
        return hop

    def lines(self) -> list[dict[str, Any]]:
        self._audit.flush()
        return audit_logs.decisions_of(self._path)

    def asked(self, what: str, effect: str) -> float | None:
        return self.metrics.value("policy_asked_again_total", what=what, effect=effect)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    path, clock = tmp_path / "audit.jsonl", ManualClock()
    with closing(AuditLog(path, clock, lambda: audit_logs.OWN)) as audit:
        yield Gate(path, audit, clock)


def test_a_hop_is_not_asked_about_while_the_policy_is_the_same(gate: Gate) -> None:
    hop = gate.hop()
    for _ in range(3):
        gate.admission.close_hop_if_cut(hop)

    assert hop.accepted is not None
    assert hop.closed is None
    assert gate.asked("hop", "allow") is None
    assert [line["action"] for line in gate.lines()] == ["hop.admit"]


def test_a_hop_is_asked_about_once_by_another_policy_and_a_yes_leaves_no_line(gate: Gate) -> None:
    hop = gate.hop()
    gate.engine = PolicyEngine.load(STARTER_POLICY + "\n# the same\n", file="policy.yaml")
    for _ in range(3):
        gate.admission.close_hop_if_cut(hop)

    assert hop.closed is None
    assert gate.asked("hop", "allow") == 1
    assert [line["action"] for line in gate.lines()] == ["hop.admit"]


def test_a_hop_that_is_denied_now_is_closed_with_a_line_and_a_count(gate: Gate) -> None:
    hop = gate.hop()
    gate.engine = NEVER
    for _ in range(3):
        gate.admission.close_hop_if_cut(hop)
    (line,) = [line for line in gate.lines() if line["effect"] == "cut"]

    assert hop.closed is Code.HOP_DENIED
    assert (line["action"], line["rule"]) == ("hop.cut", "never")
    assert line["policy_version"] == NEVER.version
    assert line["subject"] == "agent://acme/alpha"
    assert line["reason"].startswith("policy.denied: ")
    assert gate.metrics.value("cuts_total", what="hop", code="policy.denied") == 1
    assert gate.asked("hop", "deny") == 1


def test_a_hop_that_was_let_in_while_the_policy_was_replaced_is_asked_about_too(
    gate: Gate,
) -> None:
    """It was decided before, and opens after everybody else was asked."""
    hop = gate.hop()
    gate.engine = NEVER
    gate.admission.close_hop_if_denied(hop)

    assert hop.closed is Code.HOP_DENIED


@pytest.mark.parametrize("what", ["registration", "link"])
def test_what_goes_over_a_hop_is_asked_about_in_the_same_words(what: str, gate: Gate) -> None:
    prefix, name = NamePrefix.parse("agent://acme/alpha"), AgentUri.parse("agent://acme/beta/bob")

    def ask() -> Permit | Denial:
        if what == "link":
            return gate.admission.relay_again(ALPHA, name)
        return gate.admission.register_again(ALPHA, prefix)

    before = ask()
    gate.engine = NEVER
    after = ask()

    assert isinstance(before, Permit)
    assert isinstance(after, Denial)
    assert [line["action"] for line in gate.lines()] == [f"{what}.cut"]


def test_what_is_asked_again_spends_no_limit(gate: Gate) -> None:
    once = STARTER_POLICY.replace(
        "rules:\n",
        "rules:\n  - name: once\n    effect: allow\n    actions: [link.relay]\n"
        '    limit: {rate: 1/h, burst: 1}\n    to: {name: "agent://globex/**"}\n',
        1,
    )
    gate.engine = PolicyEngine.load(once, file="policy.yaml")
    abroad = AgentUri.parse("agent://globex/bob")
    first = gate.admission.decide_relay(ALPHA, abroad)
    again = [gate.admission.relay_again(ALPHA, abroad) for _ in range(3)]
    second = gate.admission.decide_relay(ALPHA, abroad)

    assert isinstance(first, Permit)
    assert all(isinstance(answer, Permit) for answer in again)
    assert isinstance(second, Denial)
    assert second.code is Code.POLICY_LIMITED


def test_thousands_of_cuts_have_a_line_each_in_the_audit_log_and_few_in_the_programs(
    gate: Gate,
) -> None:
    hops = [gate.hop() for _ in range(CUTS_LOGGED_BURST + 40)]
    gate.engine = NEVER
    with capture_logs() as logged:
        for hop in hops:
            gate.admission.close_hop_if_cut(hop)
        gate.clock.advance(10)
        gate.engine = PolicyEngine.load(STARTER_POLICY, file="policy.yaml")
        late = gate.hop()
        gate.engine = NEVER
        gate.admission.close_hop_if_cut(late)
    cuts = [line for line in gate.lines() if line["effect"] == "cut"]

    assert len(cuts) == len(hops) + 1
    assert [line["event"] for line in logged] == ["cut"] * (CUTS_LOGGED_BURST + 1)
    assert (logged[0]["unlogged"], logged[-1]["unlogged"]) == (0, 40)
