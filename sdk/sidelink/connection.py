"""One connection to the sidecar: frames out in batches, answers matched to their requests.

It lives until the socket closes and is then replaced; `sidelink.mesh` decides when.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, cast

from sidelink.errors import (
    AskTimeout,
    LocalError,
    MailboxFull,
    SidelinkError,
    Unreachable,
    WireError,
    error_from_code,
)
from sidelink.wire import (
    LOCAL_API_VERSION,
    ClientFrame,
    CloseAgent,
    Deliver,
    DeliverRun,
    Draining,
    Failed,
    Goodbye,
    Hello,
    Leave,
    Opened,
    Reply,
    ServerFrame,
    TellRun,
    Welcome,
    encode_batches,
    server_frame_reader,
)

CONNECT_WAIT_S: Final = 5.0
BATCH_BYTES_TARGET: Final = 48 * 1024
"""Written at once when this much is queued; what is less waits for the end of the loop's turn."""
WRITE_HIGH_BYTES: Final = 1024 * 1024
WRITE_LOW_BYTES: Final = 256 * 1024
UNSENT_BYTES_MAX: Final = 16 * 1024 * 1024
CALLS_MAX: Final = 65_536
FRAME_OVERHEAD_BYTES: Final = 64
"""What a frame is counted for on top of its body."""
BODY_COST_BYTES: Final = 16
"""What a further body of a run is counted for, so that empty ones have an end too."""

assert BATCH_BYTES_TARGET < WRITE_LOW_BYTES < WRITE_HIGH_BYTES < UNSENT_BYTES_MAX

NO_SIDECAR: Final = "Start the sidecar on this machine with `sidelink up`, or correct the path."


class Receiver(Protocol):
    """What an opened agent is to its connection."""

    def delivered(self, connection: "Connection", frame: Deliver | DeliverRun) -> None: ...

    def failed_unasked(self, error: SidelinkError) -> None: ...


