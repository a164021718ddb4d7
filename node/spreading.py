"""How signed documents reach every node: each neighbour says what it holds, and is sent newer ones.

Pure. Documents of one kind are numbered, one authority's, and signed, so it does not matter who
brings one. They are sent in parts, and what is not whole yet is bounded on all hops together.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from identity import Code, Identifier, IdentityError, VerifiedIdentity
from link import FrameError, FrameKind
from link.buckets import TokenBucket
from link.trust_messages import (
    DocumentPart,
    Held,
    decode_held_untrusted,
    decode_part_untrusted,
    encode_held,
    encode_part,
    parts_of,
)
from node.clocks import Clock
from transport import Hop

# What is held is said again now and then, so that nothing stays behind for a frame that was lost
# with its hop, or was not taken for want of room.
HELD_AGAIN_SECONDS: Final = 60.0
# Of documents that are not whole yet, on all hops together. Where there is no room left, whoever
# has added nothing to one for longest makes some; and nobody may keep one half told.
ASSEMBLING_BYTES_MAX: Final = 16 << 20
ASSEMBLING_SECONDS_MAX: Final = 30.0
# A document costs signature checks; one that we send costs as much as it is long. Whoever sends
# keeps to a rate, and is given twice as much: what left apart may arrive together.
DOCUMENTS_BURST: Final = 8
DOCUMENTS_PER_S: Final = 0.5
HELD_BURST: Final = 8
HELD_PER_S: Final = 0.1
GIVEN: Final = 2
# Nothing pushes back on the control stream. Who takes less than this is sent no more.
QUEUED_BYTES_MAX: Final = 4 << 20


class Shelf(Protocol):
    """Where the newest document of each authority is kept."""

    def authorities(self, peer: VerifiedIdentity) -> tuple[Identifier, ...]:
        """Whose documents this neighbour may see, and may bring."""
        ...

    def number(self, authority: Identifier) -> int:
        """That of the newest; 0 without one."""
        ...

    def encoded(self, authority: Identifier) -> bytes | None: ...
    def offer_untrusted(self, encoded: bytes) -> object:
        """Take one that somebody brought. Raises IdentityError for one that does not count."""
        ...


@dataclass(slots=True, eq=False)
class _Neighbour:
    hop: Hop
    numbers: dict[Identifier, int] = field(default_factory=dict)
    """The newest of each authority that it is known to hold, or has been sent."""
    told: tuple[Identifier, ...] = ()
    """Of which authorities it was told what we hold."""
    part: DocumentPart | None = None
    """The last part of one that is on its way to us."""
    parts: bytearray = field(default_factory=bytearray)
    part_s: float = 0.0
    """When that part came."""
    owed: set[Identifier] = field(default_factory=set)
    """Of these authorities it is sent a newer one as soon as it may be sent one again."""
    taken: TokenBucket = field(
        default_factory=partial(TokenBucket, GIVEN * DOCUMENTS_PER_S, GIVEN * DOCUMENTS_BURST)
    )
    sent: TokenBucket = field(
        default_factory=partial(TokenBucket, DOCUMENTS_PER_S, DOCUMENTS_BURST)
    )
    heard: TokenBucket = field(
        default_factory=partial(TokenBucket, GIVEN * HELD_PER_S, GIVEN * HELD_BURST)
    )
    said: TokenBucket = field(default_factory=partial(TokenBucket, HELD_PER_S, HELD_BURST))


class Spread:
    """Documents of one kind, on all hops of one program."""

    def __init__(
        self,
        shelf: Shelf,
        clock: Clock,
        *,
        held: FrameKind,
        part: FrameKind,
        document_bytes_max: int,
        refused: Callable[[Hop, Code, str], None],
    ) -> None:
        """``held`` and ``part`` are the kinds of its frames; ``refused`` hears of what did not
        count, and why."""
        self._shelf = shelf
        self._clock = clock
        self._held = held
        self._part = part
        self._document_bytes_max = document_bytes_max
        self._refused = refused
        self._open: dict[int, _Neighbour] = {}
        self.assembling_bytes = 0
        """Of documents that are not whole yet."""
        self._said_s = 0.0

    def hop_opened(self, hop: Hop) -> None:
        neighbour = self._open[hop.id] = _Neighbour(hop)
        self._say_held(neighbour)

    def hop_closed(self, hop: Hop) -> None:
        gone = self._open.pop(hop.id, None)
        if gone is not None:
            self._forget_parts(gone)

    def newest_told(self, authority: Identifier) -> int | None:
        """The highest number of its documents that an open neighbour claims to hold, or was sent;
        None while nobody has said."""
        told = [one.numbers[authority] for one in self._open.values() if authority in one.numbers]
        return max(told, default=None)

    def tick(self) -> None:
        """Called about once a second."""
        now_s = self._clock.now_s()
        for neighbour in self._open.values():
            for authority in list(neighbour.owed):
                self._send_newer(neighbour, authority)
            if neighbour.parts and now_s - neighbour.part_s >= ASSEMBLING_SECONDS_MAX:
                self._forget_parts(neighbour)
        if now_s - self._said_s >= HELD_AGAIN_SECONDS:
            self._said_s = now_s
            for neighbour in self._open.values():
                self._say_held(neighbour)

    def news(self) -> None:
        """Something newer is on the shelf, or it is another's: tell whom it concerns."""
        for neighbour in self._open.values():
            authorities = self._shelf.authorities(neighbour.hop.peer.identity)
            if authorities != neighbour.told:
                self._say_held(neighbour)
            for authority in authorities:
                if authority in neighbour.numbers:
                    self._send_newer(neighbour, authority)

    def held_untrusted(self, hop: Hop, body: bytes) -> None:
        """A neighbour says what it holds. Raises FrameError for what breaks the protocol."""
        neighbour = self._open.get(hop.id)
        if neighbour is None:
            return  # One that enrols, for example.
        held = decode_held_untrusted(body)
        if not neighbour.heard.take(self._clock.now_s()):
            raise FrameError("what is held, without end", Code.HOP_LIMIT_EXCEEDED)
        ours = self._shelf.authorities(hop.peer.identity)
        for one in held:
            if one.authority in ours:
                neighbour.numbers[one.authority] = one.number
                self._send_newer(neighbour, one.authority)

    def part_untrusted(self, hop: Hop, body: bytes) -> None:
        """A neighbour sends a part of one. Raises FrameError for what breaks the protocol."""
        neighbour = self._open.get(hop.id)
        if neighbour is None:
            return
        part = decode_part_untrusted(body, self._document_bytes_max)
        last = neighbour.part
        if part.offset == 0:
            self._forget_parts(neighbour)
        elif last is None:
            return  # The rest of one that we did not want.
        elif (part.authority, part.number, part.total_bytes, part.offset) != (
            last.authority,
            last.number,
            last.total_bytes,
            len(neighbour.parts),
        ):
            raise FrameError("parts of a document that do not follow each other")
        is_news = part.number > self._shelf.number(part.authority)
        if not is_news or part.authority not in self._shelf.authorities(hop.peer.identity):
            self._forget_parts(neighbour)
            return
        if not self._has_room(neighbour, len(part.data)):
            self._refused(hop, Code.HOP_LIMIT_EXCEEDED, "no room for its document")
            self._forget_parts(neighbour)
            return
        self.assembling_bytes += len(part.data)
        neighbour.part = part
        neighbour.part_s = self._clock.now_s()
        neighbour.parts += part.data
        if len(neighbour.parts) == part.total_bytes:
            encoded = bytes(neighbour.parts)
            self._forget_parts(neighbour)
            self._take_untrusted(neighbour, part, encoded)

    def _say_held(self, neighbour: _Neighbour) -> None:
        authorities = self._shelf.authorities(neighbour.hop.peer.identity)
        neighbour.told = authorities
        if not authorities or not neighbour.said.take(self._clock.now_s()):
            return  # It is said again in a while.
        held = tuple(Held(one, self._shelf.number(one)) for one in authorities)
        neighbour.hop.send_frame(0, self._held, encode_held(held))

    def _send_newer(self, neighbour: _Neighbour, authority: Identifier) -> None:
        """Send a document to a neighbour that has said it may have it, and holds an older one."""
        neighbour.owed.discard(authority)
        encoded = self._shelf.encoded(authority)
        number = self._shelf.number(authority)
        if encoded is None or number <= neighbour.numbers[authority]:
            return
        is_full = neighbour.hop.queued_bytes > QUEUED_BYTES_MAX
        if is_full or not neighbour.sent.take(self._clock.now_s()):
            neighbour.owed.add(authority)
            return
        neighbour.numbers[authority] = number
        for part in parts_of(authority, number, encoded):
            neighbour.hop.send_frame(0, self._part, encode_part(part))

    def _has_room(self, neighbour: _Neighbour, size_bytes: int) -> bool:
        """Make room for a part, at the cost of whoever has added nothing for longest."""
        while self.assembling_bytes + size_bytes > ASSEMBLING_BYTES_MAX:
            slowest = _slowest(one for one in self._open.values() if one is not neighbour)
            if slowest is None:
                return False
            self._refused(slowest.hop, Code.HOP_LIMIT_EXCEEDED, "its document came too slowly")
            self._forget_parts(slowest)
        return True

    def _take_untrusted(self, neighbour: _Neighbour, part: DocumentPart, encoded: bytes) -> None:
        if not neighbour.taken.take(self._clock.now_s()):
            raise FrameError("documents without end", Code.HOP_LIMIT_EXCEEDED)
        # Said before it is taken: what is held already need not be sent back.
        neighbour.numbers[part.authority] = part.number
        try:
            self._shelf.offer_untrusted(encoded)
        except IdentityError as exc:
            self._refused(neighbour.hop, exc.code, exc.detail)

    def _forget_parts(self, neighbour: _Neighbour) -> None:
        self.assembling_bytes -= len(neighbour.parts)
        neighbour.part = None
        neighbour.parts = bytearray()


def _slowest(neighbours: Iterable[_Neighbour]) -> _Neighbour | None:
    """Whose document has grown least recently, of those that are not whole."""
    telling = [one for one in neighbours if one.parts]
    return min(telling, key=lambda one: one.part_s, default=None)
