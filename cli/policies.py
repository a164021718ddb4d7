"""``sidelink policy``: policies, checked before a program uses them."""

from pathlib import Path

import click

from cli.options import json_option


@click.group()
def policy() -> None:
    """Check policies before they are used."""


@policy.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def policy_check(file: Path, as_json: bool) -> int:
    """Read FILE as a program would, and run the tests that it carries.

    Exits with 0 when all is well, 1 when a test fails, 2 when FILE is no policy.
    """
    from cli.output import print_json, print_table
    from node.policy_files import read_policy

    engine = read_policy(file)
    outcomes = engine.run_tests()
    failed = sum(not outcome.passed for outcome in outcomes)
    if as_json:
        tests = [
            {
                "name": outcome.name,
                "line": outcome.line,
                "passed": outcome.passed,
                "expected": outcome.expected,
                "decided": outcome.decided,
                "rule": outcome.rule,
                "reason": outcome.reason,
            }
            for outcome in outcomes
        ]
        print_json(
            {
                "file": str(file),
                "version": engine.version,
                "unready": engine.unready,
                "rules": list(engine.rule_names),
                "tests": tests,
                "failed": failed,
            }
        )
    elif outcomes:
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
    if engine.unready is not None:
        click.echo(f"sidelink: {file}: {engine.unready}", err=True)
    click.echo(f"sidelink: {file}: {len(outcomes)} tests, {failed} failed", err=True)
    return 1 if failed else 0
