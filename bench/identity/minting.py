"""Agents minted into the keystore of a sidecar that is stopped, by the sidecar's own code."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from identity import AgentUri, AttributeValue, Purpose, load_master_key, new_identity
from identity.keystore import Keystore
from node.clocks import SystemClock
from node.own_node import OwnNode
from node.state_folder import StatePaths
from node.store import Store
from sidecar.issuing import Issuer

# One wait for the disk for so many, as when agents come together.
BATCH: Final = 1_000
ATTRIBUTES: Final[Mapping[str, AttributeValue]] = {"role": "planner", "clearance": 2}


class Minted(msgspec.Struct, frozen=True):
    """What minting so many took. CPU time is of this process alone, which is on one core."""

    count: int
    cpu_s: float
    wall_s: float


def mint(folder: Path, prefix: str, count: int, *, first: int = 0) -> Minted:
    """Each with an identity, a Noise key, a credential of the node with two attributes, a row."""
    with _issuer(StatePaths(folder)) as (keystore, issuer):
        clock, domain = SystemClock(), issuer.credential.trust_domain
        begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
        for start in range(first, first + count, BATCH):
            unix_s = clock.unix_s()
            rows = []
            for number in range(start, min(start + BATCH, first + count)):
                path = f"{prefix}/agent-{number:07}"
                own = new_identity(path, unix_s=unix_s, purposes=(Purpose.CHANNEL,))
                uri = AgentUri.in_domain(domain, path)
                rows.append(issuer.fitted(uri, own, ATTRIBUTES, unix_s))
            keystore.save_many(rows)
        return Minted(count, time.process_time() - begun_cpu_s, time.perf_counter() - begun_s)


@contextlib.contextmanager
def _issuer(paths: StatePaths) -> Iterator[tuple[Keystore, Issuer]]:
    key = load_master_key(paths.master_key, environment={}, create_missing=False)
    with (
        contextlib.closing(Keystore.open(paths.database, key)) as keystore,
        Store.open(paths.database) as store,
    ):
        node = OwnNode(keystore, store, SystemClock())
        yield keystore, Issuer.of(node.own, node.identity)
