"""When packet keys are old enough to be renewed. Neither engine does that by itself. Pure."""


class KeySchedule:
    """Counts what was sent under one set of keys, and for how long."""

    __slots__ = ("_packets", "_packets_max", "_renew_by_s", "_seconds_max")

    def __init__(self, packets_max: int, seconds_max: float, now_s: float) -> None:
        self._packets_max = packets_max
        self._seconds_max = seconds_max
        self.renewed(now_s)

    def is_due(self, packets_sent: int, now_s: float) -> bool:
        """Count ``packets_sent`` more, and say whether the keys should go."""
        self._packets += packets_sent
        return self._packets >= self._packets_max or now_s >= self._renew_by_s

    def renewed(self, now_s: float) -> None:
        self._packets = 0
        self._renew_by_s = now_s + self._seconds_max
