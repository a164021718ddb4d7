"""One connection to the sidecar: frames out in batches, answers matched to their requests.

It lives until the socket closes and is then replaced; `sidelink.mesh` decides when. A sidecar that
stops says so first: from then on the connection is not `accepting`, what is new waits for the next
one, and what was sent is still answered. Goodbye, or the end of the socket, is the end.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final, assert_never, cast

from sidelink.address import Address
from sidelink.errors import (
    AskTimeout,
    LocalError,
    SidelinkError,
    Unreachable,
    WireError,
    error_from_code,
)
from sidelink.roles import Call, Receiver, Sender
from sidelink.wire import (
    LOCAL_API_VERSION,
    Answer,
    ClientFrame,
    CloseAgent,
    Deliver,
    DeliverRun,
    Draining,
    Failed,
    Flush,
    Goodbye,
    Hello,
    Leave,
    Opened,
    Receipt,
    Refuse,
    Reply,
    Send,
    ServerFrame,
    TellRun,
    Welcome,
    encode_batches,
    server_frame_reader,
)

CONNECT_WAIT_S: Final = 5.0
DRAIN_WAIT_S: Final = 320.0
"""From the first word of a stopping sidecar until its Goodbye: it may be given 300 s to stop."""
BATCH_BYTES_TARGET: Final = 48 * 1024
"""Written at once when this much is queued; what is less waits for the end of the loop's turn."""
WRITE_HIGH_BYTES: Final = 1024 * 1024
WRITE_LOW_BYTES: Final = 256 * 1024
FRAME_OVERHEAD_BYTES: Final = 64
"""What a frame is counted for on top of its body."""
BODY_COST_BYTES: Final = 16
"""What a further body of a run is counted for, so that empty ones have an end too."""

assert BATCH_BYTES_TARGET < WRITE_LOW_BYTES < WRITE_HIGH_BYTES

DRAINING: Final = "local.draining"
OVER_CODES: Final = frozenset({"local.agent_expired", "local.agent_revoked"})
"""Said of an agent with request 0: the sidecar has closed it."""
NO_SIDECAR: Final = "Start the sidecar on this machine with `sidelink up`, or correct the path."


