"""``sidelink policy diff`` and ``replay``: what another policy would change."""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import json_option

if TYPE_CHECKING:
    from node.audit_reader import Line
    from node.policy_replay import Change, ChangeKey, Comparison

_audit_help = "The newest file of an audit log; those rotated are found beside it."


@click.command("diff")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--audit", type=click.Path(path_type=Path), help=_audit_help)
@json_option
def policy_diff(old: Path, new: Path, audit: Path | None, as_json: bool) -> int:
    """Say which decisions change from OLD to NEW: of the tests of both, and of an audit log.

    OLD and NEW are files, or folders of files that are one policy. Exits with 1 when an answer
    changes.
    """
    from node.policy_files import read_policy
    from node.policy_replay import compare, questions_of_tests, recorded

    before, after = read_policy(old), read_policy(new)
    skipped = 0

    def questions() -> Iterator[Any]:
        nonlocal skipped
        for line in () if audit is None else _lines(audit):
            found = recorded(line)
            if found is None:
                skipped += 1
            else:
                yield found[0]

    comparison = compare(before, after, chain(questions_of_tests(before, after), questions()))
    comparison.skipped = skipped
    return _show(comparison, {"old": before.version, "new": after.version}, as_json=as_json)


@click.command("replay")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--audit", type=click.Path(path_type=Path), required=True, help=_audit_help)
@click.option(
    "--above",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A node's own policy: BUNDLE is then one that the trust domain obeys above it.",
)
@json_option
def policy_replay(bundle: Path, audit: Path, above: Path | None, as_json: bool) -> int:
    """Ask the policy in BUNDLE all that an audit log records, and say which answers would differ.

    Exits with 1 when one does. What hangs on arguments that the log does not hold is counted apart.
    """
    from node.policy_files import read_policy
    from node.policy_replay import replay
    from policy import Engine, LayeredEngine

    candidate = read_policy(bundle)
    engine: Engine = candidate if above is None else LayeredEngine(candidate, read_policy(above))
    comparison = replay(engine, _lines(audit))
    return _show(comparison, {"version": engine.version}, as_json=as_json)


def _lines(audit: Path) -> Iterator["Line"]:
    from node.audit_chain import EFFECT
    from node.audit_reader import decode_line_untrusted, read_log

    for raw in read_log(audit):
        line = decode_line_untrusted(raw.data)
        if line is not None and line.effect != EFFECT:
            yield line


def _show(comparison: "Comparison", versions: Mapping[str, str], *, as_json: bool) -> int:
    from cli.output import print_json, print_table

    counts = {
        "compared": comparison.compared,
        "changed": comparison.changed,
        "unknown": comparison.unknown,
        "skipped": comparison.skipped,
        "not_listed": comparison.not_listed,
    }
    if as_json:
        changes = [_fields(*item) for item in comparison.changes.items()]
        others = [_fields(*item) for item in comparison.other_rules.items()]
        print_json({**versions, **counts, "changes": changes, "other_rules": others})
    else:
        rows = [_cells(*item) for item in comparison.changes.items()]
        rows += [_cells(*item) for item in comparison.other_rules.items()]
        headings = ("COUNT", "WAS", "NOW", "ACTION", "SUBJECT", "OBJECT", "WAS BY", "NOW BY")
        if rows:
            print_table((*headings, "FIRST", "REASON"), rows)
    click.echo(
        f"sidelink: {comparison.compared} decisions compared, {comparison.changed} change; "
        f"{comparison.unknown} hang on arguments that were not recorded, "
        f"{comparison.skipped} lines hold no question",
        err=True,
    )
    return 1 if comparison.changed else 0


def _fields(key: "ChangeKey", change: "Change") -> dict[str, Any]:
    return {
        "count": change.count,
        "action": key.action,
        "subject": key.subject,
        "object": key.object,
        "was": key.was,
        "was_rule": key.was_rule,
        "now": key.now,
        "now_rule": key.now_rule,
        "first": change.where,
        "reason": change.reason,
    }


def _cells(key: "ChangeKey", change: "Change") -> tuple[object, ...]:
    return (
        change.count,
        key.was,
        key.now,
        key.action,
        key.subject,
        key.object,
        key.was_rule,
        key.now_rule,
        change.where,
        change.reason,
    )
