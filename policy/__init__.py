"""May they? Decisions, deny by default, from a policy that people write and can read."""

from policy.bundles import BASELINE_POLICY, STARTER_POLICY
from policy.decision import PERMIT_LIFETIME_S, Denial, Permit, require
from policy.documents import PolicySource
from policy.engine import PolicyEngine
from policy.errors import LocatedError, PolicyError, YamlError
from policy.request import Action, Party, Request
from policy.selftest import PolicyTest, PolicyTestOutcome

__all__ = [
    "BASELINE_POLICY",
    "PERMIT_LIFETIME_S",
    "STARTER_POLICY",
    "Action",
    "Denial",
    "LocatedError",
    "Party",
    "Permit",
    "PolicyEngine",
    "PolicyError",
    "PolicySource",
    "PolicyTest",
    "PolicyTestOutcome",
    "Request",
    "YamlError",
    "require",
]
