"""The virtual environments of the demo's agents: made once, kept in a cache, and made again when
what they were made from has changed.
"""

import asyncio
import fcntl
import hashlib
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from cli.demo.children import Children
from cli.demo.faults import DemoError

FILES: Final = Path(__file__).parent / "files"
LOCK_S_MAX: Final = 300.0
LOCK_POLL_S: Final = 0.2
_CHECKOUT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Venv:
    """One environment, and what pip is told to put into it."""

    folder: Path
    wanted: tuple[str, ...]
    sources: tuple[Path, ...] = ()
    """Files whose contents decide whether it is still what it should be."""

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def is_current(self) -> bool:
        try:
            return self._stamp.read_text() == self._fingerprint() and self.python.exists()
        except OSError:
            return False

    def mark_current(self) -> None:
        self._stamp.write_text(self._fingerprint())

    @property
    def _stamp(self) -> Path:
        return self.folder / "sidelink-demo-stamp"

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr((sys.version, str(self.folder), self.wanted)).encode())
        for source in self.sources:
            digest.update(source.read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Venvs:
    """What each of the demo's agents runs in."""

    sdk: Venv
    assistant: Venv
    clock: Venv

    @classmethod
    def in_cache(cls) -> "Venvs":
        cache, sdk = cache_folder(), _CHECKOUT / "sdk"
        assistant, clock = FILES / "assistant.txt", FILES / "clock.txt"
        if _is_checkout():
            from_sdk = Venv(cache / "sdk", (str(sdk),), tuple(_files_of(sdk)))
        else:
            from_sdk = Venv(cache / "sdk", (f"sidelink=={version('sidelink')}",))
        return cls(
            sdk=from_sdk,
            assistant=Venv(cache / "assistant", ("-r", str(assistant)), (assistant,)),
            clock=Venv(cache / "clock", ("-r", str(clock)), (clock,)),
        )

    async def ensure(self, children: Children, temporary: Path, say: Callable[[str], None]) -> None:
        """Install what is missing. Raises DemoError."""
        everyone = (self.sdk, self.assistant, self.clock)
        if all(venv.is_current for venv in everyone):
            return
        cache = cache_folder()
        cache.mkdir(parents=True, exist_ok=True)
        say("installing the agents' environments (once; about half a minute)")
        async with _locked(cache / "lock"):
            missing = [venv for venv in everyone if not venv.is_current]
            await asyncio.gather(*(_install(children, venv, temporary) for venv in missing))


def cache_folder() -> Path:
    """Within the checkout, where git ignores it; else where a user's caches are."""
    if _is_checkout():
        return _CHECKOUT / ".demo"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sidelink" / "demo"


async def _install(children: Children, venv: Venv, temporary: Path) -> None:
    name = f"install {venv.folder.name}"
    has_pip = importlib.util.find_spec("pip") is not None
    options = ["--without-pip"] if has_pip else []
    python, folder = sys.executable, venv.folder
    # pip's own temporary files go where ours go, so that an interruption leaves none.
    environment = {"TMPDIR": str(temporary)}
    await children.run(
        name, [python, "-m", "venv", "--clear", *options, folder], environment=environment
    )
    pip: list[str | Path] = [venv.python, "-m", "pip"]
    if has_pip:
        pip = [python, "-m", "pip", "--python", venv.python]
    quietly = ["--disable-pip-version-check", "--no-input", "--quiet"]
    await children.run(
        name,
        [*pip, *quietly, "install", "--prefer-binary", *venv.wanted],
        environment=environment,
    )
    venv.mark_current()


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Two demos in one checkout must not install over each other."""
    deadline_s = asyncio.get_running_loop().time() + LOCK_S_MAX
    with path.open("wb") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if asyncio.get_running_loop().time() > deadline_s:
                    raise DemoError(f"another demo has been installing for long: {path}") from None
            await asyncio.sleep(LOCK_POLL_S)
        yield


def _is_checkout() -> bool:
    return (_CHECKOUT / "sdk" / "pyproject.toml").is_file()


def _files_of(folder: Path) -> Iterable[Path]:
    return sorted(
        path
        for path in (folder / "pyproject.toml", *(folder / "sidelink").rglob("*.py"))
        if path.is_file()
    )
