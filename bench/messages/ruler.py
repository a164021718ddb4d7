"""The ruler that every system is measured with: what is sent, and how the receiver counts it.

A run is a warm-up, the messages that are counted, and a tail of one window. The sender is at most
one window ahead of what the receiver has confirmed, over a socket of the ruler's own. So it is
still sending when the last counted message arrives, and nothing that waits in a buffer, ours or
theirs, is ever taken for delivered.
"""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from bench.errors import BenchError

NUMBER_BYTES: Final = 8
CONFIRM_BYTES: Final = 8
# Enough for the deepest pipeline that was seen to gain from depth, and below the least bound
# (64 MiB, what a NATS server keeps for a slow subscriber) at which any of them drops something.
WINDOW_MESSAGES_MAX: Final = 16_384
WINDOW_BYTES_MAX: Final = 16 << 20
CONFIRMS_PER_WINDOW: Final = 8
# A slow system needs less, or its tail would take longer than the run: what it delivers in this
# time, and never fewer messages than asks are kept in flight.
WINDOW_S: Final = 0.25
WINDOW_MESSAGES_MIN: Final = 64
WARM_UP_SHARE: Final = 0.2
COUNTED_MIN: Final = 64
# Made at once: what a system does between two messages is its own affair.
BURST_MESSAGES: Final = 128

assert WINDOW_BYTES_MAX < 64 << 20
assert WINDOW_MESSAGES_MIN >= CONFIRMS_PER_WINDOW


class Plan(msgspec.Struct, frozen=True):
    """One one-way run. The size is of whole messages, the number in front included."""

    size_bytes: int
    warm_up: int
    counted: int
    window: int

    @property
    def total(self) -> int:
        return self.warm_up + self.counted + self.window


def plan_for(size_bytes: int, per_s: float, counted_s: float, counted: int | None = None) -> Plan:
    """A run of about ``counted_s``, or of ``counted`` messages, for a system of this speed."""
    window_max = min(WINDOW_MESSAGES_MAX, WINDOW_BYTES_MAX // size_bytes)
    window = min(max(int(per_s * WINDOW_S), WINDOW_MESSAGES_MIN), window_max)
    if counted is None:
        counted = max(int(per_s * counted_s), COUNTED_MIN)
    # One window at least, so that what lies in buffers has settled when counting begins.
    warm_up = max(window, int(counted * WARM_UP_SHARE))
    return Plan(size_bytes, warm_up, counted, window)


class Counted(msgspec.Struct, frozen=True):
    """What the receiver saw of a run, on its own clock."""

    messages: int
    """All of the run, the warm-up and the tail included."""
    per_s: float
    """Of the counted ones, from the first to the last."""


class Tally:
    """Counts one run at the receiver. A message that is missing, twice, late or cut ends it."""

    def __init__(self, plan: Plan, ruler: socket.socket) -> None:
        self.finished: asyncio.Future[Counted] = asyncio.get_running_loop().create_future()
        self._plan = plan
        self._ruler = ruler
        self._size = plan.size_bytes
        self._next = 0
        self._confirm_every = plan.window // CONFIRMS_PER_WINDOW
        self._confirm_at = self._confirm_every
        self._first_s = self._last_s = 0.0
        # The next number at which something has to be done: one comparison for each message.
        self._mark = self._next_mark()

    def take(self, body: bytes) -> None:
        """The system under test calls it with each message."""
        number = self._next
        if len(body) != self._size or body[:NUMBER_BYTES] != number.to_bytes(NUMBER_BYTES):
            self._refuse(body)
            return
        self._next = number + 1
        if number == self._mark:
            self._pass_mark(number)

    def _pass_mark(self, number: int) -> None:
        plan = self._plan
        if number == plan.warm_up:
            self._first_s = time.perf_counter()
        if number == plan.warm_up + plan.counted - 1:
            self._last_s = time.perf_counter()
        if number == self._confirm_at:
            self._ruler.sendall(self._next.to_bytes(CONFIRM_BYTES))
            self._confirm_at += self._confirm_every
        if number == plan.total - 1:
            elapsed_s = self._last_s - self._first_s
            self.finished.set_result(Counted(self._next, (plan.counted - 1) / elapsed_s))
        self._mark = self._next_mark()

    def _next_mark(self) -> int:
        plan = self._plan
        marks = (plan.warm_up, plan.warm_up + plan.counted - 1, self._confirm_at, plan.total - 1)
        return min((mark for mark in marks if mark >= self._next), default=-1)

    def _refuse(self, body: bytes) -> None:
        if not self.finished.done():
            number = int.from_bytes(body[:NUMBER_BYTES])
            self.finished.set_exception(
                BenchError(
                    f"message {self._next} of {self._plan.total} should have come, of"
                    f" {self._size} bytes; number {number} came, of {len(body)} bytes"
                )
            )


class Inbox:
    """What the receiving side of a system hands messages to."""

    def __init__(self) -> None:
        self.take = _nobody_counts

    def begin(self, tally: Tally) -> None:
        self.take = tally.take


def _nobody_counts(body: bytes) -> None:
    raise BenchError(f"a message of {len(body)} bytes outside of any run")


class Window:
    """How far the sender may go, as the receiver's confirmations say."""

    def __init__(self, plan: Plan, ruler: socket.socket) -> None:
        self._plan = plan
        self._ruler = ruler
        self._limit = plan.window
        self._rest = b""

    async def bursts(self) -> AsyncIterator[list[bytes]]:
        """The messages of the run, in order, as soon as each may be sent."""
        plan = self._plan
        filler = filler_bytes(plan.size_bytes - NUMBER_BYTES)
        number = 0
        while number < plan.total:
            if number >= self._limit:
                await self._wait_confirmed()
            end = min(number + BURST_MESSAGES, self._limit, plan.total)
            yield [n.to_bytes(NUMBER_BYTES) + filler for n in range(number, end)]
            number = end

    async def drain(self) -> None:
        """Read the confirmations of a run that has ended, so that none is left for the next."""
        confirms = (self._plan.total - 1) // (self._plan.window // CONFIRMS_PER_WINDOW)
        last = confirms * (self._plan.window // CONFIRMS_PER_WINDOW) + 1
        while self._limit < last + self._plan.window:
            await self._wait_confirmed()

    async def _wait_confirmed(self) -> None:
        loop = asyncio.get_running_loop()
        data = self._rest + await loop.sock_recv(self._ruler, 1024 * CONFIRM_BYTES)
        whole = len(data) - len(data) % CONFIRM_BYTES
        self._rest = data[whole:]
        if whole:
            confirmed = int.from_bytes(data[whole - CONFIRM_BYTES : whole])
            self._limit = confirmed + self._plan.window
        elif not data:
            raise BenchError("the receiver is gone")


def filler_bytes(count: int) -> bytes:
    """Bytes that look random, the same in each run: nothing on the way can make them fewer."""
    return random.Random(count).randbytes(count)
