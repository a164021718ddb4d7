"""The settings file as a source of pydantic-settings, read by the strict YAML loader."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from identity import Code
from node.errors import ConfigError
from policy.strict_yaml import Positions, load_strict

CONFIG_FILE_NAME: Final = "config.yaml"
CONFIG_BYTES_MAX: Final = 1 << 20
# They say where the file is, so the file cannot say it again.
FLAG_OR_ENVIRONMENT_ONLY: Final = frozenset({"state", "config"})


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A settings file that was read: its mapping, and the line of every key."""

    path: Path
    data: Mapping[str, Any]
    positions: Positions | None

    def line_of(self, location: tuple[str | int, ...]) -> int | None:
        """The line of ``location``, or of the nearest key round it. None if the file has none."""
        for length in range(len(location), 0, -1):
            line = None if self.positions is None else self.positions.line_of(location[:length])
            if line is not None:
                return line
        return None


def default_state_base() -> Path:
    """``$XDG_STATE_HOME/sidelink``, or ``~/.local/state/sidelink``."""
    given = os.environ.get("XDG_STATE_HOME", "")
    base = Path(given) if given.startswith("/") else Path.home() / ".local" / "state"
    return base / "sidelink"


def find_settings_file(program: str, state: object, config: object) -> SettingsFile | None:
    """Read the file given by ``config``; else ``config.yaml`` of the state folder if there is one.

    Raises ConfigError when a file that was asked for is missing, or is not a YAML mapping.
    """
    if config is not None:
        return read_settings_file(Path(str(config)))
    base = default_state_base() if state is None else Path(str(state)).expanduser()
    path = base / program / CONFIG_FILE_NAME
    return read_settings_file(path) if os.path.lexists(path) else None


def read_settings_file(path: Path) -> SettingsFile:
    """Raises ConfigError for a file that cannot be read, is too large, or is no mapping."""
    text = read_text_bounded(path, CONFIG_BYTES_MAX)
    if not text.strip():
        return SettingsFile(path, {}, None)
    data, positions = load_strict(text, str(path))
    if data is None:
        return SettingsFile(path, {}, None)
    if not isinstance(data, dict):
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{path}:1: the settings must be a mapping of keys to values",
            remedy="Write one setting a line, for example: ops_port: 0",
        )
    file = SettingsFile(path, data, positions)
    for name in sorted(FLAG_OR_ENVIRONMENT_ONLY & data.keys()):
        raise ConfigError(
            Code.CONFIG_UNKNOWN_KEY,
            f"{path}:{file.line_of((name,))}: unknown key {name}: a file cannot say where it is",
            remedy=f"Use --{name} or SIDELINK_{name.upper()}.",
        )
    return file


def read_text_bounded(path: Path, bytes_max: int) -> str:
    """The file's text; ConfigError if it is missing, larger than ``bytes_max`` or not UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{path}: cannot be read: {error.strerror}",
            remedy="Check the path and that this user may read the file.",
        ) from None
    if len(data) > bytes_max:
        raise ConfigError(Code.CONFIG_INVALID, f"{path}: larger than {bytes_max} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{path}:{line}: byte {error.start} is not UTF-8",
            remedy="Save the file as UTF-8 text.",
        ) from None


class StrictYamlSource(PydanticBaseSettingsSource):
    """Lowest in precedence: it looks at flags and environment to find the file, then reads it."""

    def __init__(self, settings_cls: type[BaseSettings], program: str) -> None:
        super().__init__(settings_cls)
        self._program = program

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError(
            "the file is read as a whole"
        )  # __call__ never asks for one field.

    def __call__(self) -> dict[str, Any]:
        state = self.current_state
        file = find_settings_file(self._program, state.get("state"), state.get("config"))
        return {} if file is None else dict(file.data)
