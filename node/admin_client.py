"""Speaks to a program's admin socket. Synchronous and light: the command line imports it."""

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from identity import Code
from node.errors import ConfigError

TIMEOUT_S: Final = 5.0
ANSWER_BYTES_MAX: Final = 16 << 20


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def admin_request(
    socket_path: Path,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """One request. Raises ConfigError with LOCAL_UNAVAILABLE when no program answers there.

    An error that the program answered is raised with its code, message and remedy.
    """
    connection = _UnixConnection(socket_path, timeout_s)
    encoded = None if body is None else json.dumps(dict(body)).encode()
    try:
        connection.request(method, path, encoded, {"Content-Type": "application/json"})
        data = connection.getresponse().read(ANSWER_BYTES_MAX)
        answer = json.loads(data)
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        raise ConfigError(
            Code.LOCAL_UNAVAILABLE,
            f"{socket_path}: no program answers there ({error})",
            remedy="Start the program, or name its folder with --state or SIDELINK_STATE.",
        ) from None
    finally:
        connection.close()
    if not isinstance(answer, dict):
        raise ConfigError(Code.LOCAL_UNAVAILABLE, f"{socket_path}: the answer is no JSON object")
    if isinstance(answer.get("error"), dict):
        raise _error_of(answer["error"])
    return answer


def _error_of(error: Mapping[str, Any]) -> ConfigError:
    by_text = {code.text: code for code in Code}
    code = by_text.get(str(error.get("code")), Code.PEER_ERROR_UNKNOWN)
    return ConfigError(code, str(error.get("message")), remedy=str(error.get("remedy")))
