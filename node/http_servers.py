"""The two HTTP listeners that every program has: one for operators, one for its own CLI.

The ops server answers on TCP: is the process alive, is it ready, its metrics. The admin server
answers on a Unix socket that only the owner of the state folder can reach. Agents use neither.
"""

import errno
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from identity import Code, SidelinkError
from node.errors import ConfigError
from node.metrics import CONTENT_TYPE, Metrics
from node.state_folder import SECRET_MODE, check_socket_path

REQUEST_BYTES_MAX: Final = 8 << 20
"""A whole policy fits, also where JSON takes six bytes for a character."""
REQUESTS_AT_ONCE_MAX: Final = 64
KEEPALIVE_S: Final = 15.0
SHUTDOWN_S: Final = 1.0
BACKLOG: Final = 128

Awaited = Callable[[], Sequence[str]]
"""Names what is still awaited before the program is ready; empty once it is."""
AdminHandler = Callable[[Mapping[str, Any]], Awaitable[object]]
"""Takes the request's JSON object (empty for GET), returns what goes back as JSON."""

_log = structlog.get_logger("node.http")


def bind_error(error: OSError, kind: str, where: str, setting: str) -> ConfigError:
    """The error for a socket that could not be bound; ``setting`` is the key that chooses it."""
    remedy = (
        f"Choose another address with {setting}: in config.yaml, "
        f"SIDELINK_{setting.upper()} or --{setting.replace('_', '-')} (port 0 takes any)."
    )
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            Code.CONFIG_PORT_BUSY,
            f"{kind} {where}: already in use by another process",
            remedy=f"Stop the process that holds it. {remedy}",
        )
    return ConfigError(
        Code.CONFIG_INVALID, f"{kind} {where}: cannot listen there: {error.strerror}", remedy=remedy
    )


class OpsServer:
    """``/healthz``, ``/readyz`` and ``/metrics`` over TCP."""

    def __init__(self, host: str, port: int, *, metrics: Metrics, awaited: Awaited) -> None:
        self._host = host
        self._port = port
        self._metrics = metrics
        self._awaited = awaited
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen; returns the port. Raises ConfigError (CONFIG_PORT_BUSY, CONFIG_INVALID)."""
        application = _application()
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._metrics_text)
        runner = await start_runner(application)
        try:
            site = web.TCPSite(runner, self._host, self._port, backlog=BACKLOG)
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise bind_error(error, "TCP", f"{self._host}:{self._port}", "ops_port") from None
        self._runner = runner
        return bound_port(runner)

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _healthz(self, _: web.Request) -> web.Response:
        return _json({"alive": True})

    async def _readyz(self, _: web.Request) -> web.Response:
        awaiting = list(self._awaited())
        status = HTTPStatus.SERVICE_UNAVAILABLE if awaiting else HTTPStatus.OK
        return _json({"ready": not awaiting, "awaiting": awaiting}, status)

    async def _metrics_text(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})


class AdminServer:
    """JSON over a Unix socket: ``GET /v1/status``, and what else the program adds."""

    def __init__(self, path: Path, *, status: Callable[[], Mapping[str, Any]]) -> None:
        self._path = path
        self._application = _application(_admin_errors)
        self._runner: web.AppRunner | None = None

        async def read_status(_: Mapping[str, Any]) -> object:
            return status()

        self.add("GET", "/v1/status", read_status)

    def add(self, method: str, path: str, handler: AdminHandler) -> None:
        """Before ``start``. A SidelinkError of the handler becomes the answer's ``error``."""

        async def answer(request: web.Request) -> web.Response:
            return _json(await handler(await _json_object_untrusted(request)))

        self._application.router.add_route(method, path, answer)

    async def start(self) -> None:
        """Bind the socket with mode 0600. Raises ConfigError when that is impossible."""
        runner = await start_runner(self._application)
        try:
            await web.SockSite(runner, bind_unix_socket(self._path), backlog=BACKLOG).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            self._path.unlink(missing_ok=True)


async def start_runner(application: web.Application) -> web.AppRunner:
    """A runner that leaves signals and access logs to the program."""
    runner = web.AppRunner(
        application,
        access_log=None,
        handle_signals=False,
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=SHUTDOWN_S,
    )
    await runner.setup()
    return runner


def bound_port(runner: web.AppRunner) -> int:
    """The TCP port that the runner's first site really got."""
    port: int = runner.addresses[0][1]
    return port


def bind_unix_socket(path: Path) -> socket.socket:
    """A Unix socket with mode 0600 at ``path``, whose folder must be closed to others already."""
    check_socket_path(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        os.chmod(path, SECRET_MODE)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        fault = "already exists" if error.errno == errno.EADDRINUSE else error.strerror
        raise ConfigError(
            Code.CONFIG_PORT_BUSY,
            f"Unix socket {path}: {fault}",
            remedy="Stop the process that holds it, or remove the file if there is none.",
        ) from None
    return listener


def _application(*middlewares: Any) -> web.Application:
    return web.Application(
        client_max_size=REQUEST_BYTES_MAX, middlewares=[_limit_requests(), *middlewares]
    )


def _limit_requests() -> Any:
    """Refuse beyond ``REQUESTS_AT_ONCE_MAX`` instead of queueing."""
    active = 0

    @web.middleware
    async def limit(request: web.Request, handler: Any) -> web.StreamResponse:
        nonlocal active
        if active >= REQUESTS_AT_ONCE_MAX:
            return _error(Code.LOCAL_LIMIT, "too many requests", HTTPStatus.SERVICE_UNAVAILABLE)
        active += 1
        try:
            response: web.StreamResponse = await handler(request)
            return response
        finally:
            active -= 1

    return limit


@web.middleware
async def _admin_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except SidelinkError as error:
        remedy = getattr(error, "remedy", None)
        return _error(error.code, error.detail, HTTPStatus.BAD_REQUEST, remedy)
    except web.HTTPException as error:
        return _error(Code.LOCAL_BAD_REQUEST, error.reason, HTTPStatus(error.status))
    except Exception:
        _log.exception("admin_request_failed", path=request.path)
        return _error(
            Code.LOCAL_INTERNAL, "see this program's log", HTTPStatus.INTERNAL_SERVER_ERROR
        )
    return response


async def _json_object_untrusted(request: web.Request) -> Mapping[str, Any]:
    body = await request.read()
    if not body:
        return {}
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise SidelinkError(Code.LOCAL_BAD_REQUEST, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise SidelinkError(Code.LOCAL_BAD_REQUEST, "the body is not a JSON object")
    return value


def _error(code: Code, message: str, status: HTTPStatus, remedy: str | None = None) -> web.Response:
    error = {"code": code.text, "message": message, "remedy": remedy or code.remedy}
    return _json({"error": error}, status)


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value) + b"\n", status=status, content_type="application/json"
    )
