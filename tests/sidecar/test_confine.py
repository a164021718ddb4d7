"""What a child can do under the default isolation: its work, and nothing else."""

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from identity import Code
from sidecar import child as child_module
from sidecar import confine
from sidecar.child import Child, ChildError, ChildSettings, check_isolation, start_child

HERE = Path(__file__).parent
HOSTILE = str(HERE / "hostile_child.py")
PYTHON = (sys.executable, "-I", "-S")


@asynccontextmanager
async def running(settings: ChildSettings) -> AsyncIterator[Child]:
    async with asyncio.timeout(20):
        child = await start_child(settings)
        try:
            yield child
        finally:
            await child.stop()


async def output_of(code: str, hidden: Path, **changes: Any) -> str:
    settings = ChildSettings(command=(*PYTHON, "-c", code), hidden=(hidden,), **changes)
    async with running(settings) as child:
        said, complained = await asyncio.gather(child.stdout.read(), child.stderr.read())
    return (said + complained).decode().strip()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    (folder / "run").mkdir(parents=True)
    (folder / "master.key").write_bytes(b"hunter2")
    return folder


@pytest.fixture
def agent_socket(state: Path) -> AsyncIterator[Path]:  # type: ignore[misc]
    # In a short folder of its own: a path in a test's folder may be too long for a socket.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder, "agent.sock")
        listener.bind(str(path))
        listener.listen()
        yield path


