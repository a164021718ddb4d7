"""What the router keeps for one agent and one name it talks to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sidelink.wire import Send

from identity import AgentUri, Code
from sidecar.agents import LocalAgent
from sidecar.channels import ChannelSlot
from sidecar.envelope import ENVELOPE_OVERHEAD_BYTES_MAX, Envelope
from sidecar.local_port import LocalSession

# What one conversation may hold before its senders' connections are read no further, and when they
# are read again. A single batch of the local API may go over it once.
WAITING_BYTES_HIGH: Final = 1 << 20
WAITING_BYTES_LOW: Final = 256 << 10

ASKS_PER_CONVERSATION_MAX: Final = 65_536
CONVERSATIONS_MAX: Final = 65_536

# A batch is cut so that it fits one record: larger ones would only be fragmented.
BATCH_BYTES_MAX: Final = 60 << 10

# What an envelope adds to its body, about.
ENVELOPE_BYTES: Final = 48

assert WAITING_BYTES_LOW < WAITING_BYTES_HIGH
assert BATCH_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES_MAX < 65_505, "a batch fits one record"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a message did not go, as its sender is told."""

    code: Code
    message: str = ""
    rule: str | None = None
    denied: bool = False
    """Said by the peer under seal: then nothing was handed over, and that is certain."""


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


@dataclass(slots=True, eq=False)
class PendingAsk:
    """An ask on its way. ``slot`` is the channel it left on, None between two local agents."""

    owner: Owner
    deadline_s: float
    slot: ChannelSlot | None


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
    unconfirmed: list[Owner] = field(default_factory=list)
    asks: dict[int, PendingAsk] = field(default_factory=dict)
    paused: set[LocalSession] = field(default_factory=set)
    last_id: int = 0
    last_owner: Owner | None = None
    wanted: list[ChannelWanted] = field(default_factory=list)
    waiting_for_hop: bool = False
    first_flight_sent: bool = False

    def next_id(self) -> int:
        self.last_id += 1
        return self.last_id

    @property
    def waiting_bytes(self) -> int:
        """What has been accepted from agents and has not left this sidecar yet."""
        on_link = 0 if self.slot is None else self.slot.links.waiting_bytes
        return self.queue_bytes + self.batch_bytes + on_link

    @property
    def idle(self) -> bool:
        return not (self.slots or self.queue or self.batch or self.asks or self.wanted)
