"""``sidelink policy``: policies checked, tested, explained and compared."""

from pathlib import Path

import click

from cli.options import json_option
from cli.policy_compare import policy_diff, policy_replay
from cli.policy_explain import policy_explain
from cli.policy_publish import (
    policy_forget,
    policy_publish,
    policy_published,
    policy_rollback,
    policy_signers,
    policy_withdraw,
)
from cli.policy_tests import outcome_fields, policy_test, print_outcomes


@click.group()
def policy() -> None:
    """Check, test and compare policies before they are used; explain what they decide; publish
    one that a whole trust domain obeys."""


for command in (
    policy_diff,
    policy_explain,
    policy_forget,
    policy_publish,
    policy_published,
    policy_replay,
    policy_rollback,
    policy_signers,
    policy_test,
    policy_withdraw,
):
    policy.add_command(command)


@policy.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def policy_check(file: Path, as_json: bool) -> int:
    """Read FILE as a program would, and run the tests that it carries.

    FILE may be a folder of files that are one policy. Exits with 0 when all is well, 1 when a test
    fails, 2 when FILE is no policy.
    """
    from cli.output import print_json
    from node.policy_files import read_policy

    engine = read_policy(file)
    outcomes = engine.run_tests()
    failed = sum(not outcome.passed for outcome in outcomes)
    if as_json:
        print_json(
            {
                "file": str(file),
                "version": engine.version,
                "unready": engine.unready,
                "rules": list(engine.rule_names),
                "tests": [outcome_fields(outcome) for outcome in outcomes],
                "failed": failed,
            }
        )
    else:
        print_outcomes(outcomes)
    if engine.unready is not None:
        click.echo(f"sidelink: {file}: {engine.unready}", err=True)
    click.echo(f"sidelink: {file}: {len(outcomes)} tests, {failed} failed", err=True)
    return 1 if failed else 0


@policy.command("schema")
def policy_schema() -> None:
    """Print the JSON Schema of a policy file, with which editors complete and check it."""
    from cli.output import print_json
    from policy.schema import policy_schema as schema

    print_json(schema())
