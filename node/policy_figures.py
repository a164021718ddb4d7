"""What is counted of decisions: by action and effect, by rule, how long they take, what is limited.

Names of rules are labels: an operator wrote them, and no peer chooses one. There may be ten
thousand, so those that decided most are told apart, and the others are counted as one.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from identity import Code
from node.metrics import LABEL_VALUES_MAX, OTHER, Metrics
from policy import Action, Denial, Engine, Permit

NO_RULE: Final = "(none)"
"""What is counted where nothing allows and nothing denies. No rule of a file is called so."""
# A decision takes some 10 µs; one that looks at many rules, or at CEL, a millisecond.
DECISION_BUCKETS_S: Final = (5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 0.02, 0.1)

assert LABEL_VALUES_MAX == 256, "as the metric of rules says"


class PolicyFigures:
    """One for a program. ``engine`` is asked anew each time, since it changes."""

    def __init__(self, metrics: Metrics, engine: Callable[[], Engine]) -> None:
        self._engine = engine
        self._by_rule: Counter[str] = Counter()
        self._decisions = metrics.counter(
            "decisions",
            "Policy decisions by action and effect.",
            action=[str(action) for action in Action],
            effect=("allow", "deny"),
        )
        self._limited = metrics.counter(
            "decisions_limited",
            "Of the denials, those by a limit that is spent, by action.",
            action=[str(action) for action in Action],
        )
        self._seconds = metrics.histogram(
            "decision_seconds",
            "Time of a policy decision, without its line in the audit log.",
            buckets=DECISION_BUCKETS_S,
        )
        metrics.counter_read(
            "rule_decisions",
            "Decisions by the rule that made them, of the policy in force: the 256 that made most, "
            "and all others.",
            self._rules,
            label="rule",
        )

    def decided(self, action: Action, decision: Permit | Denial, seconds: float) -> None:
        """Count one decision that somebody asked for."""
        self._seconds.observe(seconds)
        self._by_rule[decision.rule or NO_RULE] += 1
        if isinstance(decision, Permit):
            self._decisions.increment(action=str(action), effect="allow")
            return
        self._decisions.increment(action=str(action), effect="deny")
        if decision.code is Code.POLICY_LIMITED:
            self._limited.increment(action=str(action))

    def _rules(self) -> Mapping[str, float]:
        """Rules of an earlier policy are forgotten, so that no reload adds names for ever."""
        known = {*self._engine().rule_names, NO_RULE}
        for name in self._by_rule.keys() - known:
            del self._by_rule[name]
        most = self._by_rule.most_common()
        told: dict[str, float] = dict(most[:LABEL_VALUES_MAX])
        if most[LABEL_VALUES_MAX:]:
            told[OTHER] = told.get(OTHER, 0) + sum(count for _, count in most[LABEL_VALUES_MAX:])
        return told
