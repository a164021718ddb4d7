"""The last words of connections that are gone, for peers that missed them. Pure."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from transport import limits
from transport.path import Address

Datagram = tuple[bytes, Address]


@dataclass(slots=True)
class _Kept:
    datagrams: Sequence[Datagram]
    local: bytes | None
    until_s: float
    replies_left: int = limits.LINGER_REPLIES_MAX


class LastWords:
    """By connection id. Bounded in time, in number, and in how often they are said again."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    def __contains__(self, connection_id: bytes) -> bool:
        return connection_id in self._kept

    def keep(
        self, ids: Iterable[bytes], datagrams: Sequence[Datagram], local: bytes | None, now_s: float
    ) -> None:
        """``local`` is the address of ours that they are said from; see `UdpSocket.send`."""
        kept = _Kept(datagrams, local, now_s + limits.LINGER_S)
        for connection_id in ids:
            self._kept[connection_id] = kept
        while len(self._kept) > limits.LINGERING_MAX:
            self._kept.popitem(last=False)

    def again(
        self, connection_id: bytes, now_s: float
    ) -> tuple[Sequence[Datagram], bytes | None] | None:
        """What to send to a peer that still speaks, and from where. None: it was told enough."""
        kept = self._kept[connection_id]
        if kept.until_s < now_s or not kept.replies_left:
            del self._kept[connection_id]
            return None
        kept.replies_left -= 1
        return kept.datagrams, kept.local

    def clear(self) -> None:
        self._kept.clear()
