"""What every program opens at its start and closes at its end, in the right order."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

import structlog

from identity import Keystore
from node.admission import Admission
from node.audit import AuditLog
from node.clocks import SystemClock
from node.errors import ConfigError
from node.folder_keys import open_keystore
from node.hangup import on_hangup
from node.http_servers import AdminServer, OpsServer
from node.identity_admin import IdentityAdmin
from node.keeper import Keeper
from node.mandatory import MandatoryPolicy
from node.mandatory_live import LiveMandatory
from node.metrics import Metrics
from node.own_node import OwnNode
from node.policy_admin import PolicyAdmin
from node.policy_live import LivePolicy
from node.rotation import Rotation
from node.settings import ProgramSettings
from node.state_folder import StateFolder
from node.store import Store
from policy import Engine

WRITE_DOWN_SECONDS: Final = 1.0
_EPOCH: Final = "epoch"

_log = structlog.get_logger("node.parts")


@dataclass(slots=True)
class Parts:
    """One program's state, policy, audit, metrics and servers."""

    settings: ProgramSettings
    folder: StateFolder
    clock: SystemClock
    keystore: Keystore
    store: Store
    node: OwnNode
    live_policy: LivePolicy
    mandatory: MandatoryPolicy
    live_mandatory: LiveMandatory
    audit: AuditLog
    metrics: Metrics
    admission: Admission
    admin: AdminServer
    epoch: int
    """Higher than that of every earlier start of this node: told to its neighbours."""
    rotation: Rotation
    keeper: Keeper
    awaiting: dict[str, Callable[[], bool]] = field(default_factory=dict)
    """What must have happened before the program is ready: a sentence, and whether it has."""
    status: dict[str, Callable[[], Any]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def policy(self) -> Engine:
        """The engine in force. Another one may be, the next time that the loop has its turn."""
        return self.live_policy.engine

    def awaited(self) -> Sequence[str]:
        return [sentence for sentence, done in self.awaiting.items() if not done()]

    def read_status(self) -> Mapping[str, Any]:
        awaiting = self.awaited()
        identity = self.node.identity
        return {
            "version": version("sidelink-node"),
            "ready": not awaiting,
            "awaiting": list(awaiting),
            "identifier": str(self.node.identifier),
            "name": None if identity.name is None else str(identity.name),
            "attributes": {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in identity.attributes.items()
            },
            "credential_expires_unix_s": identity.expires_unix_s or None,
            "policy": self.live_policy.status(),
            "mandatory_policy": self.live_mandatory.status(),
            "audit_fault": self.audit.fault,
            "audit_head": dict(zip(("seq", "sha256"), self.audit.head, strict=True)),
            "ports": dict(self.ports),
            **{key: read() for key, read in self.status.items()},
        }


@asynccontextmanager
async def open_parts(
    settings: ProgramSettings, *, authority_of: str | None = None
) -> AsyncIterator[Parts]:
    """Open everything; serve the admin socket and the ops port once ``serve`` is called.

    Raises SidelinkError for whatever a person has to put right first.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(StateFolder.open(settings.state_path))
        clock = SystemClock()
        metrics = Metrics(settings.program, version("sidelink-node"))
        # Before anything is made, so that a malformed policy leaves a first start the first.
        live_policy = LivePolicy.open(folder, clock, metrics)
        # A lost key is told, not replaced.
        keystore = open_keystore(folder, os.environ, create_missing=folder.is_first_start)
        stack.callback(keystore.close)
        store = stack.enter_context(Store.open(folder.database))
        node = OwnNode(
            keystore,
            store,
            clock,
            authority_of=authority_of,
            grace_s=settings.revocation_grace_s,
            chain_links_max=settings.delegation_depth_max,
        )
        mandatory = MandatoryPolicy(store, clock, node)
        for flush in (node.trust.flush, mandatory.flush):
            stack.callback(flush)
        live_mandatory = LiveMandatory(
            mandatory, live_policy, clock, metrics, required=settings.mandatory_policy_required
        )
        audit = AuditLog(folder.audit, clock, lambda: node.own)
        stack.callback(audit.close)
        admission = Admission(
            engine=lambda: live_policy.engine,
            own=node.party,
            clock=clock,
            trust=node.trust,
            audit=audit,
            metrics=metrics,
        )
        _publish_figures(metrics, node, audit)
        admin = AdminServer(folder.admin_socket, status=lambda: parts.read_status())
        rotation = Rotation(node, store, clock)
        IdentityAdmin(admin, node, rotation, clock)
        PolicyAdmin(admin, mandatory, node.party, clock)
        parts = Parts(
            settings=settings,
            folder=folder,
            clock=clock,
            keystore=keystore,
            store=store,
            node=node,
            live_policy=live_policy,
            mandatory=mandatory,
            live_mandatory=live_mandatory,
            audit=audit,
            metrics=metrics,
            admission=admission,
            epoch=_next_epoch(store, clock),
            admin=admin,
            rotation=rotation,
            keeper=Keeper(metrics),
        )
        parts.awaiting |= _awaited_by_all(parts)
        yield parts


def _awaited_by_all(parts: Parts) -> dict[str, Callable[[], bool]]:
    node = parts.node
    return {
        "an identity that its authority has not revoked": lambda: (
            not node.trust.is_revoked(node.identity)
        ),
        "a policy that allows something: see policy.yaml": lambda: parts.policy.ready,
        "the mandatory policy of the trust domain": lambda: not parts.live_mandatory.awaited,
    }


def _publish_figures(metrics: Metrics, node: OwnNode, audit: AuditLog) -> None:
    metrics.gauge("audit_healthy", "1 while the audit log takes lines.", lambda: not audit.fault)
    metrics.counter_read("audit_dropped", "Audit lines lost.", lambda: audit.dropped)
    metrics.gauge(
        "credential_expires_unix_seconds",
        "When this node's credential ends.",
        lambda: node.identity.expires_unix_s,
    )
    metrics.counter_read(
        "revocation_lists_taken", "Newer revocation lists taken.", lambda: node.trust.taken
    )


def _next_epoch(store: Store, clock: SystemClock) -> int:
    """It rises even where the state folder was restored from a backup, if the clock is right."""
    last = int(store.get(_EPOCH) or b"0")
    epoch = max(last + 1, int(clock.unix_s() * 1000))
    store.put(_EPOCH, str(epoch).encode())
    return epoch


async def _look_after(parts: Parts) -> None:
    """What every program does beside its work, until cancelled."""
    keep = parts.keeper.keep
    await asyncio.gather(
        keep("rotation", parts.rotation.run),
        keep("policy", parts.live_policy.run),
        keep("mandatory_policy", parts.live_mandatory.run),
        keep("write_down", lambda: _write_down(parts)),
    )


async def _write_down(parts: Parts) -> None:
    fault: str | None = None
    while True:
        await asyncio.sleep(WRITE_DOWN_SECONDS)
        try:
            parts.node.trust.flush()
            parts.mandatory.flush()
        except ConfigError as exc:
            # It is tried again: a disk may be full or busy for a while.
            if exc.detail != fault:
                _log.error("trust_not_kept", code=exc.code.text, why=exc.detail)
            fault = exc.detail
        else:
            fault = None


async def end_tasks(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they are gone."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def serve_operators(parts: Parts) -> AsyncIterator[None]:
    """The admin socket and the ops port, from the first moment a program has a status."""
    settings = parts.settings
    ops = OpsServer(
        settings.ops_host, settings.ops_port, metrics=parts.metrics, awaited=parts.awaited
    )
    async with AsyncExitStack() as stack:
        parts.ports["ops"] = await ops.start()
        stack.push_async_callback(ops.close)
        await parts.admin.start()
        stack.push_async_callback(parts.admin.close)
        stack.push_async_callback(end_tasks, [asyncio.create_task(_look_after(parts))])
        stack.enter_context(on_hangup(parts.live_policy.hurry))
        parts.folder.write_ports(parts.ports)
        _log.info("started", identifier=str(parts.node.identifier), ports=parts.ports)
        yield
