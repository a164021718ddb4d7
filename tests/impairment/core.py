"""The proxy's mind: for each datagram whether, when and in what shape it goes on. Pure.

It is told the time and handed datagrams, and draws from a seeded random, so that one seed has one
story. ``tests.impairment.proxy`` moves the bytes.
"""

import heapq
import math
import random
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import Final, NamedTuple

from tests.impairment.models import Losses, TokenBucket
from tests.impairment.settings import NO_IMPAIRMENT, Impairment

# What one direction may hold while it is delayed: a second of 250 Mbit/s.
HELD_BYTES_MAX: Final = 32 << 20
HELD_DATAGRAMS_MAX: Final = 32_768
# Each is a socket. Beyond, the client that was silent for longest is forgotten.
FLOWS_MAX: Final = 128


class Direction(StrEnum):
    UP = "up"
    """From the clients to the target."""
    DOWN = "down"


class Drop(StrEnum):
    """Every reason why a datagram does not arrive."""

    LOST = "lost"
    BLACKHOLED = "blackholed"
    QUEUE_FULL = "queue_full"
    """It had to wait for the rate, and the queue had no room."""
    HELD_FULL = "held_full"
    """More was under way than the proxy will hold."""
    FLOW_GONE = "flow_gone"
    """Its client was forgotten for a newer one."""
    REBOUND = "rebound"
    """It came to a port that its client had before a rebinding."""
    REFUSED = "refused"
    """The system would not send it: nobody listens there, or the socket is full."""


@dataclass(slots=True)
class Counters:
    """received + duplicated = delivered + all drops + what is held."""

    received: int = 0
    duplicated: int = 0
    delivered: int = 0
    reordered: int = 0
    corrupted: int = 0
    truncated: int = 0
    dropped: dict[Drop, int] = field(default_factory=lambda: dict.fromkeys(Drop, 0))


class _Held(NamedTuple):
    at_s: float
    number: int
    flow: int
    datagram: bytes


class OneWay:
    """One direction: what goes in, and when it comes out."""

    def __init__(
        self,
        impairment: Impairment,
        chance: random.Random,
        *,
        held_bytes_max: int = HELD_BYTES_MAX,
        held_datagrams_max: int = HELD_DATAGRAMS_MAX,
    ) -> None:
        self.counters = Counters()
        self.held_bytes = 0
        self._chance = chance
        self._held_bytes_max = held_bytes_max
        self._held_datagrams_max = held_datagrams_max
        self._held: list[_Held] = []
        self._numbers = count()
        self._in_order_s = 0.0
        self._dark_until_s = -math.inf
        self.change(impairment)

    def change(self, impairment: Impairment) -> None:
        """From now on. What is under way keeps its time."""
        self.impairment = impairment
        self._losses = Losses(impairment.loss, impairment.burst, self._chance)
        self._bucket = (
            TokenBucket(impairment.rate_bytes_s, impairment.bucket_bytes, impairment.queue_bytes)
            if impairment.rate_bytes_s
            else None
        )

    def blackhole(self, until_s: float) -> None:
        """Until then nothing goes in and nothing comes out. The past ends it."""
        self._dark_until_s = until_s

    @property
    def held_datagrams(self) -> int:
        return len(self._held)

    @property
    def deadline_s(self) -> float | None:
        """When the next one is due."""
        return self._held[0].at_s if self._held else None

    def receive(self, flow: int, datagram: bytes, now_s: float) -> None:
        self.counters.received += 1
        if now_s < self._dark_until_s:
            self.drop(Drop.BLACKHOLED)
        elif self._losses.next_is_lost():
            self.drop(Drop.LOST)
        else:
            datagram = self._damage(datagram)
            self._hold(flow, datagram, now_s)
            if self._happens(self.impairment.duplicate):
                self.counters.duplicated += 1
                self._hold(flow, datagram, now_s)

    def take_due(self, now_s: float) -> list[tuple[int, bytes]]:
        """What leaves now, each with its flow, in the order in which it leaves."""
        due = []
        while self._held and self._held[0].at_s <= now_s:
            held = heapq.heappop(self._held)
            self.held_bytes -= len(held.datagram)
            if now_s < self._dark_until_s:
                self.drop(Drop.BLACKHOLED)
            else:
                due.append((held.flow, held.datagram))
        self.counters.delivered += len(due)
        return due

    def drop(self, reason: Drop) -> None:
        self.counters.dropped[reason] += 1

    def take_back(self, reason: Drop) -> None:
        """One that was handed out as delivered could not be sent after all."""
        self.counters.delivered -= 1
        self.drop(reason)

    def _hold(self, flow: int, datagram: bytes, now_s: float) -> None:
        size = len(datagram)
        if (
            self.held_bytes + size > self._held_bytes_max
            or len(self._held) >= self._held_datagrams_max
        ):
            self.drop(Drop.HELD_FULL)
            return
        leaves_s = now_s if self._bucket is None else self._bucket.departure_s(size, now_s)
        if leaves_s is None:
            self.drop(Drop.QUEUE_FULL)
            return
        self.held_bytes += size
        heapq.heappush(
            self._held, _Held(self._due_s(leaves_s), next(self._numbers), flow, datagram)
        )

    def _due_s(self, leaves_s: float) -> float:
        impairment = self.impairment
        at_s = leaves_s + impairment.delay_ms / 1000
        if self._happens(impairment.reorder):
            self.counters.reordered += 1
            return at_s + impairment.reorder_ms / 1000
        if impairment.jitter_ms:
            return at_s + self._chance.random() * impairment.jitter_ms / 1000
        # A delay that has just become shorter must not let these overtake the ones before.
        self._in_order_s = max(self._in_order_s, at_s)
        return self._in_order_s

    def _damage(self, datagram: bytes) -> bytes:
        if datagram and self._happens(self.impairment.corrupt):
            self.counters.corrupted += 1
            at = self._chance.randrange(len(datagram))
            flipped = datagram[at] ^ 1 << self._chance.randrange(8)
            datagram = datagram[:at] + bytes([flipped]) + datagram[at + 1 :]
        if datagram and self._happens(self.impairment.truncate):
            self.counters.truncated += 1
            datagram = datagram[: self._chance.randrange(len(datagram))]
        return datagram

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self._chance.random() < chance


