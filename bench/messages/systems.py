"""What a system is to this benchmark: programs to start, and two agents that use it.

Each alternative is one module that implements both halves, `bench.messages.peer_…`; ours is
`bench.messages.ours`. A module is imported only where its system is measured, so that nobody needs
the packages of a system that they leave out.
"""

import importlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from bench.children import Children
from bench.errors import BenchError
from bench.messages.ruler import Inbox, Window
from node.settings import GatewaySettings, SidecarSettings

Place = Mapping[str, Any]
"""Where an agent finds its system: addresses, files of keys. Plain values, sent as JSON."""


class Programs(Protocol):
    """A running system, without its agents."""

    @property
    def pids(self) -> Mapping[str, int]:
        """Every process that is not an agent, by a label for the report."""
        ...

    @property
    def place(self) -> Place: ...

    def check(self) -> None:
        """Called once agents have talked. Raises BenchError when what runs is not what the name
        of the system says."""
        ...


class Sender(Protocol):
    """The sending agent, connected."""

    async def send(self, window: Window) -> None:
        """Send every message of the window's bursts, the fastest way that is documented."""
        ...

    async def ask(self, body: bytes) -> bytes: ...


class SystemModule(Protocol):
    """What a module of a system has at its top level."""

    def run_programs(
        self, variant: str, folder: Path, children: Children
    ) -> AbstractContextManager[Programs]:
        """Start the programs and wait until they are ready. Raises BenchError."""
        ...

    def open_receiver(self, place: Place, inbox: Inbox) -> AbstractAsyncContextManager[Place]:
        """Hand one-way messages to the inbox, send asks back as they came.

        What it yields is added to the place at which the sender finds it.
        """
        ...

    def open_sender(self, place: Place) -> AbstractAsyncContextManager[Sender]: ...


@dataclass(frozen=True, slots=True)
class System:
    """One thing to measure. A variant is told to the module's ``run_programs``."""

    name: str
    title: str
    module_name: str
    variant: str = ""
    is_ours: bool = False

    @property
    def module(self) -> SystemModule:
        """Raises BenchError where a package that the system needs is not installed."""
        try:
            return cast("SystemModule", importlib.import_module(self.module_name))
        except ModuleNotFoundError as error:
            raise BenchError(
                f"{self.title}: no package {error.name!r}; it comes with the extra `bench`, which"
                " `./dev bench` installs"
            ) from None


OURS_DIRECT = System("ours-direct", "Sidelink, direct", "bench.messages.ours", "direct", True)
OURS_GATEWAY = System(
    "ours-gateway", "Sidelink, one gateway", "bench.messages.ours", "gateway", True
)
OURS_GATEWAY_1452 = System(
    "ours-gateway-1452",
    "Sidelink, one gateway, 1452 B datagrams",
    "bench.messages.ours",
    "gateway-1452",
    True,
)
NATS = System("nats", "NATS, TLS", "bench.messages.peer_nats")
ZMQ = System("zmq", "pyzmq, CURVE", "bench.messages.peer_zmq")
GRPC = System("grpc", "grpc.aio, mTLS", "bench.messages.peer_grpc")
SLIM = System("slim", "SLIM, MLS", "bench.messages.peer_slim")


def known_systems() -> Sequence[System]:
    """All that can be measured with the programs as they are: a setting that they do not have
    cannot be set."""
    ours = [OURS_GATEWAY]
    if "direct" in SidecarSettings.model_fields:
        ours.insert(0, OURS_DIRECT)
    if all("datagram_bytes" in model.model_fields for model in (GatewaySettings, SidecarSettings)):
        ours.append(OURS_GATEWAY_1452)
    return (*ours, NATS, ZMQ, GRPC, SLIM)
