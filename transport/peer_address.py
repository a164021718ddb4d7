"""Where a dialler is, and when its engine may hear that it has moved. Pure.

An engine follows an authentic datagram from a new address, or at least challenges that address.
Whoever sees a datagram can send a copy of it, faster, from elsewhere: aioquic then speaks to the
copier for a while, and qh3 may fall silent for good, since it waits for leave to send to an address
that never answers. A copy does not stop the original. So a new address is believed only while the
old one is silent; until then the engine is told the old one. What it then believes, it proves.
"""

from typing import Final

from transport.path import Address

# Long enough for an original to follow its copy on any path.
_QUIET_S: Final = 0.25
# A dialler that lives says something in every keepalive time. This much more is silence.
_SILENCE_FACTOR: Final = 4 / 3


class PeerAddress:
    """Of an accepted connection."""

    __slots__ = ("_has_proof", "_is_mixed", "_silence_s", "_since_s", "candidate", "current")

    def __init__(self, address: Address, keepalive_s: float) -> None:
        self.current = address
        self._silence_s = max(_QUIET_S, keepalive_s * _SILENCE_FACTOR)
        self.candidate: Address | None = None
        """Where it may have moved to."""
        self._since_s = 0.0
        self._has_proof = False
        self._is_mixed = False

    def judge(self, source: Address, now_s: float) -> Address:
        """Return the address to tell the engine for a datagram that came from ``source``."""
        if source == self.current:
            self.candidate, self._is_mixed = None, True
            return source
        if source != self.candidate:
            self.candidate, self._since_s, self._has_proof = source, now_s, False
        needed_s = _QUIET_S if self._has_proof else self._silence_s
        return source if now_s - self._since_s >= needed_s else self.current

    def note_turn(self, *, is_authentic: bool) -> None:
        """The engine has digested what came since the last call, and made something of it or not.

        Anybody can send noise with a copied connection id: it counts for nothing, and has to be
        told from what the old address brought in the same turn.
        """
        if is_authentic and self.candidate is not None and not self._is_mixed:
            self._has_proof = True
        self._is_mixed = False

    def moved(self, address: Address) -> None:
        """The engine has followed."""
        self.current, self.candidate = address, None
