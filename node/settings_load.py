"""Turns flags, environment and file into one frozen settings model, or one sentence on why not."""

import difflib
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from identity import Code
from node.errors import ConfigError
from node.settings import ENVIRONMENT_PREFIX, PROGRAMS, ProgramSettings
from node.settings_source import FLAG_OR_ENVIRONMENT_ONLY, SettingsFile, find_settings_file

# Read elsewhere: by the keystore, by the SDK, and by the development script, whose children inherit
# it.
OTHER_VARIABLES: Final = frozenset(
    {"MASTER_KEY", "MASTER_KEY_FILE", "PROVE_SECONDS", "AGENT_TOKEN", "AGENT_TOKEN_FILE"}
)

UNKNOWN_KEY: Final = "extra_forbidden"
"""pydantic's name for it."""

SettingsT = TypeVar("SettingsT", bound=ProgramSettings)


def load_settings(
    model: type[SettingsT], flags: Mapping[str, Any], *, variables: Mapping[str, str] | None = None
) -> SettingsT:
    """The settings of one program. ``flags`` holds what was given on the command line; None is not.

    ``variables`` are looked at for names that no program knows; the process's own by default.
    Raises ConfigError (CONFIG_UNKNOWN_KEY, CONFIG_INVALID) naming file and line, variable or flag.
    """
    check_variable_names(os.environ if variables is None else variables)
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return model(**given)
    except SettingsError as error:
        raise _environment_error(model, error) from None
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        # A misspelt key is the cause of the field that is then missing.
        unknown = [detail for detail in details if detail["type"] == UNKNOWN_KEY]
        raise _settings_error(model, given, (unknown or details)[0]) from None


def check_variable_names(variables: Iterable[str]) -> None:
    """A ``SIDELINK_*`` variable that no program knows is an error: it would do nothing."""
    known = {name.upper() for program in PROGRAMS for name in program.model_fields}
    known |= OTHER_VARIABLES
    for variable in sorted(variables):
        upper = variable.upper()
        if not upper.startswith(ENVIRONMENT_PREFIX):
            continue
        name = upper.removeprefix(ENVIRONMENT_PREFIX)
        if name not in known:
            raise ConfigError(
                Code.CONFIG_UNKNOWN_KEY,
                f"environment variable {variable}: no program has this setting",
                remedy=_suggestion(name, known, prefix=ENVIRONMENT_PREFIX)
                + "Correct its name, or unset it.",
            )


def _settings_error(
    model: type[ProgramSettings], flags: Mapping[str, Any], detail: ErrorDetails
) -> ConfigError:
    location = detail["loc"]
    reason = _reason(detail)
    name = str(location[0]) if location else ""
    if name in flags:
        where = f"--{name.replace('_', '-')}"
        return ConfigError(Code.CONFIG_INVALID, f"{where}: {reason}", remedy="Correct the flag.")
    if name and ENVIRONMENT_PREFIX + name.upper() in _upper_environment():
        where = f"environment variable {ENVIRONMENT_PREFIX}{name.upper()}"
        key = _inner(location[1:])
        unknown = detail["type"] == UNKNOWN_KEY
        code = Code.CONFIG_UNKNOWN_KEY if unknown else Code.CONFIG_INVALID
        return ConfigError(code, f"{where}: {key}{reason}", remedy="Correct or unset it.")
    return _file_error(model, flags, detail, reason)


def _file_error(
    model: type[ProgramSettings], flags: Mapping[str, Any], detail: ErrorDetails, reason: str
) -> ConfigError:
    location = detail["loc"]
    environment = _upper_environment()
    places = [
        flags.get(name) or environment.get(ENVIRONMENT_PREFIX + name.upper())
        for name in ("state", "config")
    ]
    file = find_settings_file(model.program, *places)
    key = ".".join(str(part) for part in location)
    if detail["type"] == UNKNOWN_KEY:
        parent = _fields_of(model, location[:-1])
        return ConfigError(
            Code.CONFIG_UNKNOWN_KEY,
            f"{_place(file, location)}: unknown key {key}",
            remedy=_suggestion(str(location[-1]), parent) + "Correct the key, or remove it.",
        )
    return ConfigError(
        Code.CONFIG_INVALID,
        f"{_place(file, location)}: {key + ': ' if key else ''}{reason}",
        remedy="Correct the value and start again.",
    )


def _place(file: SettingsFile | None, location: tuple[str | int, ...]) -> str:
    if file is None:
        return "settings"
    line = file.line_of(location)
    return f"{file.path}:{line}" if line is not None else str(file.path)


def _reason(detail: ErrorDetails) -> str:
    if detail["type"] == UNKNOWN_KEY:
        return "unknown key"
    reason = detail["msg"].removeprefix("Value error, ").strip().rstrip(".")
    return reason[:1].lower() + reason[1:] if reason[:2].istitle() else reason


def _inner(location: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in location) + ": " if location else ""


def _suggestion(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {prefix}{close[0]}? " if close else ""


def _fields_of(model: type[ProgramSettings], location: tuple[str | int, ...]) -> list[str]:
    """The keys that may stand where the unknown one stands."""
    fields: Any = model.model_fields
    for part in location:
        if isinstance(part, int):
            continue
        annotation = fields[part].annotation
        while not hasattr(annotation, "model_fields"):
            annotation = annotation.__args__[0]
        fields = annotation.model_fields
    return [name for name in fields if location or name not in FLAG_OR_ENVIRONMENT_ONLY]


def _upper_environment() -> dict[str, str]:
    return {name.upper(): value for name, value in os.environ.items()}


def _environment_error(model: type[ProgramSettings], error: SettingsError) -> ConfigError:
    """A variable of a list or mapping that is not JSON."""
    environment = _upper_environment()
    names = [ENVIRONMENT_PREFIX + name.upper() for name in model.model_fields]
    named = [
        name for name in names if f'"{name.removeprefix(ENVIRONMENT_PREFIX).lower()}"' in str(error)
    ]
    variable = next((name for name in named if name in environment), "a SIDELINK_ variable")
    return ConfigError(
        Code.CONFIG_INVALID,
        f"environment variable {variable}: not the JSON that this setting needs",
        remedy="Write it as JSON, or put the setting into config.yaml.",
    )
