"""``sidelink audit``: the audit log, verified, searched and followed."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cli.options import (
    PROGRAM_NAMES,
    FunctionT,
    admin_socket,
    json_option,
    state_base,
    state_option,
)

if TYPE_CHECKING:
    from node.audit_verify import Report

LAST_DEFAULT: Final = 100
LOOK_SECONDS: Final = 0.25


def _log_options(command: FunctionT) -> FunctionT:
    """FILE, or the program whose log it is."""
    command = state_option(command)
    command = click.option(
        "--program",
        type=click.Choice(PROGRAM_NAMES),
        default="sidecar",
        show_default=True,
        help="Whose log, unless a FILE is named.",
    )(command)
    return click.argument("file", required=False, type=click.Path(path_type=Path))(command)


def _filter_options(command: FunctionT) -> FunctionT:
    """The options that make an ``AuditFilter``, as ``audit_filter`` takes them."""
    for option in reversed(
        (
            click.option("--action", metavar="NAME", help="Such as message.ask, or 'mcp.*'."),
            click.option("--effect", type=click.Choice(("allow", "deny", "cut", "log"))),
            click.option("--rule", metavar="NAME", help="The rule that decided, or was in audit."),
            click.option("--agent", metavar="NAME", help="Who asked, or whom it concerned."),
            click.option("--code", metavar="TEXT", help="Such as policy.denied."),
            click.option("--id", "decision_id", metavar="ID", help="One decision."),
            click.option("--since", metavar="TIME", help="2026-11-22T10:00:00Z, or 1h ago."),
            click.option("--until", metavar="TIME", help="The same; lines before it."),
        )
    ):
        command = option(command)
    return command


@click.group()
def audit() -> None:
    """The audit log: what policy decided, verified, searched and followed.

    FILE is the newest file of a log; those that were rotated are found beside it.
    """


@audit.command("verify")
@_log_options
@click.option("--signer", metavar="IDENTIFIER", help="Who must have signed it: sl1…")
@click.option(
    "--expect", metavar="SEQ:SHA256", multiple=True, help="A line that must be in it. Repeatable."
)
@json_option
def audit_verify(
    file: Path | None,
    program: str,
    state: str | None,
    signer: str | None,
    expect: tuple[str, ...],
    as_json: bool,
) -> int:
    """Check every line of a log, its place in the chain, and the signatures.

    Also while the program runs, which is then asked what it wrote last. Exits with 1 when somebody
    touched the log.
    """
    from cli.output import print_json
    from identity import Identifier
    from node.audit_reader import read_log
    from node.audit_verify import Verifier

    known = dict(map(_known_line, expect))
    expected = None if signer is None else Identifier.parse(signer)
    if file is None:
        running = _running(program, state)
        if running is not None:
            expected = expected or running[0]
            known.setdefault(*running[1])
    verifier = Verifier(signer=expected, known=known)
    for raw in read_log(_path(file, program, state)):
        verifier.take(raw)
    report = verifier.finish()
    if as_json:
        print_json(_report_fields(report))
    else:
        _print_report(report)
    return 1 if report.problems else 0


@audit.command("show")
@_log_options
@_filter_options
@click.option("--last", type=click.IntRange(1, 1_000_000), default=LAST_DEFAULT, show_default=True)
@json_option
def audit_show(
    file: Path | None, program: str, state: str | None, last: int, as_json: bool, **wishes: Any
) -> None:
    """Print the last lines that fit. In names, rules and actions * stands for anything."""
    from cli.audit_filter import HEADINGS, cells_of, filter_of
    from cli.output import print_json_array, print_table
    from node.audit_reader import Line, decode_line_untrusted, fields_of, read_log
    from node.clocks import SystemClock

    wanted = filter_of(wishes, SystemClock().unix_s())
    found: deque[tuple[Line, bytes]] = deque(maxlen=last)
    unread = 0
    for raw in read_log(_path(file, program, state)):
        line = decode_line_untrusted(raw.data)
        if line is None:
            unread += 1
        elif wanted.takes(line):
            found.append((line, raw.data))
    if as_json:
        print_json_array("lines", (fields_of(data) for _, data in found))
    elif found:
        print_table(HEADINGS, (cells_of(line) for line, _ in found))
    if unread:
        talk = f"sidelink: {unread} lines are none of an audit log: see `sidelink audit verify`"
        click.echo(talk, err=True)


@audit.command("follow")
@_log_options
@_filter_options
@json_option
def audit_follow(
    file: Path | None, program: str, state: str | None, as_json: bool, **wishes: Any
) -> None:
    """Print lines that fit as they come, until interrupted. With --json, an object a line."""
    from cli.audit_filter import filter_of
    from node.audit_reader import Follower
    from node.clocks import SystemClock

    wanted = filter_of(wishes, SystemClock().unix_s())
    follower = Follower(_path(file, program, state))
    try:
        for text in _follow(follower.look, wanted.takes, as_json=as_json):
            click.echo(text)
    finally:
        follower.close()


def _follow(
    look: Callable[[], list[bytes]], takes: Callable[[Any], bool], *, as_json: bool
) -> Iterator[str]:
    import json

    from cli.audit_filter import cells_of
    from cli.output import CELL_SEPARATOR, cell_text
    from node.audit_reader import decode_line_untrusted, fields_of

    while True:
        lines = look()
        for data in lines:
            line = decode_line_untrusted(data)
            if line is None:
                click.echo("sidelink: a line that is none of an audit log", err=True)
            elif takes(line) and as_json:
                yield json.dumps(fields_of(data))
            elif takes(line):
                yield CELL_SEPARATOR.join(map(cell_text, cells_of(line)))
        if not lines:
            time.sleep(LOOK_SECONDS)


def _path(file: Path | None, program: str, state: str | None) -> Path:
    from node.state_folder import StatePaths

    return file or StatePaths((state_base(state) / program).absolute()).audit


def _running(program: str, state: str | None) -> tuple[Any, tuple[int, str]] | None:
    """Identifier and last line of the program that writes the log now; None while none does."""
    from identity import Identifier, SidelinkError
    from node.admin_client import admin_request

    try:
        answer = admin_request(admin_socket(program, state), "GET", "/v1/status")
        head = answer["audit_head"]
        return Identifier.parse(answer["identifier"]), (int(head["seq"]), str(head["sha256"]))
    except (SidelinkError, KeyError, TypeError, ValueError):
        return None


def _known_line(text: str) -> tuple[int, str]:
    seq, _, sha256 = text.partition(":")
    if not (seq.isascii() and seq.isdecimal()) or len(sha256) != 64:
        raise click.BadParameter(f"{text!r} is not SEQ:SHA256, as `audit verify --json` has them")
    return int(seq), sha256.lower()


def _report_fields(report: "Report") -> dict[str, Any]:
    def listed(findings: Any) -> list[dict[str, Any]]:
        return [
            {"file": one.file, "line": one.line, "seq": one.seq, "text": one.text}
            for one in findings
        ]

    return {
        "lines": report.lines,
        "first_seq": report.first_seq,
        "last_seq": report.last_seq,
        "last_sha256": report.last_sha256,
        "signed_seq": report.signed_seq,
        "unsigned_lines": report.unsigned_lines,
        "signer": report.signer,
        "problems": listed(report.problems),
        "notes": listed(report.notes),
        "not_listed": report.more,
    }


def _print_report(report: "Report") -> None:
    from cli.output import print_table

    rows = [("PROBLEM", one) for one in report.problems] + [("note", one) for one in report.notes]
    if rows:
        print_table(
            ("", "FILE", "LINE", "SEQ", "WHAT"),
            ((kind, one.file, one.line, one.seq, one.text) for kind, one in rows),
        )
    more = f", {report.more} more not listed" if report.more else ""
    click.echo(
        f"sidelink: {report.lines} lines, {len(report.problems)} problems{more}; "
        f"signed by {report.signer or 'nobody'} up to line {report.signed_seq or 0}, "
        f"{report.unsigned_lines} behind it are chained only",
        err=True,
    )
