"""How often a rule allows: token buckets. Pure; the time is an argument, and memory is bounded.

The table outlives the policy that it was made for: whoever has spent a limit has spent it, whatever
else was changed in the file meanwhile.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from policy.request import Party, Request

BUCKETS_MAX: Final = 65_536
"""Those used least recently are forgotten first, which fills them. Each takes some 300 bytes."""
BURST_MAX: Final = 1_000_000


class Per(StrEnum):
    """Whose requests are counted together."""

    SUBJECT = "subject"
    PAIR = "pair"
    RULE = "rule"


@dataclass(frozen=True, slots=True)
class Limit:
    """``burst`` requests at once, then ``rate_per_s``."""

    rate_per_s: float
    burst: int
    per: Per


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_unix_s: float


class LimitTable:
    """The state of all limits of a program."""

    def __init__(self, buckets_max: int = BUCKETS_MAX) -> None:
        self._buckets_max = buckets_max
        self._buckets: OrderedDict[tuple[str, Hashable], _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, rule: str, limit: Limit, request: Request, unix_s: float) -> bool:
        """Charge one request to all whom it concerns; to nobody if one of them has spent it."""
        buckets = [self._bucket((rule, key), limit, unix_s) for key in charged_to(limit, request)]
        if any(bucket.tokens < 1 for bucket in buckets):
            return False
        for bucket in buckets:
            bucket.tokens -= 1
        return True

    def left(self, rule: str, limit: Limit, request: Request, unix_s: float) -> float:
        """How many more would be let through now. Charges nothing, and keeps no bucket."""
        held = [self._buckets.get((rule, key)) for key in charged_to(limit, request)]
        return min(
            float(limit.burst) if one is None else _filled(one, limit, unix_s) for one in held
        )

    def _bucket(self, key: tuple[str, Hashable], limit: Limit, unix_s: float) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(limit.burst, unix_s)
            if len(self._buckets) > self._buckets_max:
                self._buckets.popitem(last=False)
            return bucket
        self._buckets.move_to_end(key)
        bucket.tokens = _filled(bucket, limit, unix_s)
        bucket.filled_unix_s = unix_s
        return bucket


def _filled(bucket: _Bucket, limit: Limit, unix_s: float) -> float:
    """What is in it by now. A clock that was set back fills nothing, and goes on from there."""
    gained = max(0.0, unix_s - bucket.filled_unix_s) * limit.rate_per_s
    return min(limit.burst, bucket.tokens + gained)


def charged_to(limit: Limit, request: Request) -> Sequence[Hashable]:
    """The subject and every agent above it: nobody gets more by starting children."""
    if limit.per is Per.RULE:
        return ("",)
    subject = request.subject
    agents = [one for one in subject.ancestors if one.kind == "agent"]
    identifiers = [str(one.identifier) for one in (subject, *agents)]
    if limit.per is Per.SUBJECT:
        return identifiers
    to = _name_of(request.object)
    return [(identifier, to) for identifier in identifiers]


def _name_of(party: Party) -> str:
    """The same before and after somebody has proved who they are."""
    return str(party.name or party.identifier)