class _Request:
    """A call that somebody awaits."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.answer: Final[asyncio.Future[ServerFrame]] = loop.create_future()

    def answered(self, frame: ServerFrame) -> None:
        if not self.answer.done():
            self.answer.set_result(frame)

    def failed(self, error: SidelinkError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    refused = lost = failed


class Connection(asyncio.Protocol):
    """Use `open_connection`; after `lost` it takes nothing more."""

    def __init__(
        self,
        on_lost: Callable[["Connection"], None],
        requests: Iterator[int],
        token: str | None = None,
    ) -> None:
        self._token = token
        self._loop = asyncio.get_running_loop()
        self._on_lost = on_lost
        self._reader = server_frame_reader()
        self._transport: asyncio.Transport | None = None
        self._pending: list[ClientFrame] = []
        self._pending_bytes = 0
        self._run: TellRun | None = None
        self._run_sender: Sender | None = None
        self._flush_scheduled = False
        self._calls: dict[int, Call] = {}
        self.requests: Final = requests
        self._receivers: dict[int, Receiver] = {}
        self._members: dict[Receiver, None] = {}
        self._holders: set[object] = set()
        self._write_waiters: list[asyncio.Future[None]] = []
        self._end_timer: asyncio.TimerHandle | None = None
        self._closed = self._loop.create_future()
        self.welcome: Final[asyncio.Future[Welcome]] = self._loop.create_future()
        self.accepting = True
        self.writable = True
        self.lost: SidelinkError | None = None
        self._has_left = False
        self.retry_at_s = 0.0
        """When the sidecar said it would be back, on the event loop's clock."""

    def join(self, number: int, receiver: Receiver) -> None:
        """The agent `number` is open. Who opens a name again shares its number, and hears of it."""
        self._receivers[number] = receiver
        self._members[receiver] = None

    def part(self, number: int, receiver: Receiver) -> None:
        self._members.pop(receiver, None)
        if self._receivers.get(number) is receiver:
            del self._receivers[number]

    # Sending.

    def post(self, frame: ClientFrame, body_bytes: int = 0) -> None:
        """Queue a frame: it leaves in this loop turn's batch. Raises if the connection is lost."""
        if self.lost is not None:
            raise Unreachable(
                "local.unavailable",
                f"not connected to the sidecar ({self.lost})",
                remedy=NO_SIDECAR,
            )
        self._run = None
        self._pending.append(frame)
        self._pending_bytes += body_bytes + FRAME_OVERHEAD_BYTES
        if self._pending_bytes >= BATCH_BYTES_TARGET:
            self._flush()
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_turn)

    def post_tell(self, sender: Sender, to: str, content_type: str, body: bytes) -> None:
        """Queue a tell that wants no receipt: those to one receiver gather in one frame."""
        run = self._run
        if (
            run is not None
            and self._run_sender is sender
            and run.to == to
            and run.content_type == content_type
        ):
            # `_run` is only set while its frame is the last that waits, so order is kept.
            run.bodies.append(body)
            self._pending_bytes += len(body) + BODY_COST_BYTES
            if self._pending_bytes >= BATCH_BYTES_TARGET:
                self._flush()
            return
        self.post_run(sender, TellRun(sender.number, to, content_type, [body]), len(body))

    def post_run(self, sender: Sender, run: TellRun, body_bytes: int) -> None:
        sender.posted += 1
        self.post(run, body_bytes)
        if self._pending:
            self._run, self._run_sender = run, sender

    def post_answer(self, frame: Answer | Refuse, body_bytes: int) -> None:
        self.post(frame, body_bytes)
        if receiver := self._receivers.get(frame.agent):
            receiver.posted_answer()
            if self._has_left:
                receiver.leaving(self)

    def post_call(self, request: int, frame: ClientFrame, call: Call, body_bytes: int = 0) -> None:
        """Queue a request; `call` is told what becomes of it, unless it is forgotten before."""
        self._calls[request] = call
        try:
            self.post(frame, body_bytes)
        except SidelinkError:
            del self._calls[request]
            raise

    def forget_call(self, request: int, call: Call) -> None:
        if self._calls.get(request) is call:
            del self._calls[request]

    async def request(self, request: int, frame: ClientFrame, timeout_s: float) -> ServerFrame:
        """Post the frame, wait for its answer. Raises what a Failed frame says, or AskTimeout."""
        call = _Request(self._loop)
        self.post_call(request, frame, call)
        timer = self._loop.call_later(timeout_s, call.failed, no_receipt())
        try:
            return await call.answer
        finally:
            timer.cancel()
            self.forget_call(request, call)

    async def wait_writable(self) -> None:
        """Returns once the sidecar keeps up, or the connection is lost."""
        while not self.writable and self.lost is None:
            waiter = self._loop.create_future()
            self._write_waiters.append(waiter)
            await waiter

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
            self._end(error)
            return
        for frame in frames:
            kind = type(frame)
            if kind is DeliverRun or kind is Deliver:
                receiver = self._receivers.get(frame.agent)  # type: ignore[union-attr]
                if receiver is not None:
                    receiver.delivered(self, frame)  # type: ignore[arg-type]
            elif kind is Receipt or kind is Reply:
                self._answered(cast("Receipt | Reply", frame))
            else:
                self._told(frame)
            if self.lost is not None:
                return

    def _answered(self, frame: Receipt | Reply) -> None:
        call = self._calls.pop(frame.request, None)
        if call is None:
            return  # It was cancelled, or the answer came too late: there is nobody to tell.
        if type(frame) is Receipt and not frame.ok:
            call.refused(error_from_code(DRAINING, "the sidecar is stopping"))
        else:
            call.answered(frame)

    def _told(self, frame: ServerFrame) -> None:
        match frame:
            case Failed():
                self._failed(frame)
            case Opened():
                if call := self._calls.pop(frame.request, None):
                    call.answered(frame)
                elif self.lost is None:
                    self.post(CloseAgent(next(self.requests), frame.agent))
            case Draining(delay_ms=delay_ms):
                self._drain(delay_ms)
            case Goodbye(code=code, delay_ms=delay_ms):
                self.retry_at_s = self._loop.time() + delay_ms / 1000
                self._end(error_from_code(code, "the sidecar closed the connection"))
            case Welcome():
                if not self.welcome.done():
                    self.welcome.set_result(frame)
            case Deliver() | DeliverRun() | Receipt() | Reply():
                raise AssertionError("handled by the caller")
            case _:
                assert_never(frame)

    def _failed(self, frame: Failed) -> None:
        error = error_from_code(frame.code, frame.message, rule=frame.rule, remedy=frame.remedy)
        call = self._calls.pop(frame.request, None)
        if call is not None:
            if frame.code == DRAINING:
                call.refused(error)
            else:
                call.failed(error)
        elif not frame.request:
            if frame.code == DRAINING:
                self.stop_accepting()
            for number, receiver in list(self._receivers.items()):
                if frame.agent == number and frame.code in OVER_CODES:
                    receiver.over(error)
                elif frame.agent in (0, number):
                    receiver.failed_unasked(error)

    # Beginning and end.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES, low=WRITE_LOW_BYTES)
        self.post(Hello(LOCAL_API_VERSION, self._token))

    def pause_writing(self) -> None:
        self.writable = False
        for receiver in self._members:
            receiver.held(())

    def resume_writing(self) -> None:
        self.writable = True
        self._wake_writers()
        if self.accepting:
            for receiver in list(self._members):
                receiver.resumed()

    def connection_lost(self, error: Exception | None) -> None:
        detail = f": {error}" if error else ""
        self._end(Unreachable("local.unavailable", f"the sidecar is gone{detail}"))
        if not self._closed.done():
            self._closed.set_result(None)

    async def close(self) -> None:
        """Hand what is queued to the kernel, then close."""
        self._flush()
        if self._transport is None:
            return
        if self.lost is None:
            self._transport.close()
        try:
            async with asyncio.timeout(CONNECT_WAIT_S):
                await asyncio.shield(self._closed)
        except TimeoutError:
            self._transport.abort()

    def abandon(self) -> None:
        """Close at once; for a connection that was never used."""
        self._end(Unreachable("local.unavailable", "closed by this program"))

    def stop_accepting(self) -> None:
        """The sidecar refuses what is new: keep it for the next connection. Answers still go."""
        self._take_back()
        if self.lost is None and self._end_timer is None:
            error = Unreachable(DRAINING, "the sidecar said that it stops, and does not")
            self._end_timer = self._loop.call_later(DRAIN_WAIT_S, self._end, error)

    def _take_back(self) -> None:
        """What the agents posted and has not left yet is theirs again, and they are held."""
        if not self.accepting:
            return
        self.accepting = False
        self._run = None
        kept: list[ClientFrame] = []
        unsent: dict[int, list[TellRun | Call]] = {}
        for frame in self._pending:
            if not isinstance(frame, TellRun | Send | Flush) or frame.agent not in self._receivers:
                kept.append(frame)
            elif isinstance(frame, TellRun):
                unsent.setdefault(frame.agent, []).append(frame)
            elif call := self._calls.pop(frame.request, None):
                unsent.setdefault(frame.agent, []).append(call)
        self._pending = kept
        owners = {receiver: number for number, receiver in self._receivers.items()}
        for receiver in list(self._members):
            number = owners.get(receiver)
            receiver.held(() if number is None else unsent.get(number, ()))

    def _drain(self, delay_ms: int) -> None:
        """The sidecar stops in good order: it takes all before our Leave, and answers it."""
        self.retry_at_s = self._loop.time() + delay_ms / 1000
        if self._has_left or self.lost is not None:
            return
        self._has_left = True
        self.stop_accepting()
        for receiver in list(self._members):
            receiver.leaving(self)
        self.post(Leave())

    def _end(self, error: SidelinkError) -> None:
        """Nothing comes any more either."""
        if self.lost is not None:
            return
        self.lost = error
        if self._end_timer is not None:
            self._end_timer.cancel()
        self._take_back()
        self.writable = False
        self._pending.clear()
        if self._transport is not None:
            self._transport.abort()
        if not self.welcome.done():
            self.welcome.set_exception(error)
            self.welcome.exception()  # Nobody may be waiting for it; that is no fault.
        calls = list(self._calls.values())
        self._calls.clear()
        for call in calls:
            call.lost(
                Unreachable(
                    "local.unavailable",
                    f"the connection to the sidecar was lost before the answer ({self.lost})",
                    remedy="The outcome is unknown: ask again only what may be done twice.",
                    outcome_unknown=True,
                )
            )
        self._wake_writers()
        self._on_lost(self)

    def _wake_writers(self) -> None:
        waiters, self._write_waiters = self._write_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def no_receipt() -> AskTimeout:
    return AskTimeout(
        "message.timeout",
        "the sidecar gave no receipt in time: the outcome is unknown",
        remedy="Send it again only if it may arrive twice, or allow more time.",
        outcome_unknown=True,
    )


async def open_connection(
    address: Address,
    token: str | None,
    on_lost: Callable[[Connection], None],
    requests: Iterator[int],
) -> Connection:
    """Connect and say Hello. Raises Unreachable or LocalError."""
    connection: Connection | None = None
    try:
        async with asyncio.timeout(CONNECT_WAIT_S):
            connection = await address.connect(lambda: Connection(on_lost, requests, token))
            welcome = await connection.welcome
    except (OSError, TimeoutError) as error:
        if connection is not None:
            connection.abandon()
        reason = str(error) or "no answer in time"
        raise Unreachable(
            "local.unavailable", f"no sidecar at {address}: {reason}", remedy=NO_SIDECAR
        ) from error
    except BaseException:
        if connection is not None:
            connection.abandon()
        raise
    if welcome.version != LOCAL_API_VERSION:
        connection.abandon()
        raise LocalError("local.version_unsupported", "the sidecar speaks another version")
    return connection
