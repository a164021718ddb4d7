"""What the router keeps for one agent and one name it talks to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec
from sidelink.wire import ASK, Send

from identity import AgentUri, Code
from policy import Denial
from sidecar.agents import LocalAgent
from sidecar.envelope import BODY_BYTES_MAX, Envelope
from sidecar.local_port import LocalSession
from sidecar.slot import ChannelSlot
from sidecar.timers import Timer

# What one conversation may hold before its senders' connections are read no further, and when they
# are read again. A single batch of the local API may go over it once.
WAITING_BYTES_HIGH: Final = 1 << 20
WAITING_BYTES_LOW: Final = 256 << 10

ASKS_PER_CONVERSATION_MAX: Final = 65_536
CONVERSATIONS_MAX: Final = 65_536
# So many are kept before those that are over are looked for. One that had a channel goes with it;
# what is left are those with agents of this sidecar, and those that were refused.
CONVERSATIONS_OVER_MAX: Final = 1_024

# Answers that wait for a peer which asks and grants nothing. Beyond, its channel ends: what it is
# owed cannot pause anybody here.
ANSWER_BYTES_WAITING_MAX: Final = 32 << 20

assert WAITING_BYTES_LOW < WAITING_BYTES_HIGH
assert CONVERSATIONS_OVER_MAX < CONVERSATIONS_MAX
assert 4 * BODY_BYTES_MAX <= ANSWER_BYTES_WAITING_MAX


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a message did not go, as its sender is told."""

    code: Code
    message: str = ""
    rule: str | None = None
    denied: bool = False
    """Said by the peer under seal: then nothing was handed over, and that is certain."""

    @classmethod
    def of(cls, denial: Denial) -> "Failure":
        """Our own policy said no to our own agent, which may know why unless a rule forbids it."""
        rule, reason = denial.told(colleague=True)
        return cls(denial.code, reason, rule or None)


ChannelWanted = Callable[[ChannelSlot | Failure], None]
"""Called once a channel is open, or with why there is none."""


@dataclass(slots=True, eq=False)
class Owner:
    """Who is to be told how a message went: a session, and the number it knows the message by.

    Request 0 wants to hear of failure only.
    """

    session: LocalSession
    request: int
    agent: int


@dataclass(slots=True, eq=False)
class Queued:
    """A message that waits for its channel: nothing about it has been decided for good."""

    owner: Owner
    send: Send
    since_s: float

    def left_of(self, now_s: float) -> Send | None:
        """The message with what is left of an ask's time; None when that is over."""
        if self.send.kind != ASK:
            return self.send
        left_ms = self.send.timeout_ms - int((now_s - self.since_s) * 1000)
        return msgspec.structs.replace(self.send, timeout_ms=left_ms) if left_ms > 0 else None


@dataclass(slots=True, eq=False)
class PendingAsk:
    """An ask on its way. ``slot`` is the channel it left on, None between two local agents."""

    owner: Owner
    deadline_s: float
    slot: ChannelSlot | None
    timer: Timer


@dataclass(slots=True, eq=False)
class Conversation:
    """One local agent and one name, remote or not. Messages keep their order within it."""

    agent: LocalAgent
    remote: AgentUri
    slot: ChannelSlot | None = None
    slots: list[ChannelSlot] = field(default_factory=list)
    queue: list[Queued] = field(default_factory=list)
    queue_bytes: int = 0
    batch: list[Envelope] = field(default_factory=list)
    batch_bytes: int = 0
    unconfirmed: list[tuple[int, Owner]] = field(default_factory=list)
    """Tells behind an opening, by their number: accepted or failed once the opening is decided."""
    asks: dict[int, PendingAsk] = field(default_factory=dict)
    paused: set[LocalSession] = field(default_factory=set)
    stalled: bool = False
    """It was full and nothing has left it for long: what is new is refused, and nobody waits."""
    stall_timer: Timer | None = None
    last_id: int = 0
    last_owner: Owner | None = None
    rejectable: int = 0
    """Tells that were sent and not rejected. The peer may reject each once: its rejections go to an
    agent's process, which no window holds back."""
    wanted: list[ChannelWanted] = field(default_factory=list)
    hop_timer: Timer | None = None
    """Runs while messages wait for a hop, or until it is worth asking for a channel again."""
    asking_since_s: float | None = None
    """When the first opening was refused that may succeed a little later."""
    asked: int = 0

    def next_id(self, *, is_ask: bool) -> int:
        """Numbers rise. Asks are odd and tells even, so that a rejection says what it rejects."""
        self.last_id = (self.last_id | 1) + 1 + is_ask
        self.rejectable += not is_ask
        return self.last_id

    def next_tell_ids(self, count: int) -> int:
        """The first of ``count`` numbers for tells that follow each other in steps of two."""
        first = self.next_id(is_ask=False)
        self.last_id = first + 2 * (count - 1)
        self.rejectable += count - 1
        return first

    def take_rejection(self, number: int) -> bool:
        """Whether a tell of this number was ever sent, and not as many were rejected as were."""
        if not 0 < number <= self.last_id or number % 2 or not self.rejectable:
            return False
        self.rejectable -= 1
        return True

    @property
    def waiting_bytes(self) -> int:
        """What has been accepted from agents and has not left this sidecar yet."""
        on_link = 0 if self.slot is None else self.slot.links.waiting_bytes
        return self.queue_bytes + self.batch_bytes + on_link

    @property
    def idle(self) -> bool:
        return not (self.slots or self.queue or self.batch or self.asks or self.wanted)

    @property
    def over(self) -> bool:
        """Whether the next message may as well begin another one."""
        return self.idle and self.hop_timer is None and not self.paused
