"""The parts that every program is made of, opened in order and closed in reverse."""

import contextlib
import importlib.metadata
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import structlog

from identity import Keystore, load_master_key
from node.admission import Admission
from node.audit import AuditLog
from node.clocks import Clock, SystemClock
from node.http_servers import AdminHandler, AdminServer, OpsServer
from node.metrics import Metrics
from node.policy_files import load_policy
from node.readiness import Readiness
from node.settings import ProgramSettings
from node.state_folder import StateFolder
from node.store import Store
from policy import Party, PolicyEngine

DISTRIBUTION: Final = "sidelink-node"
SYSTEM_CLOCK: Final = SystemClock()

SettingsT = TypeVar("SettingsT", bound=ProgramSettings)
AdminRoute = tuple[str, str, AdminHandler]
"""Method, path and handler of what a program adds to its admin server."""

_log = structlog.get_logger("node.parts")


@dataclass(slots=True)
class Parts(Generic[SettingsT]):
    """What ``open_parts`` opened. ``policy`` may be replaced; all else stays until the end."""

    settings: SettingsT
    clock: Clock
    folder: StateFolder
    policy: PolicyEngine
    store: Store
    keystore: Keystore
    audit: AuditLog
    metrics: Metrics
    readiness: Readiness = field(default_factory=Readiness)
    _exits: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    _ports: dict[str, int] = field(default_factory=dict)
    _started_s: float = 0.0

    def admission(self, own: Callable[[], Party]) -> Admission:
        """Call once. ``own`` is this node as a party, asked for at each decision."""
        return Admission(
            engine=lambda: self.policy,
            own=own,
            clock=self.clock,
            audit=self.audit,
            metrics=self.metrics,
        )

    async def start_servers(
        self, status: Callable[[], Mapping[str, Any]], routes: Sequence[AdminRoute] = ()
    ) -> None:
        """Start the ops and the admin server; they stop with the parts.

        ``status`` gives what the program adds to ``GET /v1/status``. Raises ConfigError.
        """
        ops = OpsServer(
            self.settings.ops_host,
            self.settings.ops_port,
            metrics=self.metrics,
            awaited=self.readiness.awaited,
        )
        self.publish_ports(ops=await ops.start())
        self._exits.push_async_callback(ops.close)
        admin = AdminServer(
            self.folder.admin_socket, status=lambda: self._status() | dict(status())
        )
        for method, path, handler in routes:
            admin.add(method, path, handler)
        await admin.start()
        self._exits.push_async_callback(admin.close)

    def publish_ports(self, **ports: int) -> None:
        """Add ports that were really got to run/ports.json, where tests and the CLI find them."""
        self._ports |= ports
        self.folder.write_ports(self._ports)

    def _status(self) -> dict[str, Any]:
        awaiting = self.readiness.awaited()
        return {
            "version": program_version(),
            "pid": os.getpid(),
            "state": str(self.folder.folder),
            "uptime_s": round(self.clock.now_s() - self._started_s, 3),
            "ready": not awaiting,
            "awaiting": awaiting,
            "ports": dict(self._ports),
            "policy": self.policy.version,
        }


@contextlib.asynccontextmanager
async def open_parts(
    settings: SettingsT, *, clock: Clock = SYSTEM_CLOCK
) -> AsyncIterator[Parts[SettingsT]]:
    """Hold the state folder and everything in it for as long as the program runs.

    Policy is read before anything is made, so that a malformed one leaves a first start the first.
    Raises ConfigError, PolicyError or IdentityError.
    """
    async with contextlib.AsyncExitStack() as exits:
        folder = exits.enter_context(StateFolder.open(settings.state_path))
        policy = load_policy(folder)
        master_key = load_master_key(
            folder.master_key,
            environment=os.environ,
            create_missing=folder.is_first_start,
        )
        keystore = exits.enter_context(
            contextlib.closing(Keystore.open(folder.database, master_key))
        )
        store = exits.enter_context(Store.open(folder.database))
        audit = exits.enter_context(contextlib.closing(AuditLog(folder.audit, clock)))
        metrics = Metrics(settings.program, program_version())
        metrics.counter_read(
            "audit_lines_dropped", "Audit lines that no disk took.", lambda: audit.dropped
        )
        parts = Parts(settings, clock, folder, policy, store, keystore, audit, metrics)
        parts._started_s = clock.now_s()
        parts.readiness.check(lambda: None if parts.policy.ready else "policy")
        parts.readiness.check(lambda: audit.fault)
        _log.info("opened", state=str(folder.folder), first_start=folder.is_first_start)
        async with parts._exits:
            yield parts


def program_version() -> str:
    return importlib.metadata.version(DISTRIBUTION)
