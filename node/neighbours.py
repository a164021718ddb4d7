"""What neighbours show each other while a hop lives: newer proofs, and revocation lists. Pure.

A node whose credential was renewed, or whose key was rotated, shows its new proof on each hop that
is open (RENEW). Each side says which lists it holds (LISTS_HELD), and whoever holds a newer one
sends it (LIST, in parts). Lists are signed: it does not matter who brings one.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from identity import Code, Identifier, IdentityError
from link import Frame, FrameError, FrameKind
from link.buckets import TokenBucket
from link.trust_messages import (
    HeldList,
    ListPart,
    decode_held_lists_untrusted,
    decode_list_part_untrusted,
    encode_held_lists,
    encode_list_part,
    list_parts,
)
from node.clocks import Clock
from node.metrics import Metrics, by_code
from node.own_node import OwnNode
from transport import Hop

KINDS: Final = frozenset({FrameKind.RENEW, FrameKind.LISTS_HELD, FrameKind.LIST})
# What is held is said again now and then, so that nothing stays behind for a frame that was lost
# with its hop, or was not taken for want of room.
HELD_AGAIN_SECONDS: Final = 60.0
# Of lists that are not whole yet, on all hops together. Where there is no room left, whoever has
# added nothing to one for longest makes some; and nobody may keep one half told.
ASSEMBLING_BYTES_MAX: Final = 16 << 20
ASSEMBLING_SECONDS_MAX: Final = 30.0
# A list and a proof each cost signature checks; a list that we send costs as much as it is long.
# Whoever sends keeps to a rate, and is given twice as much: what left apart may arrive together.
RENEWALS_BURST: Final = 8
RENEWALS_PER_S: Final = 0.1
LISTS_BURST: Final = 8
LISTS_PER_S: Final = 0.5
HELD_BURST: Final = 8
HELD_PER_S: Final = 0.1
GIVEN: Final = 2
# Nothing pushes back on the control stream. Who takes less than this is sent no more lists.
QUEUED_BYTES_MAX: Final = 4 << 20

_log = structlog.get_logger("node.neighbours")


@dataclass(slots=True, eq=False)
class _Neighbour:
    hop: Hop
    numbers: dict[Identifier, int] = field(default_factory=dict)
    """The newest list of each authority that it is known to hold, or has been sent."""
    part: ListPart | None = None
    """The last part of a list that is on its way to us."""
    parts: bytearray = field(default_factory=bytearray)
    part_s: float = 0.0
    """When that part came."""
    owed: set[Identifier] = field(default_factory=set)
    """Of these authorities it is sent a newer list as soon as it may be sent one again."""
    owed_proof: bool = False
    """It is shown who we are now as soon as it may be shown that again."""
    renewals: TokenBucket = field(
        default_factory=partial(TokenBucket, GIVEN * RENEWALS_PER_S, GIVEN * RENEWALS_BURST)
    )
    shown: TokenBucket = field(default_factory=partial(TokenBucket, RENEWALS_PER_S, RENEWALS_BURST))
    taken: TokenBucket = field(
        default_factory=partial(TokenBucket, GIVEN * LISTS_PER_S, GIVEN * LISTS_BURST)
    )
    sent: TokenBucket = field(default_factory=partial(TokenBucket, LISTS_PER_S, LISTS_BURST))
    heard: TokenBucket = field(
        default_factory=partial(TokenBucket, GIVEN * HELD_PER_S, GIVEN * HELD_BURST)
    )
    said: TokenBucket = field(default_factory=partial(TokenBucket, HELD_PER_S, HELD_BURST))


class Neighbours:
    """All hops of one program, as far as trust is concerned."""

    def __init__(
        self,
        node: OwnNode,
        clock: Clock,
        metrics: Metrics,
        *,
        renewed: Callable[[Hop], None] | None = None,
    ) -> None:
        """``renewed`` is told of a hop whose peer has shown a newer proof."""
        self._node = node
        self._trust = node.trust
        self._clock = clock
        self._renewed = renewed
        self._open: dict[int, _Neighbour] = {}
        self._assembling_bytes = 0
        self._said_s = 0.0
        self._said_of = node.trust.anchors
        self.refused: Counter[Code] = Counter()
        """Lists and proofs that did not count."""
        metrics.counter_read(
            "neighbours_not_believed",
            "Lists and proofs of neighbours that did not count, by code.",
            lambda: by_code(self.refused),
            label="code",
        )
        node.trust.on_news.append(self._spread)
        node.on_change.append(self.show_proof)

    def hop_opened(self, hop: Hop) -> None:
        neighbour = self._open[hop.id] = _Neighbour(hop)
        self._say_held(neighbour)

    def hop_closed(self, hop: Hop) -> None:
        gone = self._open.pop(hop.id, None)
        if gone is not None:
            self._forget_parts(gone)

    def newest_told(self, authority: Identifier) -> int | None:
        """The highest number of its lists that an open neighbour claims to hold, or was sent; None
        while nobody has said."""
        told = [one.numbers[authority] for one in self._open.values() if authority in one.numbers]
        return max(told, default=None)

    def show_proof(self) -> None:
        """Show every neighbour who we are now."""
        for neighbour in self._open.values():
            self._show_proof(neighbour)

    def tick(self) -> None:
        """Called about once a second."""
        now_s = self._clock.now_s()
        for neighbour in self._open.values():
            if neighbour.owed_proof:
                self._show_proof(neighbour)
            for authority in list(neighbour.owed):
                self._send_newer(neighbour, authority)
            if neighbour.parts and now_s - neighbour.part_s >= ASSEMBLING_SECONDS_MAX:
                self._forget_parts(neighbour)
        if now_s - self._said_s >= HELD_AGAIN_SECONDS:
            self._said_s = now_s
            for neighbour in self._open.values():
                self._say_held(neighbour)

    def receive_untrusted(self, hop: Hop, frame: Frame) -> None:
        """Take one frame of ``KINDS``. Raises FrameError for what breaks the protocol."""
        if frame.link != 0:
            raise FrameError(f"kind {frame.kind:#04x} belongs to no link")
        neighbour = self._open.get(hop.id)
        if neighbour is None:
            return
        match frame.kind:
            case FrameKind.RENEW:
                self._renew_untrusted(neighbour, frame.body)
            case FrameKind.LISTS_HELD:
                self._held_untrusted(neighbour, decode_held_lists_untrusted(frame.body))
            case _:
                self._part_untrusted(neighbour, decode_list_part_untrusted(frame.body))

    # Proofs.

    def _show_proof(self, neighbour: _Neighbour) -> None:
        neighbour.owed_proof = not neighbour.shown.take(self._clock.now_s())
        if not neighbour.owed_proof:
            hop = neighbour.hop
            hop.send_frame(0, FrameKind.RENEW, self._node.proof_for_hop(hop.own_key))

    def _renew_untrusted(self, neighbour: _Neighbour, proof: bytes) -> None:
        hop = neighbour.hop
        if not neighbour.renewals.take(self._clock.now_s()):
            raise FrameError("renewals without end", Code.HOP_LIMIT_EXCEEDED)
        try:
            newer = self._node.verify_hop(proof, hop.peer.noise_key.raw)
        except IdentityError as exc:
            # Perhaps only our clock is wrong: the hop goes on with what it was opened on.
            self._refuse(exc.code, hop, exc.detail)
            return
        before = hop.peer.identity
        if newer.identifier != hop.peer.identifier or newer.identity.kind != before.kind:
            raise FrameError("a renewal by somebody else")
        if newer.name != before.name or newer.identity.role_of_node != before.role_of_node:
            raise FrameError("a renewal under another name")
        hop.renewed(newer)
        _log.info("peer_renewed", peer=str(newer.identifier))
        if self._renewed is not None:
            self._renewed(hop)

    # Lists.

    def _say_held(self, neighbour: _Neighbour) -> None:
        if not neighbour.said.take(self._clock.now_s()):
            return  # It is said again in a while.
        held = tuple(
            HeldList(anchor.identifier, self._trust.lists.number(anchor.identifier))
            for anchor in self._trust.anchors
        )
        neighbour.hop.send_frame(0, FrameKind.LISTS_HELD, encode_held_lists(held))

    def _held_untrusted(self, neighbour: _Neighbour, held: tuple[HeldList, ...]) -> None:
        if not neighbour.heard.take(self._clock.now_s()):
            raise FrameError("lists held without end", Code.HOP_LIMIT_EXCEEDED)
        trusted = self._trusted()
        for one in held:
            if one.authority in trusted:
                neighbour.numbers[one.authority] = one.number
                self._send_newer(neighbour, one.authority)

    def _trusted(self) -> frozenset[Identifier]:
        return frozenset(anchor.identifier for anchor in self._trust.anchors)

    def _spread(self) -> None:
        anchors = self._trust.anchors
        if anchors != self._said_of:
            self._said_of = anchors
            for neighbour in self._open.values():
                self._say_held(neighbour)
        for neighbour in self._open.values():
            for anchor in anchors:
                if anchor.identifier in neighbour.numbers:
                    self._send_newer(neighbour, anchor.identifier)

    def _send_newer(self, neighbour: _Neighbour, authority: Identifier) -> None:
        """Send a list to a neighbour that has said it trusts its authority, and holds less."""
        neighbour.owed.discard(authority)
        encoded = self._trust.encoded_list(authority)
        number = self._trust.lists.number(authority)
        if encoded is None or number <= neighbour.numbers[authority]:
            return
        is_full = neighbour.hop.queued_bytes > QUEUED_BYTES_MAX
        if is_full or not neighbour.sent.take(self._clock.now_s()):
            neighbour.owed.add(authority)
            return
        neighbour.numbers[authority] = number
        for part in list_parts(authority, number, encoded):
            neighbour.hop.send_frame(0, FrameKind.LIST, encode_list_part(part))

    def _part_untrusted(self, neighbour: _Neighbour, part: ListPart) -> None:
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
            raise FrameError("parts of a list that do not follow each other")
        is_news = part.number > self._trust.lists.number(part.authority)
        if not is_news or part.authority not in self._trusted():
            self._forget_parts(neighbour)
            return
        if not self._has_room(neighbour, len(part.data)):
            self.refused[Code.HOP_LIMIT_EXCEEDED] += 1
            self._forget_parts(neighbour)
            return
        self._assembling_bytes += len(part.data)
        neighbour.part = part
        neighbour.part_s = self._clock.now_s()
        neighbour.parts += part.data
        if len(neighbour.parts) == part.total_bytes:
            encoded = bytes(neighbour.parts)
            self._forget_parts(neighbour)
            self._take_untrusted(neighbour, part, encoded)

    def _has_room(self, neighbour: _Neighbour, size_bytes: int) -> bool:
        """Make room for a part, at the cost of whoever has added nothing for longest."""
        while self._assembling_bytes + size_bytes > ASSEMBLING_BYTES_MAX:
            others = [one for one in self._open.values() if one.parts and one is not neighbour]
            if not others:
                return False
            self.refused[Code.HOP_LIMIT_EXCEEDED] += 1
            self._forget_parts(min(others, key=lambda one: one.part_s))
        return True

    def _take_untrusted(self, neighbour: _Neighbour, part: ListPart, encoded: bytes) -> None:
        if not neighbour.taken.take(self._clock.now_s()):
            raise FrameError("lists without end", Code.HOP_LIMIT_EXCEEDED)
        # Said before it is taken: what is held already need not be sent back.
        neighbour.numbers[part.authority] = part.number
        try:
            self._trust.offer_untrusted(encoded)
        except IdentityError as exc:
            self._refuse(exc.code, neighbour.hop, exc.detail)

    def _forget_parts(self, neighbour: _Neighbour) -> None:
        self._assembling_bytes -= len(neighbour.parts)
        neighbour.part = None
        neighbour.parts = bytearray()

    def _refuse(self, code: Code, hop: Hop, detail: str) -> None:
        self.refused[code] += 1
        _log.warning(
            "neighbour_not_believed", peer=str(hop.peer.identifier), code=code.text, why=detail
        )
