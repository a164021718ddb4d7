"""What has arrived for an agent and was not taken yet. It outlives connections."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, NamedTuple

from sidelink import wire
from sidelink.connection import Connection
from sidelink.errors import SidelinkError, copy_error
from sidelink.messages import Message
from sidelink.wire import ASK

if TYPE_CHECKING:
    from sidelink.agent import Agent

# At the high marks the sidecar is asked to hold back, and to go on at the low ones. What was under
# way by then still fits below the hard marks; beyond them nothing more is read from the socket.
# Only the hard marks stop replies too, so a handler that asks while its inbox is full gets one.
INBOX_MESSAGES_LOW: Final = 256
INBOX_MESSAGES_HIGH: Final = 1024
INBOX_MESSAGES_HARD: Final = 32_768
INBOX_BYTES_LOW: Final = 1024 * 1024
INBOX_BYTES_HIGH: Final = 4 * 1024 * 1024
INBOX_BYTES_HARD: Final = 16 * 1024 * 1024

assert INBOX_MESSAGES_LOW < INBOX_MESSAGES_HIGH < INBOX_MESSAGES_HARD
assert INBOX_BYTES_LOW < INBOX_BYTES_HIGH < INBOX_BYTES_HARD - wire.BATCH_BYTES_MAX


class _Arrival(NamedTuple):
    frame: wire.DeliverRun | wire.Deliver
    messages: int
    body_bytes: int
    connection: Connection
    deadline_s: float | None


class Inbox:
    """Runs stay as they came until their messages are taken.

    A thousand `Message`s that wait keep the garbage collector busy; one that is made, used and
    dropped does not. That was a fifth of what a small message cost its reader.
    """

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._number = 0
        self._waiting: deque[_Arrival] = deque()
        self._waiting_messages = 0
        self._waiting_bytes = 0
        self._run = wire.DeliverRun(0, "", "", {}, "", [])
        """What is being read, its next message last."""
        self._listening = False
        self._held_back = False
        self._arrived = asyncio.Event()
        self._ended = False
        self._end: SidelinkError | None = None

    def __len__(self) -> int:
        return self._waiting_messages + len(self._run.bodies)

    async def messages(self, agent: "Agent") -> AsyncIterator[Message]:
        """Several iterations share the messages, so nothing is kept here from one to the next."""
        self._listen()
        while True:
            run = self._run
            if run.bodies:
                body = run.bodies.pop()
                # Not every time: the inbox of a busy agent is held back for most of its messages.
                if (
                    self._held_back
                    and self._waiting_messages + len(run.bodies) <= INBOX_MESSAGES_LOW
                ):
                    self._release()
                yield Message(body, run, agent)
            elif self._waiting:
                arrival = self._waiting.popleft()
                self._waiting_messages -= arrival.messages
                self._waiting_bytes -= arrival.body_bytes
                frame = arrival.frame
                if isinstance(frame, wire.DeliverRun):
                    frame.bodies.reverse()
                    self._run = frame
                    continue
                if self._held_back:
                    self._release()
                asked_by = arrival.connection if frame.kind == ASK else None
                yield Message(frame.body, frame, agent, asked_by, arrival.deadline_s)
            elif self._ended:
                if self._end is not None:
                    raise copy_error(self._end)
                return
            else:
                self._arrived.clear()
                await self._arrived.wait()

    def delivered(self, connection: Connection, frame: wire.Deliver | wire.DeliverRun) -> None:
        deadline_s: float | None = None
        if isinstance(frame, wire.DeliverRun):
            messages, body_bytes = len(frame.bodies), sum(map(len, frame.bodies))
        else:
            messages, body_bytes = 1, len(frame.body)
            if frame.kind == ASK:
                now_s = asyncio.get_running_loop().time()
                deadline_s = now_s + frame.deadline_ms / 1000
        self._waiting.append(_Arrival(frame, messages, body_bytes, connection, deadline_s))
        self._waiting_messages += messages
        self._waiting_bytes += body_bytes
        if not self._arrived.is_set():
            self._arrived.set()
        if len(self) < INBOX_MESSAGES_HIGH and self._waiting_bytes < INBOX_BYTES_HIGH:
            return
        if not self._held_back:
            self._held_back = True
            if connection.lost is None:
                connection.post(wire.Listen(self._number, False))
        if len(self) >= INBOX_MESSAGES_HARD or self._waiting_bytes >= INBOX_BYTES_HARD:
            connection.hold_reading(self)

    def opened(self, connection: Connection, number: int) -> None:
        self._connection = connection
        self._number = number
        if self._listening and not self._held_back:
            connection.post(wire.Listen(number, True))

    def end(self, error: SidelinkError | None) -> None:
        """Iterations end behind what has arrived, with `error` if there is one."""
        self._ended = True
        self._end = error
        self._arrived.set()
        if self._connection is not None:
            self._connection.release_reading(self)

    def _listen(self) -> None:
        if self._listening or self._ended:
            return
        self._listening = True
        self._post_listen()

    def _release(self) -> None:
        if len(self) <= INBOX_MESSAGES_LOW and self._waiting_bytes <= INBOX_BYTES_LOW:
            self._held_back = False
            if self._connection is not None and not self._ended:
                self._connection.release_reading(self)
                self._post_listen()

    def _post_listen(self) -> None:
        if self._connection is not None and self._connection.lost is None:
            self._connection.post(wire.Listen(self._number, True))
