"""A policy asked again what another one, or a past one, was asked: what would change, and where.

What the audit log left out is not guessed. A call whose arguments it does not hold is answered for
certain where they do not matter, and else not at all.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from node.audit_entry import request_of
from node.audit_reader import Line
from policy import Action, Engine, Permit, PolicyEngine, Request

CHANGES_MAX: Final = 10_000
"""Changes that are told apart. Further ones are only counted."""
UNKNOWN: Final = "unknown"
_ACTIONS: Final = frozenset(str(action) for action in Action)


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, when, and where that stands: a decision id, or a test's name."""

    where: str
    request: Request
    unix_s: float
    expires_unix_s: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """``effect`` is allow, deny, or unknown where it hangs on what was not recorded."""

    effect: str
    rule: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class ChangeKey:
    """Changes that are alike are one, with a count."""

    action: str
    subject: str
    object: str
    was: str
    was_rule: str | None
    now: str
    now_rule: str | None


@dataclass(slots=True)
class Change:
    """``where`` and ``reason`` are those of the first of them."""

    where: str
    reason: str
    count: int = 1


@dataclass(slots=True)
class Comparison:
    """``changes`` hold other effects; ``other_rules`` the same effect by another rule."""

    compared: int = 0
    same: int = 0
    unknown: int = 0
    skipped: int = 0
    """Lines that are no question, such as cuts, or whose question was too large to be kept."""
    changes: dict[ChangeKey, Change] = field(default_factory=dict)
    other_rules: dict[ChangeKey, Change] = field(default_factory=dict)
    not_listed: int = 0

    @property
    def changed(self) -> int:
        return self.compared - self.same - self.unknown

    def add(self, question: Question, was: Verdict, now: Verdict) -> None:
        self.compared += 1
        if UNKNOWN in (was.effect, now.effect):
            self.unknown += 1
            return
        is_same = was.effect == now.effect
        self.same += is_same
        if is_same and was.rule == now.rule:
            return
        request = question.request
        key = ChangeKey(
            str(request.action),
            str(request.subject),
            str(request.object),
            was.effect,
            was.rule,
            now.effect,
            now.rule,
        )
        changes = self.other_rules if is_same else self.changes
        known = changes.get(key)
        if known is not None:
            known.count += 1
        elif len(changes) < CHANGES_MAX:
            changes[key] = Change(question.where, now.reason)
        else:
            self.not_listed += 1


def judge(engine: Engine, question: Question) -> Verdict:
    """What the policy says. Limits are charged, at the time of the question."""
    request = question.request
    answer = engine.decide(request, question.unix_s, expires_unix_s=question.expires_unix_s)
    if isinstance(answer, Permit):
        # Without the arguments, no rule denied and one allowed: they do not matter.
        return Verdict("allow", answer.rule, "")
    hangs = (
        (request.args is None and request.action in (Action.MCP_CALL, Action.MCP_PROMPT))
        or (request.uri is None and request.action is Action.MCP_READ)
        or (request.result is None and request.action is Action.MCP_RESULT)
    )
    if hangs and engine.could_allow(request, question.unix_s):
        return Verdict(UNKNOWN, None, "it hangs on arguments that were not recorded")
    return Verdict("deny", answer.rule, answer.reason)


def recorded(line: Line) -> tuple[Question, Verdict] | None:
    """The question and the answer of a line; None for one that is no decision or holds no question.

    A line is read from a file that anybody may have written to, so nothing in it raises.
    """
    if line.request is None or line.action not in _ACTIONS or line.effect not in ("allow", "deny"):
        return None
    try:
        request = request_of(line.action, line.service, line.request)
        unix_s = datetime.fromisoformat(line.time).timestamp()
    except (ValueError, OverflowError):
        return None
    where = line.decision_id or f"line {line.seq}"
    question = Question(where, request, unix_s, line.request.expires_unix_s)
    return question, Verdict(line.effect, line.rule, line.reason or "")


def replay(engine: Engine, lines: Iterable[Line]) -> Comparison:
    """What a policy would have answered, beside what was answered."""
    comparison = Comparison()
    for found in map(recorded, lines):
        if found is None:
            comparison.skipped += 1
        else:
            question, was = found
            comparison.add(question, was, judge(engine, question))
    return comparison


def compare(old: PolicyEngine, new: PolicyEngine, questions: Iterable[Question]) -> Comparison:
    """What two policies answer to the same questions."""
    comparison = Comparison()
    for question in questions:
        comparison.add(question, judge(old, question), judge(new, question))
    return comparison


def questions_of_tests(*engines: PolicyEngine) -> Iterator[Question]:
    """What the tests of these policies ask. Raises PolicyError for one that cannot be read."""
    asked: set[tuple[str, str]] = set()
    for engine in engines:
        for test in engine.tests():
            once = (test.name, repr((test.request, test.unix_s)))
            if once not in asked:
                asked.add(once)
                yield Question(f"the test {test.name!r}", test.request, test.unix_s)
