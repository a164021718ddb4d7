"""Windows: nobody sends, receives or relays more than was granted, and nobody waits for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import Code
from link import CreditError, ReceiveWindow, RelayWindow, SendWindow
from link.limits import CREDIT_MAX, INITIAL_WINDOW_BYTES, LINK_WINDOW_BYTES

SIZES = st.lists(st.integers(1, 65_535), max_size=60)


def test_a_sender_begins_with_the_initial_window() -> None:
    window = SendWindow()
    window.spend(INITIAL_WINDOW_BYTES)

    assert window.available_bytes == 0


@given(st.lists(st.integers(0, CREDIT_MAX), max_size=20))
def test_a_grant_is_a_total_so_that_repeats_and_old_ones_change_nothing(grants: list[int]) -> None:
    window = SendWindow()
    for limit in grants:
        before = window.available_bytes
        assert window.grant_untrusted(limit) == (window.available_bytes > before)

    assert window.available_bytes == max([INITIAL_WINDOW_BYTES, *grants])


def test_a_peer_that_sends_one_byte_too_many_is_told_so() -> None:
    window = ReceiveWindow(LINK_WINDOW_BYTES)
    window.receive_untrusted(INITIAL_WINDOW_BYTES)

    with pytest.raises(CreditError) as caught:
        window.receive_untrusted(1)
    assert caught.value.code is Code.ROUTE_CREDIT_EXCEEDED


@given(SIZES, st.sampled_from((INITIAL_WINDOW_BYTES, LINK_WINDOW_BYTES)), st.randoms())
def test_a_sender_and_a_receiver_never_wait_for_each_other(
    sizes: list[int], window_bytes: int, chance: object
) -> None:
    """Whatever is sent is received in time, and once it is consumed there is room for a record."""
    sending, receiving, relaying = SendWindow(), ReceiveWindow(window_bytes), RelayWindow()
    for size in sizes:
        assert sending.available_bytes >= size, "a reader who keeps up never makes anybody wait"
        sending.spend(size)
        relaying.pass_untrusted(size)
        receiving.receive_untrusted(size)
        limit = receiving.consume(size)
        if limit is not None:
            assert relaying.grant_untrusted(limit)
            assert sending.grant_untrusted(limit)
    assert receiving.held_bytes == 0


@given(SIZES)
def test_what_is_held_and_what_may_come_is_never_more_than_the_window(sizes: list[int]) -> None:
    sending, receiving = SendWindow(), ReceiveWindow(LINK_WINDOW_BYTES)
    for at, size in enumerate(sizes):
        if sending.available_bytes < size:
            continue
        sending.spend(size)
        receiving.receive_untrusted(size)
        if at % 2:
            limit = receiving.consume(min(size, receiving.held_bytes))
            if limit is not None:
                sending.grant_untrusted(limit)
        assert receiving.held_bytes + sending.available_bytes <= LINK_WINDOW_BYTES


def test_a_grant_comes_at_half_a_window_and_not_with_every_byte() -> None:
    window = ReceiveWindow(LINK_WINDOW_BYTES)
    window.receive_untrusted(INITIAL_WINDOW_BYTES)
    grants = [limit for _ in range(INITIAL_WINDOW_BYTES // 1024) if (limit := window.consume(1024))]

    assert len(grants) == 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1 << 20)), max_size=60))
def test_a_relay_never_passes_more_than_was_granted(events: list[tuple[bool, int]]) -> None:
    window, granted, passed = RelayWindow(), INITIAL_WINDOW_BYTES, 0
    for is_grant, value in events:
        if is_grant:
            assert window.grant_untrusted(value) == (value > granted)
            granted = max(granted, value)
            continue
        try:
            window.pass_untrusted(value)
        except CreditError:
            assert passed + value > granted
            return
        passed += value
        assert passed <= granted
