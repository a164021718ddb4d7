"""``sidelink policy test``: tests in a policy, rules that none exercises, reports."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import click

from cli.options import json_option

if TYPE_CHECKING:
    from policy import PolicyEngine, PolicyTestOutcome


@click.command("test")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Exit with 1 also when a rule decides no test.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write a JUnit report there.")
@json_option
def policy_test(path: Path, strict: bool, junit: Path | None, as_json: bool) -> int:
    """Run the tests of the policy in PATH, and list the rules that decide none of them.

    PATH is a file, or a folder of files that are one policy. Exits with 0 when all is well, 1 when
    a test fails, 2 when PATH is no policy.
    """
    from cli.output import print_json, print_table
    from node.policy_files import read_policy

    engine = read_policy(path)
    outcomes = engine.run_tests()
    idle = rules_not_exercised(engine, outcomes)
    failed = sum(not outcome.passed for outcome in outcomes)
    if junit is not None:
        junit.write_bytes(junit_report(str(path), outcomes, idle))
    if as_json:
        print_json(
            {
                "path": str(path),
                "version": engine.version,
                "unready": engine.unready,
                "tests": [outcome_fields(outcome) for outcome in outcomes],
                "failed": failed,
                "rules": len(own_rules(engine)),
                "rules_not_exercised": list(idle),
            }
        )
    else:
        print_outcomes(outcomes)
        if idle:
            print_table(("RULE THAT DECIDES NO TEST",), ((name,) for name in idle))
    if engine.unready is not None:
        click.echo(f"sidelink: {path}: {engine.unready}", err=True)
    click.echo(
        f"sidelink: {path}: {len(outcomes)} tests, {failed} failed; "
        f"{len(own_rules(engine)) - len(idle)} of {len(own_rules(engine))} rules decide one",
        err=True,
    )
    return 1 if failed or (strict and idle) else 0


def own_rules(engine: "PolicyEngine") -> tuple[str, ...]:
    """Without those that are built in."""
    from policy.bundles import BASELINE_PREFIX

    return tuple(name for name in engine.rule_names if not name.startswith(BASELINE_PREFIX))


def rules_not_exercised(
    engine: "PolicyEngine", outcomes: Sequence["PolicyTestOutcome"]
) -> tuple[str, ...]:
    """Rules that no test was decided by: they could be removed, and every test would pass.

    A rule in audit mode decides nothing; it is exercised by a test in which it would have.
    """
    deciding = {outcome.rule for outcome in outcomes}
    deciding.update(*(outcome.audited for outcome in outcomes))
    return tuple(name for name in own_rules(engine) if name not in deciding)


def outcome_fields(outcome: "PolicyTestOutcome") -> dict[str, Any]:
    return {
        "name": outcome.name,
        "file": outcome.file,
        "line": outcome.line,
        "passed": outcome.passed,
        "expected": outcome.expected,
        "decided": outcome.decided,
        "rule": outcome.rule,
        "reason": outcome.reason,
    }


def print_outcomes(outcomes: Sequence["PolicyTestOutcome"]) -> None:
    from cli.output import print_table

    if not outcomes:
        return
    print_table(
        ("RESULT", "LINE", "TEST", "EXPECTED", "DECIDED", "RULE", "REASON"),
        (
            (
                "passed" if outcome.passed else "FAILED",
                outcome.line,
                outcome.name,
                outcome.expected,
                outcome.decided,
                outcome.rule,
                outcome.reason,
            )
            for outcome in outcomes
        ),
    )


def junit_report(suite: str, outcomes: Sequence["PolicyTestOutcome"], idle: Sequence[str]) -> bytes:
    """One test suite, as CI servers read it; rules that decide no test stand in ``system-out``."""
    from node.errors import printable

    failed = sum(not outcome.passed for outcome in outcomes)
    counts = {"tests": str(len(outcomes)), "failures": str(failed), "errors": "0"}
    root = ElementTree.Element("testsuites", counts)
    listed = ElementTree.SubElement(root, "testsuite", {"name": printable(suite), **counts})
    for outcome in outcomes:
        # XML has no way to write some characters that a name or a value may hold.
        about = {
            "classname": printable(outcome.file),
            "name": printable(outcome.name),
            "file": printable(outcome.file),
            "line": str(outcome.line),
        }
        case = ElementTree.SubElement(listed, "testcase", about)
        if not outcome.passed:
            told = f"expected {outcome.expected}, decided {outcome.decided}: {outcome.reason}"
            ElementTree.SubElement(case, "failure", {"message": printable(told)})
    if idle:
        talk = ElementTree.SubElement(listed, "system-out")
        talk.text = "rules that decide no test: " + ", ".join(map(printable, idle))
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written
