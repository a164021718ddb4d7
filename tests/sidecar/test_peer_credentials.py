"""What the kernel says of a process that connects, and that a number taken again is nobody."""

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sidecar.local_port import FileIdentity
from sidecar.peer_credentials import (
    SO_PEERGROUPS,
    SO_PEERPIDFD,
    read_executable,
    read_groups,
    read_peer_credentials,
)

OWN_FILE = FileIdentity(
    *(getattr(os.stat(sys.executable), field) for field in ("st_dev", "st_ino"))
)

CONNECTS_AND_WAITS = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])"
IN_GROUPS = "import os; os.setgroups([int(n) for n in sys.argv[3:]]); "
LEAVES_IT_TO_A_CHILD = f"{CONNECTS_AND_WAITS}; import os\nif os.fork(): os._exit(0)"
UNTIL_TOLD = "\nimport os; os.write(1, b'x'); os.read(0, 1)"


class FakeTransport:
    def __init__(self, peer: object) -> None:
        self._peer = peer

    def get_extra_info(self, name: str) -> object:
        return self._peer if name == "socket" else None


class FakeSocket:
    """Answers as a kernel does that has only these options."""

    def __init__(self, **options: bytes) -> None:
        self._options = options

    def getsockopt(self, _level: int, option: int, _bytes: int, /) -> bytes:
        found = self._options.get(f"option_{option}")
        if found is None:
            raise OSError(92, "Protocol not available")
        return found


@contextmanager
def connected_by(script: str, folder: Path, *arguments: str) -> Iterator[socket.socket]:
    """Our end of a socket that another process connected to. It runs on until we are done."""
    path = folder / "s"
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        listener.settimeout(10)
        child = subprocess.Popen(
            [sys.executable, "-c", script + UNTIL_TOLD, path, "", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            accepted, _ = listener.accept()
            with closing(accepted):
                assert child.stdout.read(1) == b"x"
                yield accepted
        finally:
            child.stdin.close()
            child.stdout.close()
            child.wait(10)


def ended_process() -> int:
    """A pidfd of a process that is no more."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    descriptor = os.pidfd_open(child.pid)
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    return descriptor


def test_the_kernel_names_process_user_group_and_file(tmp_path: Path) -> None:
    with connected_by(CONNECTS_AND_WAITS, tmp_path) as peer:
        found = read_peer_credentials(FakeTransport(peer), executable=True)  # type: ignore[arg-type]

    assert (found.user_id, found.group_id) == (os.geteuid(), os.getegid())
    assert found.process_id not in (0, os.getpid())
    assert found.executable == OWN_FILE


def test_the_file_is_not_looked_at_unless_a_rule_asks(tmp_path: Path) -> None:
    with connected_by(CONNECTS_AND_WAITS, tmp_path) as peer:
        assert read_peer_credentials(FakeTransport(peer)).executable is None  # type: ignore[arg-type]


def test_supplementary_groups_are_those_of_the_one_who_connected(tmp_path: Path) -> None:
    script = "import sys; " + IN_GROUPS + CONNECTS_AND_WAITS
    with connected_by(script, tmp_path, "7001", "7002") as peer:
        assert read_groups(peer) == {7001, 7002}


def test_a_process_that_left_its_connection_to_another_runs_no_file(tmp_path: Path) -> None:
    with connected_by(LEAVES_IT_TO_A_CHILD, tmp_path) as peer:
        (process_id,) = struct.unpack("=i8x", peer.getsockopt(1, socket.SO_PEERCRED, 12))
        os.waitid(os.P_PID, process_id, os.WEXITED | os.WNOWAIT)

        assert read_executable(peer, process_id) is None


def test_a_process_id_that_was_taken_again_does_not_pose_as_the_one_who_connected() -> None:
    """The number is that of a living process, and the descriptor that of the one who connected."""
    peer = FakeSocket(**{f"option_{SO_PEERPIDFD}": struct.pack("=i", ended_process())})

    assert read_executable(peer, os.getpid()) is None


def test_a_kernel_without_descriptors_of_peers_is_asked_for_one_by_number() -> None:
    assert read_executable(FakeSocket(), os.getpid()) == OWN_FILE


def test_no_descriptor_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        read_executable(FakeSocket(), os.getpid())
        read_executable(FakeSocket(), 2**22 + 1)

    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("process_id", [0, 2**22 + 1])
def test_a_process_that_cannot_be_seen_runs_no_file(process_id: int) -> None:
    assert read_executable(FakeSocket(), process_id) is None


def test_a_kernel_that_tells_no_groups_grants_none() -> None:
    assert read_groups(FakeSocket()) == frozenset()
    assert read_groups(FakeSocket(**{f"option_{SO_PEERGROUPS}": struct.pack("=2I", 5, 6)})) == {
        5,
        6,
    }
