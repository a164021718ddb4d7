"""Who can reach the agents' socket: its owner, or the one group that was named, and nobody else."""

import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from identity import Code, SidelinkError
from sidecar import local_listeners as module
from sidecar.local_listeners import bind_loopback, bind_unix

GROUP = 23_456


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "agent.sock"


@pytest.fixture
def as_somebody() -> Iterator[None]:
    """Not root, who may give files to any group."""
    os.seteuid(12_345)
    yield
    os.seteuid(0)


def reach_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_gid


def test_without_a_group_the_owner_alone_reaches_the_socket(path: Path) -> None:
    with closing(bind_unix(path)):
        assert reach_of(path) == (0o600, os.getegid())
        assert reach_of(path.parent) == (0o700, os.getegid())


def test_a_group_reaches_the_socket_and_cannot_replace_it(path: Path) -> None:
    with closing(bind_unix(path, GROUP)):
        assert reach_of(path) == (0o660, GROUP)
        assert reach_of(path.parent) == (0o750, GROUP)


def test_a_folder_that_was_closed_is_opened_for_the_group(path: Path) -> None:
    path.parent.mkdir(mode=0o700)

    with closing(bind_unix(path, GROUP)):
        assert reach_of(path.parent) == (0o750, GROUP)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o751, 0o777])
def test_a_folder_that_is_open_wider_than_for_the_group_to_enter_is_refused(
    mode: int, path: Path
) -> None:
    path.parent.mkdir()
    path.parent.chmod(mode)

    with pytest.raises(SidelinkError) as caught:
        bind_unix(path, GROUP)

    assert caught.value.code is Code.CONFIG_STATE_UNSAFE
    assert "0750" in caught.value.detail
    assert reach_of(path.parent)[0] == mode


def test_a_folder_of_the_group_is_too_wide_when_no_group_is_named(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o750)

    with pytest.raises(SidelinkError, match="mode 0700"):
        bind_unix(path)


@pytest.mark.usefixtures("as_somebody")
def test_a_group_that_this_user_is_not_in_is_named_with_the_way_out() -> None:
    folder = Path(f"/tmp/sidelink-listeners-{os.getpid()}")
    try:
        with pytest.raises(SidelinkError) as caught:
            bind_unix(folder / "s", GROUP)
    finally:
        folder.rmdir()

    assert caught.value.code is Code.CONFIG_INVALID
    assert f"cannot be given to group {GROUP}" in caught.value.detail
    assert "start it as root" in getattr(caught.value, "remedy", "")


def test_no_moment_passes_in_which_others_could_connect(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    real: Callable[..., None] = os.chown

    def chown(what: Path, user: int, group: int) -> None:
        seen.append(reach_of(path.parent))
        real(what, user, group)

    monkeypatch.setattr(module.os, "chown", chown)
    with closing(bind_unix(path, GROUP)):
        # The folder is given away while nobody else may enter it, and the socket once it is.
        assert seen == [(0o700, os.getegid()), (0o750, GROUP)]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_loopback_port_is_free_to_choose(host: str) -> None:
    with closing(bind_loopback(host, 0)) as listener:
        assert listener.getsockname()[1] > 0


def test_a_loopback_port_that_is_taken_is_named() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        with pytest.raises(SidelinkError) as caught:
            bind_loopback("127.0.0.1", port)

    assert caught.value.code is Code.CONFIG_PORT_BUSY
    assert "agent_port" in getattr(caught.value, "remedy", "")
