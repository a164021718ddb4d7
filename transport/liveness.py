"""When to ask whether a peer is still there, and when to give it up. Pure."""


class Liveness:
    """Told when something was heard, said or asked."""

    __slots__ = ("_idle_timeout_s", "_keepalive_s", "both_ask", "heard_s", "pinged_s", "said_s")

    def __init__(self, *, keepalive_s: float, idle_timeout_s: float, now_s: float) -> None:
        self._keepalive_s = keepalive_s
        self._idle_timeout_s = idle_timeout_s
        self.heard_s = now_s
        self.said_s = now_s
        """When the engine was last given something to send."""
        self.pinged_s = 0.0
        self.both_ask = False
        """Also the side that hears enough asks, when it has said nothing.

        On loopback: qh3 forgets its congestion window when nothing was acknowledged for two
        seconds, and large datagrams are then paced to two in a millisecond until some thirty have
        been answered.
        """

    @property
    def ping_at_s(self) -> float:
        active_s = min(self.heard_s, self.said_s) if self.both_ask else self.heard_s
        return max(active_s, self.pinged_s) + self._keepalive_s

    @property
    def lost_at_s(self) -> float:
        return self.heard_s + self._idle_timeout_s
