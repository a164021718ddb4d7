"""May they? Decisions, deny by default, from a policy that people write and can read."""

from policy.decision import Denial, Permit, require
from policy.errors import LocatedError, PolicyError, YamlError
from policy.request import Action, Party, Request

__all__ = [
    "Action",
    "Denial",
    "LocatedError",
    "Party",
    "Permit",
    "PolicyError",
    "Request",
    "YamlError",
    "require",
]