class Connection(asyncio.Protocol):
    """Use `open_connection`; after `lost` it only raises."""

    def __init__(self, on_lost: Callable[["Connection"], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_lost = on_lost
        self._reader = server_frame_reader()
        self._transport: asyncio.Transport | None = None
        self._pending: list[ClientFrame] = []
        self._pending_bytes = 0
        self._run: TellRun | None = None
        self._flush_scheduled = False
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._last_request = 0
        self._holders: set[object] = set()
        self._write_waiters: set[asyncio.Future[None]] = set()
        self._closed = self._loop.create_future()
        self.welcome: Final[asyncio.Future[Welcome]] = self._loop.create_future()
        self.receivers: Final[dict[int, Receiver]] = {}
        self.lost: SidelinkError | None = None
        self.retry_delay_s = 0.0
        self.writable = True

    # Sending.

    def new_request(self) -> int:
        self._last_request += 1
        return self._last_request

    def post(self, frame: ClientFrame, body_bytes: int = 0) -> None:
        """Queue a frame: it leaves in this loop turn's batch. Raises if the connection is lost."""
        if self.lost is not None:
            raise self.lost_before_sending()
        self._run = None
        self._pending.append(frame)
        self._pending_bytes += body_bytes + FRAME_OVERHEAD_BYTES
        if self._pending_bytes >= BATCH_BYTES_TARGET:
            self._flush()
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_turn)

    def post_tell(self, agent: int, to: str, content_type: str, body: bytes) -> None:
        """Queue a tell that wants no receipt: those to one receiver gather in one frame."""
        run = self._run
        if (
            run is not None
            and run.to == to
            and run.agent == agent
            and run.content_type == content_type
        ):
            # `_run` is only set while its frame is the last that waits, so order is kept.
            run.bodies.append(body)
            self._pending_bytes += len(body) + BODY_COST_BYTES
            if self._pending_bytes >= BATCH_BYTES_TARGET:
                self._flush()
            return
        run = TellRun(agent, to, content_type, [body])
        self.post(run, len(body))
        if self._pending:
            self._run = run

    def check_unsent(self) -> None:
        """Raises MailboxFull when the sidecar is too far behind for a caller that cannot wait."""
        transport = self._transport
        if transport is not None and transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            raise MailboxFull(
                "message.queue_full",
                f"more than {UNSENT_BYTES_MAX} bytes wait for the sidecar",
                remedy="Await `wait_writable()` between messages.",
            )

    async def wait_writable(self) -> None:
        """Returns once the sidecar keeps up. Raises Unreachable if the connection is lost."""
        while not self.writable:
            if self.lost is not None:
                raise self.lost_before_sending()
            waiter = self._loop.create_future()
            self._write_waiters.add(waiter)
            try:
                await waiter
            finally:
                self._write_waiters.discard(waiter)

    async def call(
        self, request: int, frame: ClientFrame, body_bytes: int, timeout_s: float
    ) -> ServerFrame:
        """Post the frame, wait for its answer. Raises what a Failed frame says, or AskTimeout."""
        if len(self._calls) >= CALLS_MAX:
            raise MailboxFull("message.queue_full", f"{CALLS_MAX} calls wait for an answer already")
        deadline_s = self._loop.time() + timeout_s
        if not self.writable:
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self.wait_writable()
            except TimeoutError:
                raise MailboxFull("message.queue_full", "the sidecar reads too slowly") from None
        answer: asyncio.Future[ServerFrame] = self._loop.create_future()
        self.post(frame, body_bytes)
        self._calls[request] = answer
        timer = self._loop.call_at(deadline_s, _expire, answer)
        try:
            return await answer
        finally:
            timer.cancel()
            self._calls.pop(request, None)

    def _flush_turn(self) -> None:
        self._flush_scheduled = False
        self._flush()

    def _flush(self) -> None:
        if not self._pending or self._transport is None or self.lost is not None:
            return
        frames, self._pending, self._pending_bytes = self._pending, [], 0
        self._run = None
        for batch in encode_batches(frames):
            self._transport.write(batch)

    # Receiving.

    def hold_reading(self, holder: object) -> None:
        """Read nothing from the sidecar until every holder has let go."""
        self._holders.add(holder)
        if len(self._holders) == 1 and self._transport is not None and self.lost is None:
            self._transport.pause_reading()

    def release_reading(self, holder: object) -> None:
        if holder in self._holders:
            self._holders.discard(holder)
            if not self._holders and self._transport is not None and self.lost is None:
                self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.lost is not None:
            return
        try:
            frames = self._reader.feed_untrusted(data)
        except WireError as error:
            self._lose(error)
            return
        for frame in frames:
            kind = type(frame)
            if kind is DeliverRun or kind is Deliver:
                receiver = self.receivers.get(frame.agent)  # type: ignore[union-attr]
                if receiver is not None:
                    receiver.delivered(self, frame)  # type: ignore[arg-type]
            elif kind is Reply or kind is not Failed:
                self._answered(frame)
            else:
                self._failed(cast("Failed", frame))

    def _answered(self, frame: ServerFrame) -> None:
        match frame:
            case Goodbye(code=code, delay_ms=delay_ms):
                self.retry_delay_s = delay_ms / 1000
                self._lose(error_from_code(code, "the sidecar closed the connection"))
            case Welcome():
                if not self.welcome.done():
                    self.welcome.set_result(frame)
            case Draining():
                self.post(Leave())
            case Deliver() | DeliverRun() | Failed():
                raise AssertionError("handled by the caller")
            case _:
                answer = self._calls.pop(frame.request, None)
                # An answer to a call that was cancelled, or came too late, has nobody to go to.
                if answer is not None and not answer.done():
                    answer.set_result(frame)
                elif isinstance(frame, Opened):
                    self.post(CloseAgent(self.new_request(), frame.agent))

    def _failed(self, frame: Failed) -> None:
        error = error_from_code(frame.code, frame.message, rule=frame.rule, remedy=frame.remedy)
        answer = self._calls.pop(frame.request, None)
        if answer is not None:
            if not answer.done():
                answer.set_exception(error)
        elif not frame.request:
            for number, receiver in self.receivers.items():
                if frame.agent in (0, number):
                    receiver.failed_unasked(error)

    # Beginning and end.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES, low=WRITE_LOW_BYTES)
        self.post(Hello(LOCAL_API_VERSION))

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._wake_writers()

    def connection_lost(self, error: Exception | None) -> None:
        detail = f": {error}" if error else ""
        self._lose(Unreachable("local.unavailable", f"the sidecar is gone{detail}"))
        if not self._closed.done():
            self._closed.set_result(None)

    async def close(self) -> None:
        """Hand what is queued to the kernel, then close."""
        self._flush()
        if self._transport is not None and self.lost is None:
            self._transport.close()
        elif self._transport is None:
            return
        try:
            async with asyncio.timeout(CONNECT_WAIT_S):
                await asyncio.shield(self._closed)
        except TimeoutError:
            self._transport.abort()

    def abandon(self) -> None:
        """Close at once; for a connection that was never used."""
        self._lose(Unreachable("local.unavailable", "closed by this program"))

    def lost_before_sending(self) -> SidelinkError:
        return Unreachable(
            "local.unavailable", f"not connected to the sidecar ({self.lost})", remedy=NO_SIDECAR
        )

    def _lose(self, error: SidelinkError) -> None:
        if self.lost is not None:
            return
        self.lost = error
        self.writable = False
        self._pending.clear()
        self._run = None
        if self._transport is not None:
            self._transport.abort()
        if not self.welcome.done():
            self.welcome.set_exception(error)
            self.welcome.exception()  # Nobody may be waiting for it; that is no fault.
        calls = list(self._calls.values())
        self._calls.clear()
        for answer in calls:
            if not answer.done():
                answer.set_exception(
                    Unreachable(
                        "local.unavailable",
                        f"the connection to the sidecar was lost before the answer ({error})",
                        remedy="The outcome is unknown: ask again only what may be done twice.",
                        outcome_unknown=True,
                    )
                )
        self._wake_writers()
        self._on_lost(self)

    def _wake_writers(self) -> None:
        for waiter in self._write_waiters:
            if not waiter.done():
                waiter.set_result(None)


def _expire(answer: asyncio.Future[ServerFrame]) -> None:
    if not answer.done():
        answer.set_exception(
            AskTimeout(
                "message.timeout",
                "no answer in time: the outcome is unknown",
                remedy="Ask again only what may be done twice, or allow more time.",
                outcome_unknown=True,
            )
        )


async def open_connection(path: Path, on_lost: Callable[[Connection], None]) -> Connection:
    """Connect and say Hello. Raises Unreachable or LocalError."""
    loop = asyncio.get_running_loop()
    connection: Connection | None = None
    try:
        async with asyncio.timeout(CONNECT_WAIT_S):
            _, connection = await loop.create_unix_connection(
                lambda: Connection(on_lost), os.fspath(path)
            )
            welcome = await connection.welcome
    except (OSError, TimeoutError) as error:
        if connection is not None:
            connection.abandon()
        reason = str(error) or "no answer in time"
        raise Unreachable(
            "local.unavailable", f"no sidecar at {path}: {reason}", remedy=NO_SIDECAR
        ) from error
    except BaseException:
        if connection is not None:
            connection.abandon()
        raise
    if welcome.version != LOCAL_API_VERSION:
        connection.abandon()
        raise LocalError("local.version_unsupported", "the sidecar speaks another version")
    return connection
