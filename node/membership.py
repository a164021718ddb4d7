"""Asking the authority while a program runs: a channel to it over a hop that carries all else."""

from collections.abc import Callable

from identity import Code, SidelinkError
from link import Frame, HopPort
from node.enrolment import EnrolmentExchange, adopt_renewal, renewal_exchange
from node.parts import Parts

WayToAuthority = Callable[[int], tuple[HopPort, int] | None]
"""A hop that leads to this node's authority, and the number of a new link on it; None without. It
is told how often in a row the ways that it gave have led nowhere."""


class Membership:
    """One question at a time. Its frames are taken out of those for the program itself."""

    def __init__(self, parts: Parts, way: WayToAuthority) -> None:
        self._parts = parts
        self._way = way
        self._asking: tuple[HopPort, EnrolmentExchange] | None = None
        self._failures = 0

    async def renew(self) -> None:
        """Ask for a new credential and adopt it. Raises SidelinkError with why that failed."""
        parts = self._parts
        way = self._way(self._failures)
        if way is None:
            raise SidelinkError(Code.ENROL_AUTHORITY_UNREACHABLE, "no hop leads to the authority")
        hop, link = way
        exchange = renewal_exchange(parts.node, hop, parts.clock, link=link)
        self._asking = hop, exchange
        self._failures += 1
        try:
            grant = await exchange.answer()
        finally:
            self._asking = None
        self._failures = 0
        adopt_renewal(parts.node, parts.store, grant, parts.clock)

    def take(self, hop: HopPort, frames: list[Frame]) -> list[Frame]:
        """Take what answers the question; return the rest."""
        if self._asking is None or self._asking[0] is not hop:
            return frames
        exchange = self._asking[1]
        ours = [frame for frame in frames if frame.link == exchange.link]
        if ours:
            exchange.frames_received(ours)
            frames = [frame for frame in frames if frame.link != exchange.link]
        return frames

    def hop_closed(self, hop: HopPort, code: Code, detail: str) -> None:
        if self._asking is not None and self._asking[0] is hop:
            self._asking[1].hop_closed(code, detail)
