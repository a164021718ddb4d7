"""Why a request is answered as it is: each rule considered, and what each of its clauses found."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from policy.condition import FAULT, Facts
from policy.decision import Denial, Permit
from policy.evaluation import Reuse, allows, could_allow, denies
from policy.limits import LimitTable
from policy.matcher import MAYBE, NO, YES, AttributeClause, Clause, NameClause
from policy.model import Rule
from policy.request import Action, Party, Request

SHOWN_CHARS_MAX: Final = 120
NOTHING: Final = "nothing"

Outcome = Literal["met", "not met", "unknown", "error"]

_OUTCOMES: Final[dict[int, Outcome]] = {NO: "not met", MAYBE: "unknown", YES: "met", FAULT: "error"}


@dataclass(frozen=True, slots=True)
class TracedClause:
    """``clause`` is as in the file: `from.role`, `to.service`, `tools`, `when`, `limit`.

    ``expected`` and ``found`` are texts for a person, of ``SHOWN_CHARS_MAX`` characters at most.
    """

    clause: str
    outcome: Outcome
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class TracedRule:
    """``action`` is that of the request, or one that implies it. ``by`` is whom of the subject's
    chain the clauses speak of: a rule that denies is asked of everybody above it too."""

    name: str
    file: str
    line: int
    effect: str
    mode: str
    action: Action
    matched: bool
    by: str
    clauses: tuple[TracedClause, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    decision: Permit | Denial
    rules: tuple[TracedRule, ...]


def trace_rules(
    rules: Iterable[tuple[Action, Rule]], request: Request, unix_s: float, limits: LimitTable
) -> Iterator[TracedRule]:
    """Each rule with the action that it is asked about. Charges nothing."""
    for action, rule in rules:
        facts = Facts(replace(request, action=action), unix_s, probing=action != request.action)
        subject, obj, matched = _nearest_pair(rule, facts)
        yield TracedRule(
            name=rule.name,
            file=rule.file,
            line=rule.line,
            effect="allow" if rule.allows else "deny",
            mode="enforce" if rule.terms.enforced else "audit",
            action=action,
            matched=matched,
            by=_shown(subject),
            clauses=tuple(_clauses(rule, facts, subject, obj, limits)),
        )


def _nearest_pair(rule: Rule, facts: Facts) -> tuple[Party, Party, bool]:
    """The two that the rule is about, and whether it has its effect: those who match, if any."""
    request = facts.request
    if rule.allows:
        granted = could_allow(rule, facts) if facts.probing else allows(rule, facts, Reuse(False))
        return request.subject, request.object, granted
    for subject in (request.subject, *request.subject.ancestors):
        for obj in (request.object, *request.object.ancestors):
            alone = replace(
                request,
                subject=replace(subject, ancestors=()),
                object=replace(obj, ancestors=()),
            )
            one = Facts(alone, facts.unix_s, facts.probing)
            if denies(rule, one, Reuse(False)):
                return subject, obj, True
    return request.subject, request.object, denies(rule, facts, Reuse(False))


def _clauses(
    rule: Rule, facts: Facts, subject: Party, obj: Party, limits: LimitTable
) -> Iterator[TracedClause]:
    request = facts.request
    for side, selector, party in (("from", rule.subject, subject), ("to", rule.object, obj)):
        for clause in selector.clauses:
            yield _of_selector(side, clause, party, request, overlap=not rule.allows)
    if rule.services is not None:
        met = MAYBE if request.service is None else YES if request.service in rule.services else NO
        yield _clause("to.service", met, sorted(rule.services), request.service)
    if rule.tools is not None:
        wanted = [*sorted(rule.tools.exact), *(f"{one}*" for one in rule.tools.beginnings)]
        met = rule.tools.match(request, allows=rule.allows)
        yield _clause(rule.tools.key, met, wanted, rule.tools.found(request))
    if rule.condition is not None:
        answer = rule.condition.judge(facts, subject, obj)
        found = rule.condition.found(facts, subject, obj)
        yield _clause("when", answer, rule.condition.source, found)
    limit = rule.terms.limit
    if limit is not None:
        left = limits.left(rule.name, limit, request, facts.unix_s)
        wanted_text = f"{limit.rate_per_s:g}/s, {limit.burst} at once, per {limit.per}"
        yield _clause("limit", YES if left >= 1 else NO, wanted_text, f"{int(left)} left")


def _of_selector(
    side: str, clause: Clause, party: Party, request: Request, *, overlap: bool
) -> TracedClause:
    key = f"{side}.{clause.key}"
    if isinstance(clause, NameClause):
        wanted = [*sorted(map(str, clause.exact)), *map(str, clause.patterns)]
        if request.action is Action.ROUTE_REGISTER and side == "to" and request.prefix is not None:
            met = clause.match_prefix(request.prefix, overlap=overlap)
            return _clause(key, met, wanted, request.prefix)
        return _clause(key, clause.match(party), wanted, party.name)
    values = party.attributes if isinstance(clause, AttributeClause) else None
    found = getattr(party, clause.key) if values is None else values.get(clause.key)
    if not party.verified and clause.key != "trust_domain":
        found = "not proved yet"
    return _clause(key, clause.match(party), sorted(clause.values, key=str), found)


def _clause(clause: str, met: int, expected: Any, found: Any) -> TracedClause:
    return TracedClause(clause, _OUTCOMES[met], _shown(expected), _shown(found))


def _shown(value: Any) -> str:
    """As a person would write it, not too long, and on one line."""
    if value is None:
        text = NOTHING
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, list):
        text = " or ".join(map(_shown, value))
    elif isinstance(value, tuple):  # A list that somebody has.
        text = ", ".join(map(_shown, value))
    else:
        text = str(value)
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[: SHOWN_CHARS_MAX - 1]}…"