@dataclass(frozen=True, slots=True)
class ToTarget:
    """Send from the socket that this flow has now."""

    flow: int
    datagram: bytes


@dataclass(frozen=True, slots=True)
class ToClient:
    client: Hashable
    datagram: bytes


@dataclass(frozen=True, slots=True)
class Rebound:
    """The flow's socket delivers no more; what it sends next comes from a new one."""

    flow: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The flow is over, and its socket with it."""

    flow: int


Step = ToTarget | ToClient | Rebound | Forgotten


class Impairer:
    """Both directions and the clients between them."""

    def __init__(
        self,
        up: Impairment = NO_IMPAIRMENT,
        down: Impairment = NO_IMPAIRMENT,
        *,
        seed: int,
        flows_max: int = FLOWS_MAX,
    ) -> None:
        # A stream of chance for each, so that what one direction does leaves the other's fate.
        self.ways = {
            Direction.UP: OneWay(up, random.Random(f"{seed} up")),
            Direction.DOWN: OneWay(down, random.Random(f"{seed} down")),
        }
        self.rebound = 0
        self._flows_max = flows_max
        self._flow_of: OrderedDict[Hashable, int] = OrderedDict()
        self._client_of: dict[int, Hashable] = {}
        self._numbers = count(1)
        self._rebind_every_s = 0.0
        self._rebind_s = math.inf
        self._steps: list[Step] = []

    @property
    def flows(self) -> int:
        return len(self._client_of)

    @property
    def deadline_s(self) -> float | None:
        """When ``take_steps`` has something to give, or to do."""
        if self._steps:
            return -math.inf
        deadlines = [way.deadline_s for way in self.ways.values()]
        at_s = min((at_s for at_s in deadlines if at_s is not None), default=math.inf)
        at_s = min(at_s, self._rebind_s)
        return None if math.isinf(at_s) else at_s

    def receive_from_client(self, client: Hashable, datagram: bytes, now_s: float) -> None:
        flow = self._flow_of.get(client)
        if flow is None:
            flow = self._begin(client)
        self._flow_of.move_to_end(client)
        self.ways[Direction.UP].receive(flow, datagram, now_s)

    def receive_from_target(self, flow: int, datagram: bytes, now_s: float) -> None:
        self.ways[Direction.DOWN].receive(flow, datagram, now_s)

    def receive_late(self) -> None:
        """Something came to a socket that a flow had before."""
        way = self.ways[Direction.DOWN]
        way.counters.received += 1
        way.drop(Drop.REBOUND)

    def rebind(self) -> None:
        """Every client comes from another port from now on."""
        self.rebound += 1
        self._steps.extend(Rebound(flow) for flow in self._client_of)

    def rebind_every(self, interval_s: float, now_s: float) -> None:
        """0 ends it."""
        self._rebind_every_s = interval_s
        self._rebind_s = now_s + interval_s if interval_s else math.inf

    def blackhole(self, until_s: float) -> None:
        """Both ways."""
        for way in self.ways.values():
            way.blackhole(until_s)

    def take_steps(self, now_s: float) -> list[Step]:
        """All that is to be done by now, in this order."""
        if now_s >= self._rebind_s:
            self._rebind_s = now_s + self._rebind_every_s
            self.rebind()
        steps, self._steps = self._steps, []
        up, down = self.ways[Direction.UP], self.ways[Direction.DOWN]
        for flow, datagram in up.take_due(now_s):
            if flow in self._client_of:
                steps.append(ToTarget(flow, datagram))
            else:
                up.take_back(Drop.FLOW_GONE)
        for flow, datagram in down.take_due(now_s):
            client = self._client_of.get(flow)
            if client is not None:
                steps.append(ToClient(client, datagram))
            else:
                down.take_back(Drop.FLOW_GONE)
        return steps

    def _begin(self, client: Hashable) -> int:
        if len(self._flow_of) >= self._flows_max:
            _, oldest = self._flow_of.popitem(last=False)
            del self._client_of[oldest]
            self._steps.append(Forgotten(oldest))
        flow = self._flow_of[client] = next(self._numbers)
        self._client_of[flow] = client
        return flow
