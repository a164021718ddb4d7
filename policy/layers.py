"""One policy below another: what a whole trust domain obeys, and what one node makes of it.

Both must allow. So the lower one, which is the node's own, can only narrow what the upper allows,
and a rule of either that denies overrides whatever the other says. Only an upper policy whose every
rule is in audit mode denies nothing yet: what it would have denied is recorded.
"""

from dataclasses import replace
from typing import Any, Final

from policy.bundles import MANDATORY_PREFIX
from policy.decision import AuditedRule, Denial, Permit, make_permit
from policy.engine import PolicyEngine
from policy.obligations import Disclosure
from policy.request import Request
from policy.selftest import read_question
from policy.trace import Trace

NO_RULE_ALLOWS: Final = f"{MANDATORY_PREFIX}(no rule allows it)"
"""Recorded where an upper policy that only audits has no rule that would allow."""
_OF_UPPER: Final = "So says the mandatory policy of the trust domain."


class LayeredEngine:
    """Answers as ``PolicyEngine`` does. Names of rules of the upper policy get a prefix.

    The limits of both hold. A request that the lower one would deny charges none of the upper's;
    one that only a limit of the upper denies has been charged to the lower's.
    """

    def __init__(self, upper: PolicyEngine, lower: PolicyEngine) -> None:
        self.upper = upper
        self.lower = lower
        self.version = f"{lower.version}+{upper.version}"
        self.unready = lower.unready or upper.unready
        self.rule_names = (*map(_named, upper.rule_names), *lower.rule_names)
        self.judges_results = upper.judges_results or lower.judges_results
        self._upper_counts = upper.has_limits
        self._upper_audits = upper.only_audits

    @property
    def ready(self) -> bool:
        return self.unready is None

    def decide(
        self, request: Request, unix_s: float, *, expires_unix_s: float | None = None
    ) -> Permit | Denial:
        """Answer, by both. Never raises, whatever the request holds."""
        counts = self._upper_counts and not request.again
        first = replace(request, again=True) if counts else request
        above = self.upper.decide(first, unix_s, expires_unix_s=expires_unix_s)
        if isinstance(above, Denial) and not self._upper_audits:
            return self._denied_above(above)
        below = self.lower.decide(request, unix_s, expires_unix_s=expires_unix_s)
        if isinstance(below, Denial):
            return replace(below, policy_version=self.version)
        if counts:
            above = self.upper.decide(request, unix_s, expires_unix_s=expires_unix_s)
        if not isinstance(above, Denial):
            return self._both(above, below)
        return (
            self._allowed_below(above, below) if self._upper_audits else self._denied_above(above)
        )

    def could_allow(self, request: Request, unix_s: float) -> bool:
        """Whether both might, once what the request leaves open is known. Never raises."""
        above = self._upper_audits or self.upper.could_allow(request, unix_s)
        return above and self.lower.could_allow(request, unix_s)

    def trace(self, request: Request, unix_s: float) -> Trace:
        """Answer, and say why, by the rules of both. Raises ValueError for what is no action."""
        above, below = self.upper.trace(request, unix_s), self.lower.trace(request, unix_s)
        rules = (replace(rule, name=_named(rule.name)) for rule in above.rules)
        decision = self.decide(replace(request, again=True), unix_s)
        return Trace(decision, (*rules, *below.rules))

    def question(self, fields: dict[str, Any], where: str) -> tuple[Request, float]:
        """A request and its time from the keys of a test, with the attributes of both.

        Raises PolicyError; ``where`` stands for the file in it.
        """
        attributes = {**self.upper.attributes, **self.lower.attributes}
        return read_question(fields, attributes, where)

    def _denied_above(self, denial: Denial) -> Denial:
        return replace(
            denial,
            rule=None if denial.rule is None else _named(denial.rule),
            reason=f"{denial.reason} {_OF_UPPER}",
            policy_version=self.version,
            disclose=_least_told(denial.disclose, self.lower.disclose),
            audited=_audited(denial.audited),
        )

    def _allowed_below(self, above: Denial, below: Permit) -> Permit:
        """What an upper policy that only audits has no say in."""
        would = _audited(above.audited)
        if not any(one.effect == "allow" for one in would):
            would = (*would, AuditedRule(NO_RULE_ALLOWS, "deny"))
        # Not used again, so that whatever would have been denied is recorded each time.
        return self._made_of(below, cacheable=False, audited=(*would, *below.audited))

    def _both(self, above: Permit, below: Permit) -> Permit:
        sizes = [
            one.message_bytes_max for one in (above, below) if one.message_bytes_max is not None
        ]
        return self._made_of(
            below,
            expires_unix_s=min(above.expires_unix_s, below.expires_unix_s),
            message_bytes_max=min(sizes, default=None),
            cacheable=above.cacheable and below.cacheable,
            obligations=above.obligations.joined(below.obligations),
            audited=(*_audited(above.audited), *below.audited),
        )

    def _made_of(self, permit: Permit, **changes: Any) -> Permit:
        """The same with this policy's version. Only the engine may make one, so it is made anew."""
        fields: dict[str, Any] = {
            "expires_unix_s": permit.expires_unix_s,
            "rule": permit.rule,
            "decision_id": permit.decision_id,
            "message_bytes_max": permit.message_bytes_max,
            "cacheable": permit.cacheable,
            "obligations": permit.obligations,
            "audited": permit.audited,
        }
        return make_permit(
            permit.action,
            permit.subject,
            permit.object_name,
            policy_version=self.version,
            **fields | changes,
        )


Engine = PolicyEngine | LayeredEngine


def _named(rule: str) -> str:
    return f"{MANDATORY_PREFIX}{rule}"


def _least_told(above: Disclosure | None, below: Disclosure | None) -> Disclosure | None:
    """A node that tells nobody anything tells nobody of a mandatory policy either. None is less
    than a reason: strangers are told nothing."""
    if above is None or below is None:
        said = above or below
        return None if above is None and said is Disclosure.REASON else said
    return min(above, below, key=list(Disclosure).index)


def _audited(found: tuple[AuditedRule, ...]) -> tuple[AuditedRule, ...]:
    return tuple(AuditedRule(_named(one.name), one.effect) for one in found)
