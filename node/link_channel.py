"""One channel on one link of one hop: its parts become frames, within the credit granted. Pure."""

from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from channel import Channel, ChannelEvent, DataReceived, Part
from channel.limits import UNACKNOWLEDGED_BYTES_MAX
from identity import Code
from link import (
    Credit,
    FrameKind,
    HopPort,
    LinkEnd,
    LinkOpen,
    LinkTarget,
    ReceiveWindow,
    SendWindow,
)
from link.limits import LINK_WINDOW_BYTES, WINDOW_RESERVE_BYTES
from link.messages import encode_code, encode_credit, encode_link_open

_KIND_OF_PART: Final[Mapping[Part, FrameKind]] = MappingProxyType(
    {
        Part.ACCEPT: FrameKind.LINK_ACCEPT,
        Part.FINISH: FrameKind.LINK_FINISH,
        Part.RECORD: FrameKind.RECORD,
        Part.CLOSE: FrameKind.LINK_CLOSE,
    }
)
_PART_OF_KIND: Final[Mapping[int, Part]] = MappingProxyType(
    {int(kind): part for part, kind in _KIND_OF_PART.items()}
)


class LinkChannel:
    """Carries a channel's parts over one link at a time. Call ``pump`` after every call to either.

    Messages wait in the channel, unsealed, while the far end has granted no more and while there
    is no link; ``waiting_bytes`` tells the owner, who must stop feeding the channel. So what
    acknowledges the other direction goes ahead of them. What has been received counts against the
    window until the owner says with ``consume`` that it has left its hands.
    """

    __slots__ = (
        "_fragments_bytes",
        "_receive_window",
        "_send_window",
        "_waiting",
        "_waiting_bytes",
        "channel",
        "closed",
        "end",
        "hop",
    )

    def __init__(self, hop: HopPort, link: int, channel: Channel) -> None:
        self.hop = hop
        self.end = LinkEnd(hop.id, link)
        self.channel = channel
        self.closed = False
        """Nothing passes: the link is gone."""
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._send_window = SendWindow()
        self._receive_window = ReceiveWindow(LINK_WINDOW_BYTES)
        self._fragments_bytes = 0

    @property
    def link(self) -> int:
        return self.end.link

    @property
    def waiting_bytes(self) -> int:
        """What was sent on the channel and has not gone out on a link."""
        return self.channel.waiting_bytes + self._waiting_bytes

    def detach(self) -> None:
        """The link is gone and the channel goes on: what it has to say waits for another."""
        self.closed = True

    def attach(self, hop: HopPort, link: int) -> None:
        """Go on over another link. The channel has been told where the peer stands, and has all
        that the peer lacks in its output: ``pump`` sends it."""
        self.hop = hop
        self.end = LinkEnd(hop.id, link)
        self.closed = False
        self._forget_waiting()
        self._send_window = SendWindow()
        held_bytes = self._receive_window.held_bytes
        self._receive_window = ReceiveWindow(LINK_WINDOW_BYTES, held_bytes=held_bytes)

    def send_open(self, target: LinkTarget, source: LinkTarget, nonce: bytes) -> None:
        """Send LINK_OPEN with the first handshake message, which the channel has ready."""
        [(part, noise_1)] = self.channel.take_output()
        assert part is Part.OPEN
        opening = LinkOpen(target, source, nonce, source_node=None, noise_1=noise_1)
        self.hop.send_frame(self.link, FrameKind.LINK_OPEN, encode_link_open(opening))

    def pump(self) -> None:
        """Move what the channel has ready onto the link, as far as the credit goes."""
        for part, body in self.channel.take_output(self._room_bytes()):
            if part is Part.RECORD:
                self._waiting.append(body)
                self._waiting_bytes += len(body)
            elif part is Part.CLOSE:
                self._send_waiting()
                self._send_close(body)
            else:
                self.hop.send_frame(self.link, _KIND_OF_PART[part], body)
        self._send_waiting()

    def receive(self, kind: int, body: bytes, now_s: float) -> tuple[list[ChannelEvent], int]:
        """Take a frame of this link. Raises CreditError when the peer exceeds its window.

        Returns the events, and how many bytes the owner must give to ``consume`` once the data in
        them has left its hands. What carries no complete data (a fragment, a control record) is
        consumed at once, since a message may be larger than the window; with the last fragment all
        of them are owed.
        """
        if kind != FrameKind.RECORD:
            self.closed = self.closed or kind == FrameKind.LINK_CLOSE
            return self.channel.receive(_PART_OF_KIND[kind], body, now_s), 0
        self._receive_window.receive_untrusted(len(body))
        events = self.channel.receive(Part.RECORD, body, now_s)
        fragments_bytes, self._fragments_bytes = self._fragments_bytes, 0
        if any(isinstance(event, DataReceived) for event in events):
            self._receive_window.take_back(fragments_bytes)
            return events, fragments_bytes + len(body)
        if self.channel.gathered_bytes:
            self._fragments_bytes = fragments_bytes + len(body)
        self.consume(len(body))
        return events, 0

    def credit(self, credit: Credit) -> None:
        """Take a grant for this link and send what waited for it."""
        if self._send_window.grant_untrusted(credit.limit):
            self._send_waiting()
            self.pump()

    def consume(self, count_bytes: int) -> None:
        """Received bytes have left our hands: grant more when it is due."""
        limit = self._receive_window.consume(count_bytes)
        if limit is not None and not self.closed:
            self.hop.send_frame(self.link, FrameKind.CREDIT, encode_credit(Credit(0, limit)))

    def abandon(self, code: Code) -> None:
        """Close the link without a word inside the channel, which may not be able to say one."""
        self._send_close(encode_code(code))

    def _room_bytes(self) -> int:
        """How much the link takes of messages."""
        if self.closed or self._waiting:
            return 0
        # What was sent and not acknowledged is kept for another link, so it has a bound as well.
        return min(
            self._send_window.available_bytes - WINDOW_RESERVE_BYTES,
            UNACKNOWLEDGED_BYTES_MAX - self.channel.unacknowledged_bytes,
        )

    def _send_waiting(self) -> None:
        waiting, window = self._waiting, self._send_window
        if self.closed:
            return
        while waiting and len(waiting[0]) <= window.available_bytes:
            body = waiting.popleft()
            window.spend(len(body))
            self._waiting_bytes -= len(body)
            self.hop.send_frame(self.link, FrameKind.RECORD, body)

    def _send_close(self, body: bytes) -> None:
        if not self.closed:
            self.closed = True
            # What the far end has left no room for can never follow now.
            self._forget_waiting()
            self.hop.send_frame(self.link, FrameKind.LINK_CLOSE, body)

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0
