"""Whether a rule applies to a request. An index finds the rules; this asks each of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from policy.condition import FAULT, Facts, both
from policy.index import RuleIndex
from policy.matcher import MAYBE, NO, YES
from policy.model import Rule
from policy.obligations import NO_OBLIGATIONS
from policy.request import Action, Party, Request

Index = Mapping[Action, RuleIndex]


@dataclass(slots=True)
class Reuse:
    """For which further messages an answer holds: up to a size, or for none."""

    is_reusable: bool
    message_bytes_max: int | None = None

    def limit(self, message_bytes_max: int) -> None:
        if self.message_bytes_max is None or message_bytes_max < self.message_bytes_max:
            self.message_bytes_max = message_bytes_max


def index_rules(rules: Iterable[Rule], *, allows: bool, enforced: bool = True) -> Index:
    """The rules of one effect and mode by action. Their order decides only which one is named.

    Of the rules that allow, those come first whose permits serve the most messages.
    """
    found: dict[Action, list[Rule]] = {action: [] for action in Action}
    for rule in rules:
        if rule.allows is allows and rule.terms.enforced is enforced:
            for action in rule.actions:
                found[action].append(rule)
    if allows:
        for listed in found.values():
            listed.sort(key=_narrowness)
    return {action: RuleIndex(listed, action) for action, listed in found.items()}


def find_allowing(index: RuleIndex, request: Request, *, waits: bool = False) -> Sequence[Rule]:
    """The rules that might grant it: they look at the two themselves, and at nobody above."""
    if not index.rules:
        return ()
    return index.find(request, (request.subject,), (request.object,), waits=waits)


def find_denying(index: RuleIndex, request: Request) -> Sequence[Rule]:
    """The rules that might deny it, by anybody in either chain."""
    if not index.rules:
        return ()
    subject, obj = request.subject, request.object
    return index.find(request, (subject, *subject.ancestors), (obj, *obj.ancestors), waits=False)


def _narrowness(rule: Rule) -> tuple[int, int]:
    condition = rule.condition
    if rule.terms.limit is not None:
        return 4, 0
    if rule.terms.obligations is not NO_OBLIGATIONS:
        return 3, 0
    if condition is None:
        return 0, 0
    if condition.dynamic is not None or condition.size_min is not None:
        return 2, 0
    return (0, 0) if condition.size_max is None else (1, -condition.size_max)


def scope_of(rule: Rule, request: Request) -> int:
    """Whether service and tool are the rule's."""
    answer = YES
    if rule.services is not None:
        if request.service is None:
            answer = MAYBE
        elif request.service not in rule.services:
            return NO
    if rule.tools is not None:
        answer = min(answer, rule.tools.match(request, allows=rule.allows))
    return answer


def object_match(rule: Rule, request: Request, obj: Party) -> int:
    if request.prefix is not None and request.action == Action.ROUTE_REGISTER:
        # To take over a part of what a deny rule names is denied; to be allowed, all must be.
        return rule.object.match_route(obj, request.prefix, overlap=not rule.allows)
    return rule.object.match(obj)


def allows(rule: Rule, facts: Facts, reuse: Reuse) -> bool:
    """Whether the rule grants this very request. ``reuse`` then says how far the grant goes."""
    request = facts.request
    if (
        rule.subject.match(request.subject) != YES
        or object_match(rule, request, request.object) != YES
        or scope_of(rule, request) != YES
    ):
        return False
    condition = rule.condition
    if condition is not None and condition.judge(facts, request.subject, request.object) != YES:
        return False
    if rule.terms.limit is not None:
        reuse.is_reusable = False
    if condition is None:
        return True
    if condition.dynamic is not None or condition.size_min is not None:
        reuse.is_reusable = False
    elif condition.size_max is not None:
        reuse.limit(condition.size_max)
    return True


def could_allow(rule: Rule, facts: Facts) -> bool:
    """Whether the rule grants the request, or might once more is known."""
    request = facts.request
    least = MAYBE if facts.waits_for_proof else YES
    if (
        rule.subject.match(request.subject) != YES
        or object_match(rule, request, request.object) < least
        or scope_of(rule, request) == NO
    ):
        return False
    if rule.condition is None:
        return True
    return rule.condition.judge(facts, request.subject, request.object) in (YES, MAYBE)


def denies(rule: Rule, facts: Facts, reuse: Reuse) -> bool:
    """Whether the rule denies, by anybody in the chain of the subject and of the object.

    If it does not, but could for a message of another kind, ``reuse`` says so.
    """
    request = facts.request
    if scope_of(rule, request) != YES:
        return False
    subject, obj = request.subject, request.object
    for one in chain((subject,), subject.ancestors):
        if rule.subject.match(one) != YES:
            continue
        for other in chain((obj,), obj.ancestors):
            if object_match(rule, request, other) != YES:
                continue
            if rule.condition is None or _condition_denies(rule, facts, one, other, reuse):
                return True
    return False


def _condition_denies(rule: Rule, facts: Facts, subject: Party, obj: Party, reuse: Reuse) -> bool:
    condition = rule.condition
    assert condition is not None
    static = condition.judge_static(facts, subject, obj)
    if static == NO:
        return False  # And so it stays, whatever the message.
    if both(static, condition.judge_rest(facts, subject, obj)) in (YES, FAULT):
        return True
    if condition.dynamic is not None or condition.size_max is not None:
        reuse.is_reusable = False
    elif condition.size_min is not None:
        reuse.limit(condition.size_min - 1)
    return False


_CLAUSE_NAMES: Final = {True: "from", False: "to"}


def nearest_rule(rules: Iterable[Rule], facts: Facts) -> str:
    """A sentence on the rule that came nearest to allowing, or nothing. For denials only."""
    best: tuple[int, Rule, str] | None = None
    for rule in rules:
        passed, failed = _progress(rule, facts)
        if failed is not None and (best is None or passed > best[0]):
            best = passed, rule, failed
    if best is None or best[0] == 0:
        return ""
    return f' The nearest rule is "{best[1].name}", but {best[2]}.'


def _progress(rule: Rule, facts: Facts) -> tuple[int, str | None]:
    """How many of the rule's clauses are met, and which one is the first that is not."""
    request = facts.request
    passed = 0
    failed: str | None = None
    for is_subject, selector in ((True, rule.subject), (False, rule.object)):
        party = request.subject if is_subject else request.object
        for clause in selector.clauses:
            if clause.match(party) == YES:
                passed += 1
            elif failed is None:
                failed = f"its {_CLAUSE_NAMES[is_subject]}.{clause.key} does not match"
    if rule.services is not None:
        met = request.service in rule.services
        passed += met
        failed = failed or (None if met else "its to.service does not match")
    if rule.tools is not None:
        met = rule.tools.match(request, allows=True) == YES
        passed += met
        failed = failed or (None if met else f"its {rule.tools.key} do not list this one")
    if failed is None and rule.condition is not None:
        failed = "its `when` does not hold"
        passed += 1
    return passed, failed
