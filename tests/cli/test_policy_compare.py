"""`sidelink policy explain`, `diff` and `replay`: why, and what another policy would change."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from node.audit_entry import entry_of
from node.state_folder import StatePaths
from policy import PolicyEngine
from tests.node.audit_logs import NOW, open_log
from tests.policy.helpers import HEADER, agent, ask, call

INTERN = agent("agent://acme/people/intern", role="intern", clearance=0)
POLICY = f"""{HEADER}
rules:
  - name: planners ask billing
    effect: allow
    actions: [message.ask]
    from: {{role: planner}}
    to: {{name: "agent://acme/billing/*"}}
    when: subject.clearance >= 2
  - {{name: interns are not served, effect: deny, actions: [message.ask], from: {{role: intern}}}}
  - name: a week at most
    effect: allow
    actions: [mcp.call]
    to: {{service: weather}}
    when: args.days <= 7
tests:
  - name: a planner asks
    action: message.ask
    from: {{name: "agent://acme/finance/planner", role: planner, clearance: 2}}
    to: {{name: "agent://acme/billing/main"}}
    expect: allow
"""
NARROWER = POLICY.replace("clearance >= 2", "clearance >= 3")
REQUESTS = (ask(), ask(), ask(INTERN), call(args={"days": 3}), call(args={"days": 30}))


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StatePaths:
    """A sidecar's folder, with a policy and what it has decided."""
    monkeypatch.setenv("SIDELINK_STATE", str(tmp_path))
    paths = StatePaths(tmp_path / "sidecar")
    paths.folder.mkdir(mode=0o700)
    paths.policy.write_text(POLICY)
    (tmp_path / "narrower.yaml").write_text(NARROWER)
    engine = PolicyEngine.load(POLICY, file="policy.yaml")
    log = open_log(paths.audit)
    for request in REQUESTS:
        log.record(entry_of(request, engine.decide(request, NOW)))
    log.close()
    return paths


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["policy", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(said(capsys, *arguments, "--json")[1])


def ids_of(state: StatePaths) -> list[str]:
    lines = [json.loads(line) for line in state.audit.read_bytes().splitlines()]
    return [line["decision_id"] for line in lines if line["effect"] != "log"]


PLANS = ("--from", "name=agent://acme/finance/planner", "--from", "role=planner")
BILLS = ("--to", "name=agent://acme/billing/main")


def test_a_request_that_nobody_made_is_explained_clause_by_clause(
    state: StatePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--action", "message.ask", *PLANS, "--from", "clearance=1", *BILLS)

    code, out, _ = said(capsys, "explain", *asked)
    found = document(capsys, "explain", *asked)

    assert code == 1
    assert out.splitlines()[0].startswith(
        "deny: message.ask from agent://acme/finance/planner to agent://acme/billing/main "
        "(policy.no_rule)."
    )
    nearest = found["rules"][0]
    assert (nearest["name"], nearest["applies"]) == ("planners ask billing", False)
    assert [(one["clause"], one["outcome"]) for one in nearest["clauses"]] == [
        ("from.role", "met"),
        ("to.name", "met"),
        ("when", "not met"),
    ]
    assert nearest["clauses"][2]["expected"] == "subject.clearance >= 2"
    assert "1" in nearest["clauses"][2]["found"]


def test_a_request_that_is_allowed_exits_with_0(
    state: StatePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said(
        capsys, "explain", "--action", "message.ask", *PLANS, "--from", "clearance=2", *BILLS
    )

    assert code == 0
    assert 'by the rule "planners ask billing"' in out


def test_every_option_of_a_request_reaches_policy(
    state: StatePaths, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "every.yaml"
    path.write_text(
        f"{HEADER}rules:\n"
        "  - {name: tools, effect: allow, actions: [mcp.call], to: {service: weather}, "
        "tools: ['get_*'], when: args.days == 3 && now > timestamp('2030-01-01T00:00:00Z')}\n"
        "  - {name: sizes, effect: allow, actions: [message.tell], when: message.size == 7}\n"
        "  - {name: routes, effect: allow, actions: [route.register], "
        "to: {name: 'agent://acme/a/**'}}\n"
    )
    tool = ("--to", "service=weather", "--tool", "get_x", "--arg", "days=3")
    when = ("--at", "2031-01-01T00:00:00Z")
    asked = {
        ("--action", "mcp.call", *tool, *when): 0,
        ("--action", "mcp.call", *tool, "--at", "2029-01-01T00:00:00Z"): 1,
        ("--action", "mcp.call", *tool): 1,
        ("--action", "message.tell", "--size", "7"): 0,
        ("--action", "message.tell", "--size", "0"): 1,
        ("--action", "route.register", "--prefix", "agent://acme/a/b"): 0,
    }

    codes = {one: said(capsys, "explain", "--policy", str(path), *one)[0] for one in asked}

    assert codes == asked


def test_a_past_decision_is_explained_by_its_id(
    state: StatePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, denied, *_ = ids_of(state)

    code, out, _ = said(capsys, "explain", denied)
    found = document(capsys, "explain", denied)

    assert code == 1
    assert out.startswith(
        'at 2027-01-15T08:00:00.000Z: deny by the rule "interns are not served", policy '
    )
    assert found["recorded"]["code"] == "policy.denied"
    assert found["rules"][0]["name"] == "interns are not served"
    assert found["rules"][0]["clauses"] == [
        {"clause": "from.role", "outcome": "met", "expected": "intern", "found": "intern"}
    ]


def test_a_policy_that_is_another_now_says_so(
    state: StatePaths, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    allowed = ids_of(state)[0]

    same, before, _ = said(capsys, "explain", allowed)
    code, out, _ = said(capsys, "explain", allowed, "--policy", str(tmp_path / "narrower.yaml"))

    assert (same, code) == (0, 1)
    assert "the policy of now" not in before
    assert "the policy of now" in out


WRONG = {
    "neither an id nor a request": ((), "or a request with --action"),
    "both": (("x", "--action", "hop.admit"), "not both"),
    "an id that no line has": (("nobody",), "no line has the decision id nobody"),
    "an action that does not exist": (("--action", "message.aks"), "Did you mean"),
    "a key that is not declared": (
        ("--action", "message.ask", "--from", "rol=x"),
        'unknown key "rol" in from',
    ),
    "a value of another type": (
        ("--action", "message.ask", "--from", "clearance=high"),
        "clearance is declared as int",
    ),
    "no pair": (("--action", "message.ask", "--from", "role"), "is not name=value"),
    "a log that is not there": (("x", "--audit", "absent.jsonl"), "there is no such file"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_explained_says_why(
    what: str, state: StatePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, text = WRONG[what]

    code, _, talk = said(capsys, "explain", *arguments)

    assert code == 2
    assert text in talk


def test_what_was_cut_is_no_question(state: StatePaths, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.node.audit_logs import entry

    log = open_log(state.audit)
    log.record(entry(decision_id="c1", action="hop.cut", effect="cut"))
    log.close()

    code, _, talk = said(capsys, "explain", "c1")

    assert code == 2
    assert "holds no question to policy, but hop.cut" in talk


def test_a_candidate_is_held_against_what_was_recorded(
    state: StatePaths, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    replayed = ("replay", str(tmp_path / "narrower.yaml"), "--audit", str(state.audit))

    code, out, talk = said(capsys, *replayed)
    found = document(capsys, *replayed)

    (change,) = found["changes"]
    assert code == 1
    assert (change["count"], change["was"], change["now"]) == (2, "allow", "deny")
    assert (change["was_rule"], change["now_rule"]) == ("planners ask billing", None)
    assert change["first"] == ids_of(state)[0]
    # Of two calls the log does not hold the arguments on which the answer hangs.
    assert (found["compared"], found["changed"], found["unknown"]) == (5, 2, 2)
    assert "agent://acme/billing/main" in out
    assert talk == (
        "sidelink: 5 decisions compared, 2 change; "
        "2 hang on arguments that were not recorded, 0 lines hold no question\n"
    )


def test_a_candidate_for_the_trust_domain_is_held_against_it_above_the_nodes_own(
    state: StatePaths, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wide = tmp_path / "wide.yaml"
    wide.write_text(HEADER + "rules:\n  - {name: asks, effect: allow, actions: [message.ask]}\n")
    log = ("--audit", str(state.audit))

    alone = document(capsys, "replay", str(wide), *log)
    above = document(capsys, "replay", str(wide), *log, "--above", str(state.policy))

    # By itself it would allow an ask that the node's own policy denies.
    assert {("deny", "allow")} <= {(one["was"], one["now"]) for one in alone["changes"]}
    assert ("deny", "allow") not in {(one["was"], one["now"]) for one in above["changes"]}
    assert above["changed"] > 0, "what it does not allow: calls"


def test_the_policy_that_decided_changes_nothing(
    state: StatePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said(capsys, "replay", str(state.policy), "--audit", str(state.audit))

    assert (code, out) == (0, "")


def test_two_policies_are_compared_by_their_tests_and_by_a_log(
    state: StatePaths, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pair = ("diff", str(state.policy), str(tmp_path / "narrower.yaml"))

    by_tests = document(capsys, *pair)
    by_both = document(capsys, *pair, "--audit", str(state.audit))

    assert [(one["first"], one["now"]) for one in by_tests["changes"]] == [
        ("the test 'a planner asks'", "deny")
    ]
    # The test and the two decisions ask the same.
    assert [one["count"] for one in by_both["changes"]] == [3]
    assert said(capsys, "diff", str(state.policy), str(state.policy))[0] == 0


def test_the_same_answer_by_another_rule_is_shown_and_is_no_change(
    state: StatePaths, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    renamed = tmp_path / "renamed.yaml"
    renamed.write_text(POLICY.replace("planners ask billing", "planners"))

    code, out, _ = said(capsys, "diff", str(state.policy), str(renamed))

    assert code == 0
    assert "planners ask billing" in out


def test_lines_that_somebody_made_up_are_skipped(
    state: StatePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    party = '{"kind":"agent","name":"no name"}'
    made_up = [
        f'"request":{{"subject":{party},"object":{party}}}',
        '"request":{"subject":{"kind":"agent","identifier":"sl1"},"object":{"kind":"agent"}}',
        '"request":null',
    ]
    with state.audit.open("a") as file:
        for seq, what in enumerate(made_up, 100):
            file.write(
                f'{{"seq":{seq},"prev":"","time":"9999-99","action":"message.ask",'
                f'"effect":"allow",{what}}}\n'
            )

    found = document(capsys, "replay", str(state.policy), "--audit", str(state.audit))

    assert (found["compared"], found["skipped"], found["changed"]) == (5, 3, 0)
