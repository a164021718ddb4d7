"""When a peer is asked whether it is there, and when it is given up."""

import pytest

from transport.liveness import Liveness


def alive(*, both_ask: bool = False) -> Liveness:
    liveness = Liveness(keepalive_s=1.5, idle_timeout_s=5.0, now_s=100.0)
    liveness.both_ask = both_ask
    return liveness


def test_who_hears_nothing_asks_and_asks_again() -> None:
    liveness = alive()
    first_s = liveness.ping_at_s
    liveness.pinged_s = 101.6

    assert (first_s, liveness.ping_at_s) == (101.5, 103.1)


def test_a_peer_is_lost_when_it_was_silent_for_the_idle_time_however_often_it_was_asked() -> None:
    liveness = alive()
    liveness.pinged_s = 104.5

    assert liveness.lost_at_s == 105.0


def test_who_is_heard_is_not_asked_and_not_lost() -> None:
    liveness = alive()
    liveness.pinged_s = 101.5
    liveness.heard_s = 104.0

    assert (liveness.ping_at_s, liveness.lost_at_s) == (105.5, 109.0)


@pytest.mark.parametrize(("both_ask", "ping_at_s"), [(True, 101.5), (False, 102.9)])
def test_who_hears_and_says_nothing_asks_only_where_both_do(
    both_ask: bool, ping_at_s: float
) -> None:
    liveness = alive(both_ask=both_ask)
    liveness.heard_s = 101.4

    assert liveness.ping_at_s == ping_at_s
