"""What waits for an agent: bounded by messages and by bytes; what does not fit is rejected."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
from sidelink.wire import Attributes

from identity import VerifiedIdentity

MAILBOX_MESSAGES_MAX: Final = 16_384
MAILBOX_BYTES_MAX: Final = 16 << 20
# Of all agents of a sidecar together.
MAILBOXES_BYTES_MAX: Final = 256 << 20

# Beside its body a message costs about this much memory.
MESSAGE_OVERHEAD_BYTES: Final = 512
# Beside itself a further body of a run costs about this much.
BODY_OVERHEAD_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a message, as its reader is told: always proved, never what the message says."""

    uri: str
    identifier: str
    attributes: Attributes
    attributes_bytes: int
    """What they add to each message that is handed over: many times the message, if they like."""

    @classmethod
    def of(cls, identity: VerifiedIdentity) -> "Sender":
        attributes = dict(identity.attributes)
        size = len(msgspec.msgpack.encode(attributes))
        return cls(str(identity.name), str(identity.identifier), attributes, size)


class Answers(Protocol):
    """Where the answer to one ask goes. The permit of the ask covers it."""

    def reply(self, body: bytes, content_type: str) -> None: ...
    def reject(self, reason: str, *, expired: bool = False) -> None: ...


@dataclass(slots=True, eq=False)
class Waiting:
    """One message in a mailbox, or a run of tells. A tell has neither deadline nor answers."""

    sender: Sender
    bodies: list[bytes]
    content_type: str
    deadline_s: float = 0.0
    answers: Answers | None = None
    release: Callable[[], None] | None = None
    """Called once it has left, so that its sender may send more."""
    body_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.body_bytes = sum(map(len, self.bodies))

    @property
    def held_bytes(self) -> int:
        """What it takes of a mailbox's room."""
        return self.body_bytes + MESSAGE_OVERHEAD_BYTES + BODY_OVERHEAD_BYTES * len(self.bodies)


@dataclass(slots=True)
class SharedRoom:
    """What all mailboxes of a sidecar hold, and may hold: how many they fill, senders choose."""

    bytes_max: int = MAILBOXES_BYTES_MAX
    held_bytes: int = 0


class Mailbox:
    """First in, first out. ``add`` says whether there was room."""

    __slots__ = ("_bytes", "_bytes_max", "_count", "_messages_max", "_shared", "_waiting")

    def __init__(
        self,
        *,
        messages_max: int = MAILBOX_MESSAGES_MAX,
        bytes_max: int = MAILBOX_BYTES_MAX,
        shared: SharedRoom | None = None,
    ) -> None:
        self._shared = shared or SharedRoom()
        self._waiting: deque[Waiting] = deque()
        self._count = 0
        self._bytes = 0
        self._messages_max = messages_max
        self._bytes_max = bytes_max

    def __len__(self) -> int:
        """How many messages wait, those of runs one by one."""
        return self._count

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._waiting)

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def add(self, waiting: Waiting, *, counted: bool = True) -> bool:
        """Take it whole or not at all.

        ``counted`` is false while somebody reads: then windows hold the senders back long before
        the bytes are full, however small the messages are.
        """
        count = len(waiting.bodies)
        size = waiting.held_bytes
        shared = self._shared
        if (
            (counted and self._count + count > self._messages_max)
            or self._bytes + size > self._bytes_max
            or shared.held_bytes + size > shared.bytes_max
        ):
            return False
        self._waiting.append(waiting)
        self._count += count
        self._bytes += size
        shared.held_bytes += size
        return True

    def take(self, bytes_max: int) -> list[Waiting]:
        """Take the oldest, at least one if any waits, until their reader would be sent
        ``bytes_max``. A run is taken whole."""
        taken: list[Waiting] = []
        sent = 0
        while self._waiting and (not taken or sent < bytes_max):
            waiting = self._waiting.popleft()
            size = waiting.held_bytes
            self._count -= len(waiting.bodies)
            self._bytes -= size
            self._shared.held_bytes -= size
            sent += size + waiting.sender.attributes_bytes
            taken.append(waiting)
        return taken
