"""`sidelink policy`: tests with coverage and reports, the schema."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cli.main import main
from tests.policy.helpers import HEADER

POLICY = f"""{HEADER}
rules:
  - {{name: asks, effect: allow, actions: [message.ask], from: {{role: planner}}}}
  - {{name: quarantine, effect: deny, actions: [message.ask], from: {{role: quarantined}}}}
  - {{name: forgotten, effect: allow, actions: [path.direct]}}
tests:
  - {{name: a planner asks, action: message.ask, from: {{role: planner}}, expect: allow}}
  - {{name: "one in <quarantine>", action: message.ask, from: {{role: quarantined}}, expect: deny,
     rule: quarantine}}
"""
FAILING = POLICY + '  - {name: "\\a", action: message.ask, expect: allow}\n'


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["policy", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    return str(path)


def test_rules_that_no_test_exercises_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, POLICY)

    code, out, talk = said(capsys, "test", path)
    as_json, document, _ = said(capsys, "test", path, "--json")

    assert (code, as_json) == (0, 0)
    assert out.splitlines()[-2:] == ["RULE THAT DECIDES NO TEST", "forgotten"]
    assert talk == f"sidelink: {path}: 2 tests, 0 failed; 2 of 3 rules decide one\n"
    assert json.loads(document)["rules_not_exercised"] == ["forgotten"]
    assert json.loads(document)["tests"][0] == {
        "name": "a planner asks",
        "file": path,
        "line": 11,
        "passed": True,
        "expected": "allow",
        "decided": "allow",
        "rule": "asks",
        "reason": "",
    }


def test_a_rule_in_audit_mode_is_exercised_where_it_would_have_decided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audited = POLICY.replace("name: quarantine, effect", "name: quarantine, mode: audit, effect")
    tests = audited.replace("expect: deny,\n     rule: quarantine", "expect: deny")

    _, document, _ = said(capsys, "test", written(tmp_path, tests), "--json")

    assert json.loads(document)["rules_not_exercised"] == ["forgotten"]


def test_strict_fails_for_a_rule_without_a_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = POLICY.replace(", actions: [path.direct]}", ", actions: [hop.admit]}") + (
        "  - {name: one, action: hop.admit, expect: allow, rule: forgotten}\n"
    )

    lacking, _, _ = said(capsys, "test", written(tmp_path, POLICY), "--strict")
    covered, _, _ = said(capsys, "test", written(tmp_path, whole), "--strict")

    assert (lacking, covered) == (1, 0)


def test_a_junit_report_says_what_failed_and_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "junit.xml"

    code, _, _ = said(capsys, "test", written(tmp_path, FAILING), "--junit", str(report))

    root = ElementTree.parse(report).getroot()
    cases = list(root.iter("testcase"))
    assert code == 1
    assert (root.get("tests"), root.get("failures")) == ("3", "1")
    # A bell is no character of XML.
    assert [case.get("name") for case in cases] == [
        "a planner asks",
        "one in <quarantine>",
        "\N{REPLACEMENT CHARACTER}",
    ]
    (failure,) = root.iter("failure")
    assert (failure.get("message") or "").startswith("expected allow, decided deny: message.ask")
    assert cases[2].get("line") == "14"
    assert root.findtext(".//system-out") == "rules that decide no test: forgotten"


def test_a_folder_is_one_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "10-rules.yaml").write_text(POLICY.partition("tests:")[0])
    (tmp_path / "20-tests.yaml").write_text(HEADER + "tests:" + POLICY.partition("tests:")[2])

    code, document, _ = said(capsys, "test", str(tmp_path), "--json")

    tests = json.loads(document)["tests"]
    assert code == 0
    assert [Path(test["file"]).name for test in tests] == ["20-tests.yaml", "20-tests.yaml"]


def test_what_is_no_policy_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "rules: []")

    code, _, talk = said(capsys, "test", path)

    assert code == 2
    assert f"{path}:1:1: the policy lacks the key" in talk


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, document, _ = said(capsys, "schema")

    assert code == 0
    assert json.loads(document)["title"] == "Sidelink policy"
