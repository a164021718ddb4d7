"""A whole mesh of processes: an authority, a gateway, and two sidecars enrolled by ticket."""

import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from identity import Ticket
from node.admin_client import admin_request
from node.errors import ConfigError
from node.store import Store
from tests.impairment.process import ProxyProcess
from tests.mesh.programs import LOOPBACK, Program, free_udp_port, wait_until

TRUST_DOMAIN: Final = "acme"
AUTO: Final = ("auto", "auto", "auto")

# What each sidecar's agents may be called, and what may be said of them.
A_TICKET: Final = {
    "name": "node/a",
    "prefixes": ["finance"],
    "allowed_attributes": {"role": None, "clearance": [1, 2, 3], "teams": None},
    "attributes": {"site": "north"},
}
B_TICKET: Final = {
    "name": "node/b",
    "prefixes": ["billing"],
    "allowed_attributes": {"role": None},
}


class Mesh:
    """Programs on state folders of their own in one short folder, all gone at the end."""

    def __init__(
        self,
        engines: tuple[str, str, str] = AUTO,
        trust_domain: str = TRUST_DOMAIN,
        *,
        gateways: int = 1,
    ):
        # Short, since the path of a Unix socket is: pytest's own folders are too deep for some.
        self.folder = Path(tempfile.mkdtemp(prefix="mesh-"))
        self.trust_domain = trust_domain
        addresses = [f"{LOOPBACK}:{free_udp_port()}" for _ in range(gateways)]
        self.gateway_address = addresses[0]
        self._stack = ExitStack()
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.programs: list[Program] = []
        self.proxies: dict[str, ProxyProcess] = {}
        """By the sidecar that reaches the gateway through it; empty until they are put there."""
        gateway_engine, a_engine, b_engine = engines
        self.authority = self._program("auth", "authority", ("authority", "up"))
        self.authority.flags = (
            *("--trust-domain", trust_domain),
            *("--gateways", ",".join(addresses)),
            *("--quic-engine", gateway_engine, "--ops-port", "0"),
        )
        self.gateways = [
            self._gateway(f"gw{number or ''}", address, gateway_engine)
            for number, address in enumerate(addresses)
        ]
        self.gateway = self.gateways[0]
        self.a = self.sidecar("a", engine=a_engine)
        self.b = self.sidecar("b", engine=b_engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            error.add_note(self.logs())
        self._stack.close()

    def sidecar(self, name: str, *, engine: str = "auto") -> Program:
        """A further sidecar on a folder of its own, not started yet."""
        program = self._program(name, "sidecar", ("up",))
        program.flags = (
            *("--listen", f"{LOOPBACK}:0", "--quic-engine", engine),
            *("--ops-port", "0", "--mcp-port", "0"),
        )
        return program

    def second_gateway(self) -> Program:
        """A further gateway on an empty folder, not started yet. No authority dials it."""
        name = f"gw-{len(self.programs)}"
        program = self._program(name, "gateway", ("gateway", "up"))
        program.flags = ("--listen", f"{LOOPBACK}:0", "--ops-port", "0")
        return program

    def up(self) -> Self:
        """Start everything, enrol it, and wait until it is ready."""
        self.authority.start()
        self.authority.wait_status(bool, "its admin socket")
        for gateway in self.gateways:
            name = f"node/{gateway.name}"
            gateway.start("--ticket", self.ticket(role="gateway", name=name))
            gateway.wait_ready()
        self.a.start("--ticket", self.ticket(**A_TICKET))
        self.b.start("--ticket", self.ticket(**B_TICKET))
        self.a.wait_ready()
        self.b.wait_ready()
        return self

    def put_proxies_between(self, *, seed: int = 0) -> Self:
        """From now on each sidecar reaches the gateway through a proxy process of its own.

        The proxies only forward until they are told otherwise. The authority tells all nodes one
        address of a gateway; so that each sidecar has another, it is written into its state.
        """
        for number, program in enumerate((self.a, self.b)):
            proxy = ProxyProcess(self.gateway_address, seed=seed + number)
            self._stack.callback(proxy.close)
            self.proxies[program.name] = proxy
            assert program.stop() == 0, program.log_tail()
            with Store.open(program.paths.database) as store:
                (gateway,) = store.gateways()
                host, port = proxy.address.host, proxy.address.port
                store.replace_gateways((replace(gateway, host=host, port=port),))
            program.start()
        self.a.wait_ready()
        self.b.wait_ready()
        return self

    def heal(self) -> None:
        """Start again whatever a test has stopped."""
        for program in (self.authority, *self.gateways, self.a, self.b):
            if not program.is_running:
                program.start()
        for program in (*self.gateways, self.a, self.b):
            program.wait_ready()

    def ticket(self, **wishes: Any) -> str:
        """A ticket, asked for as the command line does. Waits while no gateway has enrolled yet."""

        def ask() -> str | None:
            try:
                answer = admin_request(
                    self.authority.paths.admin_socket, "POST", "/v1/tickets", wishes
                )
            except ConfigError as error:
                if error.code.text != "enrol.no_gateway":
                    raise
                return None
            return str(answer["ticket"])

        return str(wait_until(ask, "a ticket"))

    def read_ticket(self, **wishes: Any) -> Ticket:
        """A ticket, taken apart, for those who want to forge one."""
        return Ticket.parse_untrusted(self.ticket(**wishes))

    def uri(self, path: str) -> str:
        return f"agent://{self.trust_domain}/{path}"

    def logs(self) -> str:
        return "\n".join(program.log_tail() for program in self.programs)

    def _gateway(self, name: str, address: str, engine: str) -> Program:
        program = self._program(name, "gateway", ("gateway", "up"))
        program.flags = ("--listen", address, "--quic-engine", engine, "--ops-port", "0")
        return program

    def _program(self, name: str, program: str, command: tuple[str, ...]) -> Program:
        made = Program(name, program, self.folder / name, command)
        self.programs.append(made)
        self._stack.callback(made.kill)
        return made
