"""Finds the policy of a program: policy.yaml of its state folder."""

from pathlib import Path
from typing import Final

import structlog

from node.settings_source import read_text_bounded
from node.state_folder import StateFolder, write_atomically
from policy import STARTER_POLICY, PolicyEngine

POLICY_BYTES_MAX: Final = 1 << 20

_log = structlog.get_logger("node.policy")


def load_policy(folder: StateFolder) -> PolicyEngine:
    """The engine for ``policy.yaml``. A first start writes the commented policy to begin with.

    A policy that is missing later denies everything and leaves the program not ready: it is never
    written anew, since whoever removed it did not ask for the starter's rules. A malformed one
    raises PolicyError with file, line and remedy.
    """
    if not folder.policy.exists():
        if not folder.is_first_start:
            _log.error("policy_missing", path=str(folder.policy), effect="everything is denied")
            return PolicyEngine.deny_all()
        write_atomically(folder.policy, STARTER_POLICY.encode())
        _log.info("policy_written", path=str(folder.policy))
    return read_policy(folder.policy)


def read_policy(path: Path) -> PolicyEngine:
    """Raises PolicyError for a malformed policy, ConfigError for a file that cannot be read."""
    return PolicyEngine.load(read_text_bounded(path, POLICY_BYTES_MAX), file=str(path))
