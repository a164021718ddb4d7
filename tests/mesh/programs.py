"""The real programs as processes: started by the command line, watched through their own status."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from node.admin_client import admin_request
from node.state_folder import StatePaths

REPOSITORY: Final = Path(__file__).parents[2]
SIDELINK: Final = str(Path(sys.executable).with_name("sidelink"))
LOOPBACK: Final = "127.0.0.1"

# Far beyond what any of it takes: two cores may be busy with other tests.
WAIT_S: Final = 30.0
POLL_S: Final = 0.02
LOG_CHARACTERS: Final = 4_000

# Below the range from which the system hands out ports, so that nobody takes it in between.
_PORTS: Final = range(20_000, 32_000)


def free_udp_port() -> int:
    """A UDP port on loopback that nobody holds. The gateway's has to be known before it starts."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise AssertionError("no UDP port is free")


def clean_environment(**changes: str) -> dict[str, str]:
    """This process's own, without settings that were meant for another mesh."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SIDELINK_")}
    return kept | {"PYTHONUNBUFFERED": "1"} | changes


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """The first true value of ``condition``; AssertionError after ``timeout_s``."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline_s, f"waited {timeout_s:g} s for {what}"
        time.sleep(POLL_S)


class Program:
    """One process at a time of one program, on one state folder that outlives it."""

    def __init__(self, name: str, program: str, base: Path, command: tuple[str, ...]) -> None:
        self.name = name
        self.program = program
        self.base = base
        self.command = command
        self.executable: tuple[str, ...] = (SIDELINK,)
        self.flags: tuple[str, ...] = ()
        self.environment: Mapping[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.paths = StatePaths(base / program)
        self.log = base.with_suffix(".log")

    def write_state_file(self, name: str, text: str) -> Path:
        """Put a file where an operator would put it before the first start."""
        for folder in (self.base, self.paths.folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        path = self.paths.folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return path

    def start(self, *flags: str) -> None:
        """``flags`` are for this start only: a ticket, say, which is of use once."""
        assert not self.is_running, f"{self.name} runs already"
        arguments = (*self.command, "--state", str(self.base), *self.flags, *flags)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.executable, *arguments],
                cwd=REPOSITORY,
                env=clean_environment(**self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def agent_socket(self) -> Path:
        return self.paths.agent_socket

    def status(self) -> dict[str, Any]:
        return admin_request(self.paths.admin_socket, "GET", "/v1/status")

    def find_status(self) -> dict[str, Any]:
        """Empty while nobody answers."""
        assert self.is_running, f"{self.name} has ended: {self.log_tail()}"
        if not self.paths.admin_socket.exists():
            return {}
        try:
            return self.status()
        except Exception as error:
            if "no program answers" in str(error):
                return {}
            raise

    def wait_status(
        self, condition: Callable[[dict[str, Any]], Any], what: str, timeout_s: float = WAIT_S
    ) -> dict[str, Any]:
        """The first status that is so."""
        found: dict[str, Any] = {}

        def look() -> bool:
            nonlocal found
            found = self.find_status()
            return bool(found and condition(found))

        try:
            wait_until(look, what, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{self.name}: {error}; {found}\n{self.log_tail()}") from None
        return found

    def wait_ready(self) -> dict[str, Any]:
        return self.wait_status(lambda status: status["ready"], "being ready")

    def wait_audit(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first line of its audit log that is so; lines are written a little later."""

        def look() -> list[dict[str, Any]]:
            whole_lines = self.paths.audit.read_text().rpartition("\n")[0].splitlines()
            return [line for line in map(json.loads, whole_lines) if condition(line)]

        found: list[dict[str, Any]] = wait_until(look, f"an audit line of {self.name}")
        return found[0]

    def metrics(self) -> str:
        """What Prometheus would scrape."""
        port = self.status()["ports"]["ops"]
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def wait_end(self, timeout_s: float = WAIT_S) -> int:
        """The exit code."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stop(self, timeout_s: float = WAIT_S) -> int:
        """Ask it to stop, as a service manager does. Returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.wait_end(timeout_s)

    def kill(self) -> None:
        """As a power cut would end it. Harmless when it has ended."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait(WAIT_S)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self) -> str:
        return f"--- log of {self.name}\n{self.log_text()[-LOG_CHARACTERS:]}"


def run_sidelink(
    *arguments: str, timeout_s: float = WAIT_S, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command line once, to its end."""
    return subprocess.run(
        [SIDELINK, *arguments],
        env=clean_environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
