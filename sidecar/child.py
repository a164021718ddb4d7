"""Starts a command beside the sidecar so that it ends with it and knows nothing of it."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from identity import Code, SidelinkError
from sidecar import confine

LINE_BYTES_MAX: Final = 8 * 1024 * 1024
STDERR_LINE_BYTES_MAX: Final = 4096
STDERR_LOG_BYTES_MAX: Final = 64 * 1024
CHECK_S_MAX: Final = 10.0
STOP_GRACE_S: Final = 2.0

# Nothing else of the sidecar's environment reaches a child: tokens and master keys live there.
ENVIRONMENT_ALLOWED: Final = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "TZ", "USER")

_log = structlog.get_logger(__name__)


class ChildError(SidelinkError):
    """The command did not start, or cannot be confined here."""


@dataclass(frozen=True, slots=True)
class ChildSettings:
    """`hidden` folders and files are invisible; only `writable` folders and TMPDIR can be written.

    TMPDIR is made within the first hidden folder, so that no other child can look into it.
    """

    command: tuple[str, ...]
    hidden: tuple[Path, ...]
    writable: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    working_folder: Path = Path("/")
    unsafe_same_uid: bool = False


class Child:
    """A running command with its three pipes. `stop` is the only way to end it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        stdin: asyncio.StreamWriter,
        stdout: asyncio.StreamReader,
        stderr: asyncio.StreamReader,
        temporary_folder: str,
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._process = process
        self._temporary_folder = temporary_folder

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        return await self._process.wait()

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End of input first, as stdio servers expect; then its own process group is killed."""
        self.stdin.close()
        try:
            async with asyncio.timeout(grace_s):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            # The leader may be gone and its group not: what it started must not stay behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await asyncio.shield(self._process.wait())
            await asyncio.to_thread(shutil.rmtree, self._temporary_folder, ignore_errors=True)

    async def log_stderr(self, **fields: str) -> None:
        """Until its end, and within a budget: a child must not fill the disk through our log."""
        left = STDERR_LOG_BYTES_MAX
        while chunk := await self.stderr.read(STDERR_LINE_BYTES_MAX):
            if left <= 0:
                continue
            left -= len(chunk)
            text = chunk.decode(errors="replace").rstrip()
            # What a server complains of may quote what it was asked: not for an ordinary log.
            _log.debug("child_stderr", pid=self.pid, text=text, silenced=left <= 0, **fields)


async def check_isolation(hidden: tuple[Path, ...]) -> None:
    """Prove at start-up, by confining a command that does nothing, that children can be.

    Raises ChildError(CONFIG_ISOLATION_UNAVAILABLE).
    """
    command = (sys.executable, "-I", "-S", "-c", "")
    child = await start_child(ChildSettings(command=command, hidden=hidden))
    try:
        async with asyncio.timeout(CHECK_S_MAX):
            said = await child.stderr.read(STDERR_LINE_BYTES_MAX)
            status = await child.wait()
    except TimeoutError:
        said, status = b"timed out", confine.EXIT_UNAVAILABLE
    finally:
        await child.stop()
    if status != 0:
        raise ChildError(Code.CONFIG_ISOLATION_UNAVAILABLE, said.decode(errors="replace").strip())


async def start_child(settings: ChildSettings) -> Child:
    """Raises ChildError when the launcher cannot be started; the command's own failure to start
    shows as its end."""
    temporary = await asyncio.to_thread(_make_temporary_folder, settings)
    # Own pipes: the loop's would be Unix sockets, which a child should not hold.
    ours: list[int] = []
    theirs: list[int] = []
    try:
        for _ in range(3):
            read_end, write_end = os.pipe()
            ours.append(write_end if len(ours) == 0 else read_end)
            theirs.append(read_end if len(theirs) == 0 else write_end)
        process = await asyncio.create_subprocess_exec(
            *_launcher(settings, temporary),
            stdin=theirs[0],
            stdout=theirs[1],
            stderr=theirs[2],
            env=_environment(settings, temporary),
            cwd=settings.working_folder,
            close_fds=True,
            start_new_session=True,
        )
    except OSError as error:
        for descriptor in ours:
            os.close(descriptor)
        shutil.rmtree(temporary, ignore_errors=True)
        raise ChildError(Code.STREAM_UPSTREAM_FAILED, f"{settings.command[0]}: {error}") from None
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    stdin = await _writer(ours[0])
    stdout = await _reader(ours[1], LINE_BYTES_MAX)
    stderr = await _reader(ours[2], STDERR_LINE_BYTES_MAX)
    return Child(process, stdin, stdout, stderr, temporary)


def _make_temporary_folder(settings: ChildSettings) -> str:
    within = next((path for path in settings.hidden if path.is_dir()), None)
    return tempfile.mkdtemp(prefix="child-", dir=within)


def _launcher(settings: ChildSettings, temporary: str) -> list[str]:
    arguments = [sys.executable, "-I", "-S", confine.__file__, "--parent", str(os.getpid())]
    for path in settings.hidden:
        arguments += ["--hide", str(path)]
    for path in settings.writable:
        arguments += ["--writable", str(path)]
    arguments += ["--private", temporary]
    if settings.unsafe_same_uid:
        arguments.append("--unsafe-same-uid")
    return [*arguments, "--", *settings.command]


def _environment(settings: ChildSettings, temporary: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ENVIRONMENT_ALLOWED if name in os.environ}
    return kept | {"TMPDIR": temporary} | dict(settings.environment)


async def _reader(descriptor: int, limit_bytes: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=limit_bytes)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    return reader


async def _writer(descriptor: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(descriptor, "wb", buffering=0)
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)
