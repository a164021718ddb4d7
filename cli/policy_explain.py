"""``sidelink policy explain``: why a request is, or was, answered as it is."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import PROGRAM_NAMES, json_option, parse_attributes, state_base, state_option

if TYPE_CHECKING:
    from node.audit_reader import Line
    from policy import Engine, Request, Trace, TracedRule

_ASKED = "the command line"


@click.command("explain")
@click.argument("decision_id", required=False)
@click.option("--action", metavar="NAME", help="What is asked, such as message.ask.")
@click.option("--from", "from_", metavar="KEY=VALUE", multiple=True, help="Who asks. Repeatable.")
@click.option("--to", metavar="KEY=VALUE", multiple=True, help="Whom it concerns. Repeatable.")
@click.option("--size", type=int, help="Bytes of the message.")
@click.option("--tool", metavar="NAME", help="The tool that is called.")
@click.option("--prompt", metavar="NAME", help="The prompt that is asked for.")
@click.option("--resource", metavar="URI", help="The resource that is read.")
@click.option("--arg", metavar="NAME=VALUE", multiple=True, help="Of the call. Repeatable.")
@click.option("--prefix", metavar="NAME", help="Of route.register.")
@click.option("--at", metavar="TIME", help="When, such as 2026-11-22T10:00:00Z. [default: now]")
@click.option("--policy", type=click.Path(path_type=Path), help="[default: the program's own]")
@click.option("--audit", type=click.Path(path_type=Path), help="[default: the program's own]")
@click.option("--program", type=click.Choice(PROGRAM_NAMES), default="sidecar", show_default=True)
@state_option
@json_option
def policy_explain(
    decision_id: str | None,
    policy: Path | None,
    audit: Path | None,
    program: str,
    state: str | None,
    as_json: bool,
    **wishes: Any,
) -> int:
    """Show each rule that was considered, and which of its clauses failed on which value.

    Either for a decision of the audit log, by its id; or for a request that nobody made yet, whose
    options are the keys of a test in a policy: --from name=agent://acme/a --from role=planner.
    Exits with 0 for a request that is allowed, 1 for one that is denied.
    """
    from cli.output import print_json
    from node.state_folder import StatePaths
    from policy import Permit

    paths = StatePaths((state_base(state) / program).absolute())
    engine = _engine(policy, paths)
    line: Line | None = None
    if decision_id is not None:
        if any(wishes.values()):
            raise click.UsageError("give a decision's id or a request, not both")
        line, request, unix_s = _past(audit or paths.audit, decision_id)
    else:
        if wishes["action"] is None:
            raise click.UsageError("name a decision's id, or a request with --action")
        request, unix_s = _question(engine, wishes)
    trace = engine.trace(request, unix_s)
    if as_json:
        print_json(_fields(engine, line, trace))
    else:
        _print(engine, line, request, trace)
    return 0 if isinstance(trace.decision, Permit) else 1


def _engine(policy: Path | None, paths: Any) -> "Engine":
    """The program's own files below the mandatory policy that it obeys; or those of ``policy``."""
    from node.errors import error_text
    from node.mandatory import kept_policies
    from node.mandatory_live import sources_of
    from node.policy_files import read_policy, read_sources
    from policy import LayeredEngine, PolicyEngine, PolicyError

    if policy is not None:
        return read_policy(policy)
    own = PolicyEngine.load_bundle(read_sources(paths))
    upper: PolicyEngine | None = None
    for kept in kept_policies(paths.database):
        if not kept.bundle.files:
            return own
        try:
            upper = PolicyEngine.load_bundle(sources_of(kept.bundle.files))
            break
        except PolicyError as exc:
            # As the program does: the newest that can be read, and where none can, the baseline.
            upper = PolicyEngine.only_baseline()
            why = error_text(exc)
            click.echo(f"sidelink: policy {kept.number} is not obeyed here: {why}", err=True)
    return own if upper is None else LayeredEngine(upper, own)


def _past(audit: Path, decision_id: str) -> tuple["Line", "Request", float]:
    """The newest line of that id. Raises ConfigError when there is none that can be explained."""
    from identity import Code
    from node.audit_reader import decode_line_untrusted, read_log
    from node.errors import ConfigError
    from node.policy_replay import recorded

    wanted = decision_id.encode("utf-8", "replace")
    found: Line | None = None
    for raw in read_log(audit):
        if wanted in raw.data:
            line = decode_line_untrusted(raw.data)
            found = line if line is not None and line.decision_id == decision_id else found
    if found is None:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{audit}: no line has the decision id {decision_id}",
            remedy="It stands in the log of the program that decided; old files are rotated away.",
        )
    past = recorded(found)
    if past is None:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{audit}: the line of {decision_id} holds no question to policy, but {found.action}",
            remedy="Read it with `sidelink audit show --id`.",
        )
    return found, past[0].request, past[0].unix_s


