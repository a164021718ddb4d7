"""What may be done to the datagrams of one direction. Options and commands have these names."""

import math
from dataclasses import dataclass, fields
from typing import Final


class ImpairmentError(ValueError):
    """A setting that means nothing, with the reason."""


@dataclass(frozen=True, slots=True)
class Impairment:
    """Chances are from 0 to 1, for each datagram. All zero: the proxy only forwards."""

    loss: float = 0.0
    """The mean share of datagrams that is lost."""
    burst: float = 0.0
    """Mean length of a run of losses, in datagrams. 0: each is lost or not by itself."""
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    """On top of the delay, from nothing to this much, for each datagram anew: so it shuffles."""
    reorder: float = 0.0
    """The chance to be held back by ``reorder_ms`` more, while others overtake."""
    reorder_ms: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    """The chance that one bit is flipped."""
    truncate: float = 0.0
    """The chance that the end is cut off."""
    rate_bytes_s: float = 0.0
    """0: no limit. Counted in bytes of payload."""
    bucket_bytes: int = 16_384
    """What may pass at once after a pause."""
    queue_bytes: int = 262_144
    """What may wait for its turn; the next is dropped."""

    def __post_init__(self) -> None:
        for name in _NAMES:
            value = getattr(self, name)
            if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
                raise ImpairmentError(f"{name} must be a number from 0 up, and is {value!r}")
        for name in _CHANCES:
            if getattr(self, name) > 1:
                raise ImpairmentError(f"{name} is a chance: from 0 to 1")
        if self.burst and self.burst < 1:
            raise ImpairmentError("a burst is one datagram at least")
        if self.burst and self.loss > self.burst / (self.burst + 1):
            # A run of losses ends with a datagram that passes.
            raise ImpairmentError(f"bursts of {self.burst:g} cannot lose {self.loss:g} of all")
        if self.rate_bytes_s and (self.bucket_bytes < 1 or self.queue_bytes < 1):
            raise ImpairmentError("a rate needs a bucket and a queue")


_NAMES: Final = tuple(field.name for field in fields(Impairment))
_CHANCES: Final = ("loss", "reorder", "duplicate", "corrupt", "truncate")

NO_IMPAIRMENT: Final = Impairment()
