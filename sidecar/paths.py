"""Which link carries each open channel: moved when a better one is there, found again when it is
lost. Pure.

A channel whose link is gone is *parked*: nothing is sent on it, nothing of it is forgotten, and
both sides try to go on over whatever hop they have. What was under way is sent again there, so
messages that were accepted arrive once and in order as long as both sidecars live.

The initiator of the channel asks first; the responder waits a little, and yields when both ask.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from channel import ChannelError
from channel.limits import SESSION_ID_BYTES
from identity import Code
from link import Frame, FrameKind, HopPort, LinkEnd, LinkError, LinkOpen
from link.limits import LINK_NONCE_BYTES
from link.messages import decode_code_untrusted, encode_code, encode_link_open
from sidecar.hops import HopBook
from sidecar.slot import ChannelSlot, LeftLink, Wish
from sidecar.timers import Timers

# How long a channel may be without a link. Longer than a gateway takes to restart and a lost hop
# to be noticed at both ends; what it holds meanwhile is bounded by its windows.
PARKED_SECONDS_MAX: Final = 60.0
MOVE_SECONDS_MAX: Final = 5.0
RETRY_SECONDS_MIN: Final = 0.2
RETRY_SECONDS_MAX: Final = 2.0
RESPONDER_SECONDS: Final = 1.0
# A link that was left stays known so long, and then until its last byte stream has ended.
LEFT_SECONDS: Final = 5.0
LEFT_LINKS_MAX: Final = 4
# A hop that opens may have thousands of channels waiting for it: so many begin to move at once.
MOVES_AT_ONCE: Final = 64
MOVES_APART_SECONDS: Final = 0.01
# No channel moves to a hop on which more than this waits: what it sends again there would wait too.
HOP_QUEUE_BYTES_MAX: Final = 16 << 20
# What a gateway says that another gateway may see otherwise: the opening is tried there.
SAID_BY_ONE_GATEWAY: Final = frozenset(
    {
        Code.ROUTE_UNKNOWN,
        Code.ROUTE_UNREACHABLE,
        Code.ROUTE_LINK_LIMIT,
        Code.ROUTE_LINK_CLOSED,
    }
)

assert PARKED_SECONDS_MAX > 2 * MOVE_SECONDS_MAX
assert RETRY_SECONDS_MAX < MOVE_SECONDS_MAX


class PathHome(Protocol):
    """What paths ask of the table of channels."""

    def bind(self, end: LinkEnd, slot: ChannelSlot) -> None: ...
    def unbind(self, end: LinkEnd) -> None: ...

    def end(self, slot: ChannelSlot, code: Code) -> None:
        """It cannot go on: whoever waits on it learns why."""
        ...

    def may_pass(self, slot: ChannelSlot) -> bool:
        """Whether it may go on. False if that has ended it."""
        ...

    def moved(self, slot: ChannelSlot) -> None:
        """It has a link again, or another one."""
        ...

    def streams_on(self, end: LinkEnd) -> int:
        """How many byte streams still use a link."""
        ...


@dataclass(slots=True)
class PathCounters:
    parked: int = 0
    moved: int = 0
    refused: int = 0
    """Wishes of peers that named no channel of ours, or were not theirs."""
    given_up: int = 0


class Paths:
    """The ways of all open channels of a sidecar."""

    def __init__(self, home: PathHome, hops: HopBook, timers: Timers) -> None:
        self._home = home
        self._hops = hops
        self._timers = timers
        self._sessions: dict[bytes, ChannelSlot] = {}
        self._parked: dict[ChannelSlot, None] = {}
        self._wishes: dict[LinkEnd, ChannelSlot] = {}
        self.counters = PathCounters()

    @property
    def parked(self) -> int:
        return len(self._parked)

    def wishing(self, end: LinkEnd) -> ChannelSlot | None:
        """The channel that has asked to go on over this link."""
        return self._wishes.get(end)

    def opened(self, slot: ChannelSlot, now_s: float) -> None:
        """From here on the channel may move."""
        slot.session_id = slot.links.channel.session_id
        self._sessions[slot.session_id] = slot
        self._improve([slot], now_s)

    def forget(self, slot: ChannelSlot) -> None:
        """The channel is over: nothing of its ways remains."""
        self._sessions.pop(slot.session_id, None)
        self._parked.pop(slot, None)
        self._drop_wish(slot)
        self._timers.cancel(slot.path_timer)
        for end in list(slot.left):
            self._close_left(slot, end)

    # What happens to hops and links.

    def lost(self, slot: ChannelSlot, now_s: float) -> None:
        """The link of an open channel is gone."""
        slot.links.detach()
        slot.parked_until_s = now_s + PARKED_SECONDS_MAX
        self._parked[slot] = None
        self.counters.parked += 1
        if slot.wish is None:
            slot.tries = 0
            self._plan(slot, now_s + _head_start_s(slot))

    def left_closed(self, slot: ChannelSlot, end: LinkEnd) -> None:
        """A link that was left before is closed now."""
        slot.left.pop(end, None)
        self._home.unbind(end)

    def hop_opened(self, hop: HopPort, now_s: float) -> None:
        """Whoever has no way tries this one; whoever has a worse one does as well."""
        node = hop.peer.identifier if self._hops.is_direct(hop) else None
        # A direct hop leads to its own node only: who opens many puts off nobody else's turn.
        waiting = (
            slot
            for slot in self._parked
            if slot.wish is None and (node is None or slot.node == node)
        )
        for count, slot in enumerate(waiting):
            wait_s = count // MOVES_AT_ONCE * MOVES_APART_SECONDS
            self._plan(slot, now_s + wait_s + _head_start_s(slot))
        if node is not None:
            self._improve((s for s in self._sessions.values() if s.node == node), now_s)

    def hop_leaving(self, hop: HopPort, now_s: float) -> None:
        """The neighbour is about to stop: its channels go elsewhere while they still can."""
        self._improve((s for s in self._sessions.values() if s.links.hop is hop), now_s)

    def hop_closed(self, hop: HopPort, now_s: float) -> None:
        """Wishes on a lost hop are not answered any more."""
        for end in [end for end in self._wishes if end.hop == hop.id]:
            self._failed(self._wishes[end], now_s)

    # What peers say.

    def answer_untrusted(self, hop: HopPort, link: int, opening: LinkOpen, now_s: float) -> None:
        """A peer wishes to go on with a channel on this link."""
        code = self._take_wish_untrusted(hop, link, opening, now_s)
        if code is not None:
            self.counters.refused += 1
            hop.send_frame(link, FrameKind.LINK_CLOSE, encode_code(code))

    def receive_untrusted(self, end: LinkEnd, frame: Frame, now_s: float) -> None:
        """A frame on a link that carries no channel: the answer to a wish of ours, or too late.

        Raises FrameError for a malformed LINK_CLOSE.
        """
        slot = self._wishes.get(end)
        if slot is None or not self._home.may_pass(slot):
            return
        if frame.kind == FrameKind.LINK_ACCEPT:
            self._accepted_untrusted(slot, frame.body, now_s)
        elif frame.kind == FrameKind.LINK_CLOSE:
            code = decode_code_untrusted(frame.body)
            self._take_wish(slot)
            if code is Code.CHANNEL_SESSION_UNKNOWN:
                self._home.end(slot, code)
            else:
                self._retry(slot, now_s)

    def _take_wish_untrusted(
        self, hop: HopPort, link: int, opening: LinkOpen, now_s: float
    ) -> Code | None:
        """Returns why not. Whatever is wrong with a wish costs its link, and never the channel."""
        assert opening.move is not None
        slot = self._sessions.get(opening.move[:SESSION_ID_BYTES])
        if slot is None or not self._home.may_pass(slot):
            return Code.CHANNEL_SESSION_UNKNOWN
        if (opening.target, opening.source) != (slot.agent.uri, slot.remote):
            return Code.CHANNEL_MOVE_INVALID
        if slot.initiator and slot.wish is not None:
            return Code.ROUTE_LINK_CLOSED  # Both ask. Ours goes first; the peer asks again.
        if not self._may_move(slot, hop, now_s):
            return Code.ROUTE_LINK_LIMIT
        try:
            answer = slot.links.channel.answer_move_untrusted(opening.move, opening.nonce)
        except ChannelError as exc:
            if exc.code is Code.CHANNEL_MOVE_INVALID:
                return exc.code
            self._home.end(slot, exc.code)
            return Code.CHANNEL_SESSION_UNKNOWN
        self._drop_wish(slot)
        hop.send_frame(link, FrameKind.LINK_ACCEPT, answer)
        self._settle(slot, hop, link, now_s, asked=False)
        return None

    def _accepted_untrusted(self, slot: ChannelSlot, body: bytes, now_s: float) -> None:
        wish = self._take_wish(slot)
        try:
            slot.links.channel.finish_move_untrusted(body)
        except ChannelError as exc:
            wish.hop.send_frame(wish.end.link, FrameKind.LINK_CLOSE, encode_code(exc.code))
            if exc.code is Code.CHANNEL_MOVE_INVALID:
                self._retry(slot, now_s)
            else:
                self._home.end(slot, exc.code)
            return
        self._settle(slot, wish.hop, wish.end.link, now_s, asked=True)

    # Asking.

    def _improve(self, slots: Iterable[ChannelSlot], now_s: float) -> None:
        """Let those go to a better way that have one. The responder leaves that to its peer."""
        wanting = [slot for slot in slots if slot.initiator and self._better(slot) is not None]
        for count, slot in enumerate(wanting):
            self._plan(slot, now_s + count // MOVES_AT_ONCE * MOVES_APART_SECONDS)

    def _better(self, slot: ChannelSlot) -> HopPort | None:
        """A hop that is better than the one that a channel has."""
        if slot.parked_until_s is not None or slot.wish is not None:
            return None
        direct = self._hops.direct_to(slot.node)
        if direct is not None:
            return None if direct is slot.links.hop else direct
        if not self._hops.is_leaving(slot.links.hop):
            return None
        return next((hop for hop in self._hops.gateways() if not self._hops.is_leaving(hop)), None)

    def _plan(self, slot: ChannelSlot, at_s: float) -> None:
        self._timers.cancel(slot.path_timer)
        slot.path_timer = self._timers.at(at_s, lambda now_s: self._look(slot, now_s))

    def _look(self, slot: ChannelSlot, now_s: float) -> None:
        """It is time: to give up a wish, or the channel; or to ask."""
        if slot.dead:
            return
        if slot.wish is not None:
            self._failed(slot, now_s)
            return
        if slot.parked_until_s is None:
            better = self._better(slot)
            if better is not None:
                self._ask(slot, better, now_s)
            return
        if now_s >= slot.parked_until_s:
            self.counters.given_up += 1
            self._home.end(slot, Code.ROUTE_UNREACHABLE)
            return
        ways = self._hops.ways_to(slot.node)
        if ways:
            self._ask(slot, ways[slot.tries % len(ways)], now_s)
        else:
            self._plan(slot, slot.parked_until_s)  # A hop that opens comes before.

    @staticmethod
    def _may_move(slot: ChannelSlot, hop: HopPort, now_s: float) -> bool:
        """Whether a channel has not moved too often, nor would to a hop that takes nothing."""
        return hop.queued_bytes <= HOP_QUEUE_BYTES_MAX and slot.moves.take(now_s)

    def _ask(self, slot: ChannelSlot, hop: HopPort, now_s: float) -> None:
        slot.tries += 1
        if not self._may_move(slot, hop, now_s):
            self._plan(slot, now_s + RETRY_SECONDS_MAX)
            return
        nonce = os.urandom(LINK_NONCE_BYTES)
        try:
            link = self._hops.take_link(hop)
            move = slot.links.channel.ask_to_move(nonce)
        except (LinkError, ChannelError):
            self._retry(slot, now_s)
            return
        opening = LinkOpen(slot.remote, slot.agent.uri, nonce, None, b"", move=move)
        hop.send_frame(link, FrameKind.LINK_OPEN, encode_link_open(opening))
        slot.wish = Wish(hop, LinkEnd(hop.id, link))
        self._wishes[slot.wish.end] = slot
        self._plan(slot, now_s + MOVE_SECONDS_MAX)

    def _take_wish(self, slot: ChannelSlot) -> Wish:
        wish, slot.wish = slot.wish, None
        assert wish is not None
        del self._wishes[wish.end]
        return wish

    def _drop_wish(self, slot: ChannelSlot) -> None:
        """Wait no longer for the answer to a wish."""
        if slot.wish is None:
            return
        wish = self._take_wish(slot)
        if wish.hop in self._hops:
            body = encode_code(Code.CHANNEL_CLOSED)
            wish.hop.send_frame(wish.end.link, FrameKind.LINK_CLOSE, body)

    def _failed(self, slot: ChannelSlot, now_s: float) -> None:
        self._drop_wish(slot)
        self._retry(slot, now_s)

    def _retry(self, slot: ChannelSlot, now_s: float) -> None:
        """Ask again after a while if the channel has no link at all; else stay on its link."""
        self._timers.cancel(slot.path_timer)
        if slot.parked_until_s is None:
            return
        wait_s = min(RETRY_SECONDS_MIN * 2 ** min(slot.tries, 10), RETRY_SECONDS_MAX)
        self._plan(slot, min(now_s + wait_s, slot.parked_until_s))

    def _settle(
        self, slot: ChannelSlot, hop: HopPort, link: int, now_s: float, *, asked: bool
    ) -> None:
        """Go on over this link. One that was left stays for the byte streams on it."""
        if slot.parked_until_s is None:
            while len(slot.left) >= LEFT_LINKS_MAX:
                self._close_left(slot, next(iter(slot.left)))
            end = slot.links.end
            slot.left[end] = LeftLink(slot.links.hop, asked)
            self._watch_left(slot, end, now_s)
        self._parked.pop(slot, None)
        slot.parked_until_s = None
        slot.tries = 0
        self._timers.cancel(slot.path_timer)
        slot.links.attach(hop, link)
        self._home.bind(slot.links.end, slot)
        self.counters.moved += 1
        self._home.moved(slot)
        self._improve([slot], now_s)

    # Links that were left.

    def _watch_left(self, slot: ChannelSlot, end: LinkEnd, now_s: float) -> None:
        self._timers.at(now_s + LEFT_SECONDS, lambda now_s: self._look_at_left(slot, end, now_s))

    def _look_at_left(self, slot: ChannelSlot, end: LinkEnd, now_s: float) -> None:
        if end not in slot.left:
            return
        if self._home.streams_on(end):
            self._watch_left(slot, end, now_s)
        else:
            self._close_left(slot, end)

    def _close_left(self, slot: ChannelSlot, end: LinkEnd) -> None:
        left = slot.left.pop(end)
        self._home.unbind(end)
        if left.is_ours_to_close and left.hop in self._hops:
            left.hop.send_frame(end.link, FrameKind.LINK_CLOSE, encode_code(Code.CHANNEL_CLOSED))


def _head_start_s(slot: ChannelSlot) -> float:
    return 0.0 if slot.initiator else RESPONDER_SECONDS
