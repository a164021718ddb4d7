"""May they? Decisions, deny by default, from a policy that people write and can read."""

from policy.bundles import BASELINE_POLICY, STARTER_POLICY
from policy.decision import PERMIT_LIFETIME_S, AuditedRule, Denial, Permit, require
from policy.documents import PolicySource
from policy.engine import PolicyEngine
from policy.errors import LocatedError, PolicyError, YamlError
from policy.layers import Engine, LayeredEngine
from policy.limits import LimitTable
from policy.obligations import REDACTED, Disclosure, Obligations, redact
from policy.request import Action, Party, Request
from policy.selftest import PolicyTest, PolicyTestOutcome
from policy.trace import Trace, TracedClause, TracedRule

__all__ = [
    "BASELINE_POLICY",
    "PERMIT_LIFETIME_S",
    "REDACTED",
    "STARTER_POLICY",
    "Action",
    "AuditedRule",
    "Denial",
    "Disclosure",
    "Engine",
    "LayeredEngine",
    "LimitTable",
    "LocatedError",
    "Obligations",
    "Party",
    "Permit",
    "PolicyEngine",
    "PolicyError",
    "PolicySource",
    "PolicyTest",
    "PolicyTestOutcome",
    "Request",
    "Trace",
    "TracedClause",
    "TracedRule",
    "YamlError",
    "redact",
    "require",
]
