"""A sidecar that takes what its credential does not give: for tests of what others then do.

``python -m tests.mesh.hostile_sidecar SIN [flags of sidelink up]``. Each sin switches off one check
that a sidecar makes of itself, so that the one on the other side is what is left.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import link
import sidecar.agents
import sidecar.issuing
import sidecar.uplink
from cli.main import main
from identity import NamePrefix


def register_beyond() -> None:
    """Asks the gateway for a prefix that belongs to somebody else."""
    prefixes = (NamePrefix.parse("agent://acme/billing"),)
    sidecar.uplink.Uplink._prefixes = lambda _: prefixes  # type: ignore[method-assign]


def name_beyond() -> None:
    """Mints agents whose names lie outside its prefixes, and lets them speak."""
    sidecar.agents.AgentRegistry._check = lambda *_: None  # type: ignore[method-assign]
    sidecar.issuing.check_delegation = lambda *_: None


def attribute_beyond() -> None:
    """Says of its agents what it may not say."""
    sidecar.issuing.check_delegation = lambda *_: None


def never_read() -> None:
    """Takes all that is granted from the first, and grants nothing for what it has taken."""
    link.ReceiveWindow.consume = lambda *_: None  # type: ignore[method-assign]


SINS: Mapping[str, Callable[[], Any]] = {
    "register-beyond": register_beyond,
    "name-beyond": name_beyond,
    "attribute-beyond": attribute_beyond,
    "never-read": never_read,
}

if __name__ == "__main__":
    SINS[sys.argv[1]]()
    sys.exit(main(["up", *sys.argv[2:]]))