def _question(engine: "Engine", wishes: dict[str, Any]) -> tuple["Request", float]:
    from node.clocks import SystemClock

    fields: dict[str, Any] = {"action": wishes["action"]}
    texts = ("size", "tool", "prompt", "resource", "prefix", "at")
    fields |= {key: wishes[key] for key in texts if wishes[key]}
    if wishes["size"] is not None:
        fields["size"] = wishes["size"]
    for key, given in (("from", "from_"), ("to", "to"), ("args", "arg")):
        if wishes[given]:
            fields[key] = parse_attributes(wishes[given])
    request, unix_s = engine.question(fields, _ASKED)
    return request, unix_s if "at" in fields else SystemClock().unix_s()


def _print(engine: "Engine", line: "Line | None", request: "Request", trace: "Trace") -> None:
    from cli.output import cell_text, print_table

    decision = trace.decision
    if line is not None:
        click.echo(cell_text(_recorded_text(engine, line)))
    click.echo(cell_text(_answer_text(request, decision)))
    for rule in _nearest_first(trace.rules):
        outcome = "applies" if rule.matched else "does not apply"
        head = f"{rule.effect} {rule.name!r}: {outcome}"
        audit = ", in audit mode" if rule.mode == "audit" else ""
        asked = "" if rule.action == request.action else f", asked about {rule.action}"
        click.echo(f"\n{cell_text(f'{head}{audit}{asked} ({rule.file}:{rule.line})')}")
        if rule.clauses:
            print_table(
                ("CLAUSE", "OUTCOME", "EXPECTED", "FOUND"),
                ((one.clause, one.outcome, one.expected, one.found) for one in rule.clauses),
            )
    if not trace.rules:
        click.echo(f"sidelink: no rule speaks of {request.action}", err=True)


def _recorded_text(engine: "Engine", line: "Line") -> str:
    by = "" if line.rule is None else f' by the rule "{line.rule}"'
    why = f": {line.reason}" if line.reason else ""
    text = f"at {line.time}: {line.effect}{by}, policy {line.policy_version}{why}"
    if line.policy_version != engine.version:
        text += f" What follows is what the policy of now, {engine.version}, answers."
    return text


def _answer_text(request: "Request", decision: Any) -> str:
    from policy import Permit

    asked = f"{request.action} from {request.subject} to {request.object}"
    if isinstance(decision, Permit):
        return f'allow: {asked}, by the rule "{decision.rule}"'
    return f"deny: {asked} ({decision.code.text}). {decision.reason}"


def _nearest_first(rules: tuple["TracedRule", ...]) -> list["TracedRule"]:
    def distance(rule: "TracedRule") -> tuple[bool, int, int]:
        met = sum(one.outcome == "met" for one in rule.clauses)
        return not rule.matched, -met, len(rule.clauses) - met

    return sorted(rules, key=distance)


def _fields(engine: "Engine", line: "Line | None", trace: "Trace") -> dict[str, Any]:
    from policy import Permit

    decision = trace.decision
    allowed = isinstance(decision, Permit)
    past = None
    if line is not None:
        past = {
            "decision_id": line.decision_id,
            "time": line.time,
            "effect": line.effect,
            "rule": line.rule,
            "code": line.code,
            "reason": line.reason,
            "policy_version": line.policy_version,
        }
    return {
        "recorded": past,
        "policy_version": engine.version,
        "effect": "allow" if allowed else "deny",
        "rule": decision.rule,
        "code": None if isinstance(decision, Permit) else decision.code.text,
        "reason": "" if isinstance(decision, Permit) else decision.reason,
        "rules": [
            {
                "name": rule.name,
                "file": rule.file,
                "line": rule.line,
                "effect": rule.effect,
                "mode": rule.mode,
                "action": str(rule.action),
                "applies": rule.matched,
                "by": rule.by,
                "clauses": [
                    {
                        "clause": one.clause,
                        "outcome": one.outcome,
                        "expected": one.expected,
                        "found": one.found,
                    }
                    for one in rule.clauses
                ],
            }
            for rule in _nearest_first(trace.rules)
        ],
    }
