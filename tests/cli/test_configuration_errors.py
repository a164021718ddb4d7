"""The real command, set up wrongly: one paragraph with file, line and remedy, and no traceback."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from identity import Identifier, Ticket
from node.state_folder import StateFolder

SIDELINK = Path(sys.executable).with_name("sidelink")
SOMEBODY_ELSE = 12_345
RUN_S_MAX = 20.0
GATEWAY_TICKET = Ticket("acme", Identifier(bytes(32)), (), bytes(16), expires_unix_s=2**31)


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SIDELINK_")}
    return kept | changes


def run_sidelink(
    *words: str | Path, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SIDELINK, *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        stdin=subprocess.DEVNULL,
        env=environment(**(variables or {})),
    )


@dataclass(frozen=True)
class Wrong:
    """What is wrong, and what the one paragraph must hold."""

    words: tuple[str, ...]
    holds: tuple[str, ...]
    spoil: Callable[[Path], object] = lambda state: None
    variables: tuple[tuple[str, str], ...] = ()


def config(program: str, text: str) -> Callable[[Path], object]:
    return file_in(program, "config.yaml", text)


def file_in(program: str, name: str, text: str) -> Callable[[Path], object]:
    def spoil(state: Path) -> None:
        (state / program).mkdir(mode=0o700)
        (state / program / name).write_text(text)

    return spoil


def folder_of_somebody_else(state: Path) -> None:
    (state / "sidecar").mkdir(mode=0o700)
    os.chown(state / "sidecar", SOMEBODY_ELSE, SOMEBODY_ELSE)


CASES = {
    "an unknown key": Wrong(
        ("up",),
        ("config.unknown_key", "sidecar/config.yaml:2", "ops_prt", "Did you mean ops_port?"),
        config("sidecar", "log_level: info\nops_prt: 1\n"),
    ),
    "malformed settings": Wrong(
        ("gateway", "up"),
        ("config.invalid", "gateway/config.yaml:1", "host:port"),
        config("gateway", "listen: everywhere\n"),
    ),
    "settings that are not YAML": Wrong(
        ("authority", "up"),
        ("config.invalid", "authority/config.yaml:2"),
        config("authority", "ops_port: 0\n  gateways: [a:1\n"),
    ),
    "an unknown variable": Wrong(
        ("up",),
        ("config.unknown_key", "SIDELINK_OPS_PRT", "SIDELINK_OPS_PORT"),
        variables=(("SIDELINK_OPS_PRT", "1"),),
    ),
    "a malformed policy": Wrong(
        ("authority", "up", "--ops-port", "0"),
        ("config.policy_invalid", "authority/policy.yaml:3"),
        file_in("authority", "policy.yaml", "apiVersion: sidelink/v1\nkind: Policy\nruls: []\n"),
    ),
    "an unknown CEL name in a policy": Wrong(
        ("authority", "up", "--ops-port", "0"),
        ("config.policy_invalid", "authority/policy.yaml:7", "clearence"),
        file_in(
            "authority",
            "policy.yaml",
            "apiVersion: sidelink/v1\nkind: Policy\nmetadata: {name: a}\n"
            "attributes: {clearance: int}\nrules:\n"
            "  - {name: a, effect: allow, actions: [message.ask], from: {}, to: {},\n"
            "     when: subject.clearence > 1}\n",
        ),
    ),
    "a state folder of another user": Wrong(
        ("up",),
        ("config.state_unsafe", "sidecar", f"user {SOMEBODY_ELSE}", "chown"),
        folder_of_somebody_else,
    ),
    "a state folder that others may read": Wrong(
        ("up",),
        ("config.state_unsafe", "sidecar", "0755", "chmod 0700"),
        lambda state: (state / "sidecar").mkdir(mode=0o755),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_configuration_is_one_paragraph_and_exit_code_2(case: str, tmp_path: Path) -> None:
    wrong = CASES[case]
    wrong.spoil(tmp_path)

    done = run_sidelink(*wrong.words, "--state", tmp_path, variables=dict(wrong.variables))

    assert_one_paragraph(done, *wrong.holds)


def test_a_state_folder_in_use_is_refused(tmp_path: Path) -> None:
    with StateFolder.open(tmp_path / "sidecar"):
        done = run_sidelink("up", "--state", tmp_path)

    assert_one_paragraph(done, "config.state_locked", f"pid {os.getpid()}")


def test_a_busy_ops_port_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run_sidelink("authority", "up", "--state", tmp_path, "--ops-port", str(port))

    assert_one_paragraph(done, "config.port_busy", f"127.0.0.1:{port}", "--ops-port")


def test_a_busy_udp_port_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        done = run_sidelink(
            "gateway",
            "up",
            *("--state", tmp_path, "--ops-port", "0", "--listen", listen),
            variables={"SIDELINK_TICKET": GATEWAY_TICKET.encode()},
        )

    assert_one_paragraph(done, "config.port_busy", listen)


def assert_one_paragraph(done: subprocess.CompletedProcess[str], *holds: str) -> None:
    talk = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(talk) == 1, done.stderr
    assert talk[0].startswith("sidelink: ")
    assert [part for part in holds if part not in talk[0]] == []