async def test_a_hostile_child_is_refused_all_it_tries(
    state: Path, agent_socket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDELINK_MASTER_KEY", "hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    outside = tmp_path / "outside"
    outside.mkdir()
    arguments = (HOSTILE, str(state), str(agent_socket), str(outside))
    with socket.socket() as held:
        held.set_inheritable(True)
        async with running(ChildSettings(command=(*PYTHON, *arguments), hidden=(state,))) as child:
            said, complained = await asyncio.gather(child.stdout.read(), child.stderr.read())
    assert said, complained
    outcomes: dict[str, str] = json.loads(said)
    obtained = {name: got for name, got in outcomes.items() if not got.startswith("refused")}
    assert obtained == {}
    assert len(outcomes) >= 42
    assert (state / "master.key").read_bytes() == b"hunter2"


REAL_ATTEMPTS = (
    "open the state",
    "list the state",
    "open the state to other users",
    "the sidecar's own limits",
    "by its own root",
    "by the parent's root",
    "the parent's environment",
    "connect to the agents' socket",
    "a hard link",
    "signal the sidecar",
    "write beside its own folders",
)


async def test_the_same_attempts_succeed_without_isolation(
    state: Path, agent_socket: Path, tmp_path: Path
) -> None:
    """Proves that the attempts are real, with those that do no harm where they succeed."""
    arguments = (HOSTILE, str(state), str(agent_socket), str(tmp_path), *REAL_ATTEMPTS)
    settings = ChildSettings(command=(*PYTHON, *arguments), hidden=(state,), unsafe_same_uid=True)
    async with running(settings) as child:
        said, complained = await asyncio.gather(child.stdout.read(), child.stderr.read())
    assert said, complained
    refused = {name: got for name, got in json.loads(said).items() if got.startswith("refused")}
    assert refused == {}


async def test_also_without_isolation_no_descriptor_is_passed_on(state: Path) -> None:
    code = "import os; print(os.listdir('/proc/self/fd'))"
    said = await output_of(code, state, unsafe_same_uid=True)
    # The fourth is the listing's own.
    assert said == "['0', '1', '2', '3']"


async def test_a_child_can_work(state: Path, tmp_path: Path) -> None:
    """Event loops, threads, processes, temporary files, loopback TCP and name look-ups."""
    code = """
import asyncio, multiprocessing, os, socket, subprocess, tempfile, threading
async def loop():
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    await asyncio.open_connection(*server.sockets[0].getsockname())
    return (await asyncio.to_thread(lambda: 1)) + 1
print(asyncio.run(loop()))
print(subprocess.run(["/bin/echo", "hello"], capture_output=True, check=True).stdout)
with tempfile.NamedTemporaryFile() as file: file.write(b"x")
multiprocessing.Lock()
open("/dev/null", "w").write("x"); open("/dev/urandom", "rb").read(1)
print(open("/etc/hostname").read() != "", socket.gethostbyname("localhost"))
"""
    said = await output_of(code, state)
    assert said.splitlines() == ["2", "b'hello\\n'", "True 127.0.0.1"]


async def test_a_child_writes_where_it_is_told_it_may(state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    code = f"open({str(folder / 'x')!r}, 'w').write('kept')"
    assert await output_of(code, state, writable=(folder,)) == ""
    assert (folder / "x").read_text() == "kept"


async def test_a_child_with_a_folder_of_its_own_sets_modes_there(
    state: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    tool = shared / "tool"
    code = f"import os; open({str(tool)!r}, 'w').close(); os.chmod({str(tool)!r}, 0o755)"
    said = await output_of(code, state, writable=(shared,))
    assert said == ""
    assert tool.stat().st_mode & 0o777 == 0o755


async def test_a_child_limits_itself(state: Path) -> None:
    code = "import resource as r; r.setrlimit(r.RLIMIT_CORE, (0, 0)); print('done')"
    assert await output_of(code, state) == "done"


async def test_its_temporary_folder_goes_with_it(state: Path) -> None:
    said = await output_of("import os; print(os.environ['TMPDIR'])", state)
    assert said.startswith(str(state))
    assert not await asyncio.to_thread(os.path.exists, said)


async def test_one_child_cannot_look_into_the_temporary_folder_of_another(state: Path) -> None:
    code = "import os, sys; print(os.environ['TMPDIR'], flush=True); sys.stdin.read()"
    async with running(ChildSettings(command=(*PYTHON, "-c", code), hidden=(state,))) as one:
        folder = (await one.stdout.readline()).decode().strip()
        said = await output_of(f"import os; os.listdir({folder!r})", state)
    assert "PermissionError" in said


async def test_a_single_file_can_be_hidden(state: Path, tmp_path: Path) -> None:
    token, beside = tmp_path / "token", tmp_path / "beside"
    token.write_text("hunter2")
    beside.write_text("seen")
    settings = ChildSettings(command=("/bin/cat", str(token), str(beside)), hidden=(state, token))
    async with running(settings) as child:
        said, complained = await asyncio.gather(child.stdout.read(), child.stderr.read())
    assert said == b"seen"
    assert b"Permission denied" in complained


async def test_what_it_starts_is_confined_too(state: Path) -> None:
    code = f"import os; os.execv('/bin/cat', ['cat', {str(state / 'master.key')!r}])"
    assert "Permission denied" in await output_of(code, state)


async def test_it_is_in_a_session_of_its_own(state: Path) -> None:
    said = await output_of("import os; print(os.getsid(0) == os.getpid() == os.getpgrp())", state)
    assert said == "True"


async def test_its_environment_is_what_is_allowed_and_what_is_configured(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDELINK_TOKEN", "hunter2")
    code = "import os; print(sorted(set(os.environ) - {'LC_CTYPE'}))"
    said = await output_of(code, state, environment={"API_KEY": "of the server"})
    names = set(json.loads(said.replace("'", '"')))
    assert {"API_KEY", "PATH", "TMPDIR"} <= names
    assert names <= {*child_module.ENVIRONMENT_ALLOWED, "API_KEY", "TMPDIR"}


async def test_it_dies_with_the_sidecar_even_by_a_crash(state: Path) -> None:
    """The sidecar is played by a process that starts a child and is killed."""
    code = f"""
import asyncio, sys
from pathlib import Path
from sidecar.child import ChildSettings, start_child
async def main():
    child = await start_child(ChildSettings(
        command=(sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"),
        hidden=(Path({str(state)!r}),)))
    await child.stdout.readline()
    print(child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    async with asyncio.timeout(20):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, cwd=HERE.parent.parent
        )
        assert process.stdout is not None
        pid = int(await process.stdout.readline())
        os.kill(pid, 0)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await _gone(pid)


async def test_stopping_kills_what_it_started_too(state: Path) -> None:
    code = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pid = os.fork()
if pid: print(pid, flush=True)
time.sleep(60)
"""
    async with asyncio.timeout(20):
        child = await start_child(ChildSettings(command=(*PYTHON, "-c", code), hidden=(state,)))
        grandchild = int(await child.stdout.readline())
        await child.stop(grace_s=0.05)
        await _gone(grandchild)
        await _gone(child.pid)


def _is_gone(pid: int) -> bool:
    """Gone, or a zombie that nobody here can reap."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] in "ZX"


async def _gone(pid: int) -> None:
    for _ in range(500):
        if _is_gone(pid):
            return
        await asyncio.sleep(0.01)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    raise AssertionError("the process is still there")


async def test_isolation_is_proved_at_start_up(state: Path) -> None:
    await check_isolation((state,))


def _launcher_without_landlock(folder: Path) -> Path:
    source = Path(confine.__file__).read_text()
    asked = "def landlock_abi() -> int:\n"
    assert asked in source
    launcher = folder / "launcher.py"
    launcher.write_text(source.replace(asked, f"{asked}    return 0\n"))
    return launcher


async def test_without_isolation_start_up_refuses(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel without Landlock is played by a launcher that says so."""
    launcher = _launcher_without_landlock(tmp_path)
    monkeypatch.setattr(confine, "__file__", str(launcher))
    with pytest.raises(ChildError) as refused:
        await check_isolation((state,))
    assert refused.value.code is Code.CONFIG_ISOLATION_UNAVAILABLE
    assert "no Landlock" in refused.value.detail


@pytest.mark.parametrize("below", [True, False])
async def test_a_writable_folder_may_not_overlap_a_hidden_one(state: Path, below: bool) -> None:
    overlapping = state / "run" if below else state.parent
    said = await output_of("print('ran')", state, writable=(overlapping,))
    assert "overlaps a hidden one" in said


def test_the_rules_name_no_ancestor_of_what_is_hidden_and_no_link(tmp_path: Path) -> None:
    hidden = tmp_path / "a" / "state"
    hidden.mkdir(parents=True)
    (tmp_path / "a" / "beside").mkdir()
    (tmp_path / "a" / "link").symlink_to(hidden)
    paths = {path for path, _ in confine.plan_rules([str(hidden)], [])}
    assert str(tmp_path / "a" / "beside") in paths
    assert not paths & {str(hidden), str(tmp_path / "a" / "link"), "/", "/dev"}
    assert not paths & {str(parent) for parent in hidden.parents}


@pytest.mark.parametrize("machine", confine.ARCHITECTURES)
@pytest.mark.parametrize("may_set_modes", [False, True])
def test_every_jump_of_the_filter_stays_within_it(machine: str, may_set_modes: bool) -> None:
    architecture = confine.ARCHITECTURES[machine]
    program = confine.filter_program(architecture, may_set_modes=may_set_modes)
    for index, (operation, if_true, if_false, _) in enumerate(program):
        if operation & 0x07 == 0x05:
            assert index + 1 + max(if_true, if_false) < len(program)
    assert program[-1][0] == 0x06
    assert len(program) < 4096
