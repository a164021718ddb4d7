"""Finds the policy of a program: policy.yaml and policy.d/*.yaml in its state folder, together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from identity import Code
from node.errors import ConfigError
from node.settings_source import read_text_bounded
from node.state_folder import (
    POLICY_FILE_NAME,
    POLICY_FILES_MAX,
    StateFolder,
    StatePaths,
    check_not_writable_by_others,
    write_atomically,
)
from policy import STARTER_POLICY, PolicyEngine, PolicySource

POLICY_BYTES_MAX: Final = 1 << 20
BUNDLE_BYTES_MAX: Final = 16 << 20
SUFFIXES: Final = (".yaml", ".yml")

assert POLICY_BYTES_MAX <= BUNDLE_BYTES_MAX

_log = structlog.get_logger("node.policy")


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells that a file is another, without reading it."""

    path: Path
    number: int
    mode: int
    owner: int
    size_bytes: int
    modified_ns: int
    changed_ns: int


def find_policy_files(paths: StatePaths) -> tuple[Path, ...]:
    """What there is of a policy: policy.yaml, then the files of policy.d by name. May be nothing.

    Names that begin with a dot are those of editors and mounts. Raises ConfigError for a folder
    that cannot be listed, for too many files, and for a name that was surely meant and is not read.
    """
    found = [paths.policy] if paths.policy.exists() else []
    return (*found, *files_in(paths.policy_folder))


def files_in(folder: Path) -> tuple[Path, ...]:
    """The policy files of one folder, by name; none when there is no such folder."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{folder}: cannot be listed: {error.strerror}",
            remedy="Make it a folder that this user may read, or remove it.",
        ) from None
    chosen = [name for name in names if name.endswith(SUFFIXES) and not name.startswith(".")]
    for name in chosen:
        if not POLICY_FILE_NAME.fullmatch(name):
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"{folder / name}: a policy's file has a name that is not read",
                remedy="Use letters, digits, dots, _ and -, and end it in .yaml; or move it away.",
            )
    if len(chosen) > POLICY_FILES_MAX:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{folder}: {len(chosen)} files; at most {POLICY_FILES_MAX} are read",
            remedy="Put rules that belong together into one file.",
        )
    return tuple(folder / name for name in chosen)


def look_at(paths: StatePaths) -> tuple[FileState | str, ...]:
    """What the files look like from outside: another answer when anything may have changed."""
    try:
        return tuple(map(_state_of, find_policy_files(paths)))
    except ConfigError as exc:
        return (exc.detail,)


def read_sources(paths: StatePaths) -> tuple[PolicySource, ...]:
    """The text of every file. Raises ConfigError for one that cannot be used."""
    check_not_writable_by_others(paths.policy_folder)
    sources: list[PolicySource] = []
    left_bytes = BUNDLE_BYTES_MAX
    for path in find_policy_files(paths):
        check_not_writable_by_others(path)
        text = read_text_bounded(path, POLICY_BYTES_MAX)
        left_bytes -= len(text)
        if left_bytes < 0:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"{path}: with it the policy has more than {BUNDLE_BYTES_MAX} characters",
                remedy="Make rules that say the same of several into one, with a list.",
            )
        sources.append(PolicySource(str(path), text))
    return tuple(sources)


def load_policy(folder: StateFolder) -> tuple[tuple[PolicySource, ...], PolicyEngine]:
    """The policy at a start. A first start writes the commented policy to begin with.

    A policy that is missing later denies everything and leaves the program not ready: it is never
    written anew, since whoever removed it did not ask for the starter's rules. A malformed one
    raises PolicyError with file, line and remedy.
    """
    sources = read_sources(folder)
    if not sources:
        if not folder.is_first_start:
            _log.error("policy_missing", path=str(folder.policy), effect="everything is denied")
            return (), PolicyEngine.deny_all()
        write_atomically(folder.policy, STARTER_POLICY.encode())
        _log.info("policy_written", path=str(folder.policy))
        sources = read_sources(folder)
    return sources, PolicyEngine.load_bundle(sources)


def read_policy(path: Path) -> PolicyEngine:
    """The policy of a file, or of all files of a folder, for whoever wants to look at one.

    Raises PolicyError for a malformed policy, ConfigError for a file that cannot be read.
    """
    return PolicyEngine.load_bundle(read_bundle_at(path))


def read_bundle_at(path: Path) -> Sequence[PolicySource]:
    """The texts of a file, or of all files of a folder. Raises ConfigError."""
    files = files_in(path) if path.is_dir() else (path,)
    return [PolicySource(str(file), read_text_bounded(file, POLICY_BYTES_MAX)) for file in files]


def _state_of(path: Path) -> FileState | str:
    try:
        found = path.stat()
    except OSError as error:
        return f"{path}: {error.strerror}"  # A link to nothing, or in the middle of a change.
    return FileState(
        path,
        found.st_ino,
        found.st_mode,
        found.st_uid,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )
