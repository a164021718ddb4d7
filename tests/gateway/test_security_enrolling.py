"""Who has no credential can neither take members' places nor keep others from enrolling."""

from gateway.enrolling import ENROLLING_HOPS_MAX, ENROLLING_SECONDS_MAX, EnrollingHops
from identity import Code


class Hop:
    """As much of a hop as is asked here."""

    def __init__(self) -> None:
        self.closed: Code | None = None

    def close(self, code: Code) -> None:
        self.closed = code


def hops_open(enrolling: EnrollingHops, count: int) -> list[Hop]:
    hops = [Hop() for _ in range(count)]
    for hop in hops:
        enrolling.add(hop, now_s=0.0)  # type: ignore[arg-type]
    return hops


def test_strangers_who_hold_every_place_lose_the_oldest_one_to_a_newcomer() -> None:
    enrolling = EnrollingHops()
    first, *others = hops_open(enrolling, ENROLLING_HOPS_MAX + 1)
    assert first.closed is Code.HOP_LIMIT_EXCEEDED
    assert all(hop.closed is None for hop in others)
    assert len(enrolling) == ENROLLING_HOPS_MAX


def test_a_hop_that_only_waits_is_closed_after_its_time() -> None:
    enrolling = EnrollingHops()
    [hop] = hops_open(enrolling, 1)
    enrolling.close_overdue(ENROLLING_SECONDS_MAX - 0.1)
    assert hop.closed is None
    enrolling.close_overdue(ENROLLING_SECONDS_MAX)
    assert hop.closed is Code.HOP_TIMEOUT
    assert not len(enrolling)


def test_a_hop_that_has_ended_is_not_closed_again() -> None:
    enrolling = EnrollingHops()
    [hop] = hops_open(enrolling, 1)
    enrolling.discard(hop)  # type: ignore[arg-type]
    enrolling.close_overdue(ENROLLING_SECONDS_MAX)
    assert hop.closed is None
