"""What a peer costs against what it brings. Whoever overdraws is cut. Pure.

Neither engine bounds all that a peer can make it do. Seen with qh3: each RETIRE_CONNECTION_ID and
NEW_CONNECTION_ID makes every later one slower, and each PATH_CHALLENGE of nine bytes is answered by
a datagram that is kept until it is acknowledged, which a hostile peer never does. A frame cannot be
seen from here, so time, datagrams and acknowledgements are counted instead.
"""

from typing import Final

# An honest datagram costs 5 microseconds on qh3 and 110 on aioquic: this is for slow machines.
_SECONDS_PER_DATAGRAM: Final = 0.002
_SECONDS_MAX: Final = 0.5
# Below this what comes is fed one datagram at a time, so that none of many costs unseen.
_SECONDS_STRAINED: Final = 0.25
# A turn that took long may have been put aside by the system. So the time that counts is that of
# the processor; it is dear to ask for, and asked for only this many reads after a slow one.
_WATCHED_READS: Final = 256

# What we send is due to what we say, to what came (acknowledgements), and to timers.
_BYTES_PER_DATAGRAM: Final = 1_000
_OWED_MAX: Final = 16_384  # Whoever was told much has not earned more than that.
_DATAGRAMS_PER_SECOND: Final = 64
_DATAGRAMS_MAX: Final = 4_096

# A PING from time to time: its acknowledgement lets an engine forget what it keeps until then. One
# may go astray: where every tenth datagram is lost, an honest hop was cut for it within a minute.
_PING_INTERVAL_S: Final = 10.0
_PINGS_UNANSWERED: Final = 2


class PeerLedger:
    """Told what was spent and earned, and the time."""

    __slots__ = (
        "_datagrams",
        "_datagrams_at_s",
        "_owed",
        "_ping_at_s",
        "_pings",
        "_seconds",
        "_watched",
        "is_overdrawn",
        "is_watching",
    )

    def __init__(self, now_s: float) -> None:
        self._seconds = _SECONDS_MAX
        self._watched = 0
        self._owed = 0.0
        self._datagrams = float(_DATAGRAMS_MAX)
        self._datagrams_at_s = now_s
        self._pings: list[int] = []
        self._ping_at_s = now_s + _PING_INTERVAL_S
        self.is_watching = False
        """Whether ``received`` is to be told the time of the processor, not of the clock."""
        self.is_overdrawn = False

    @property
    def is_strained(self) -> bool:
        return self._seconds < _SECONDS_STRAINED

    def received(self, datagrams: int, seconds: float) -> None:
        """So much time went into so many datagrams of the peer."""
        self._datagrams += datagrams
        earned = datagrams * _SECONDS_PER_DATAGRAM
        if self.is_watching:
            self._seconds = min(self._seconds + earned, _SECONDS_MAX) - seconds
            self.is_overdrawn |= self._seconds < 0
            self._watched -= 1
            self.is_watching = self._watched > 0
        elif seconds > earned:
            self._watched, self.is_watching = _WATCHED_READS, True

    def handed_down(self, size: int) -> None:
        """We gave the engine something to send."""
        self._owed += 1 + size / _BYTES_PER_DATAGRAM

    def sent(self, datagrams: int, now_s: float) -> None:
        owed = min(self._owed, datagrams)
        self._owed = min(self._owed - owed, _OWED_MAX)
        self._datagrams += (now_s - self._datagrams_at_s) * _DATAGRAMS_PER_SECOND
        self._datagrams_at_s = now_s
        self._datagrams = min(self._datagrams, _DATAGRAMS_MAX) - (datagrams - owed)
        self.is_overdrawn |= self._datagrams < 0

    def is_ping_due(self, now_s: float) -> bool:
        return now_s >= self._ping_at_s

    def pinged(self, number: int, now_s: float) -> None:
        self._pings.append(number)
        self._ping_at_s = now_s + _PING_INTERVAL_S

    def answered(self, number: int) -> None:
        """Whichever it was, also a late one: something is acknowledged."""
        if number in self._pings:
            self._pings.clear()

    def find_fault(self, now_s: float) -> str | None:
        """Say in words what the peer overdrew."""
        if self._seconds < 0:
            return "its datagrams take too long to digest"
        if self._datagrams < 0:
            return "it makes us send too much"
        if len(self._pings) >= _PINGS_UNANSWERED and now_s >= self._ping_at_s:
            return "it acknowledges nothing"
        return None
