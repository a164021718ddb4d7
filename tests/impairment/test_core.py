"""The proxy's mind: no datagram before its time, none unaccounted for, one seed one story."""

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.impairment.core import (
    Direction,
    Drop,
    Forgotten,
    Impairer,
    OneWay,
    Rebound,
    Step,
    ToClient,
    ToTarget,
)
from tests.impairment.settings import Impairment, ImpairmentError

CHANCES = st.sampled_from((0.0, 0.0, 0.1, 0.5, 1.0))
IMPAIRMENTS = st.builds(
    Impairment,
    loss=st.sampled_from((0.0, 0.0, 0.1, 0.5)),
    burst=st.sampled_from((0.0, 1.5, 4.0)),
    delay_ms=st.sampled_from((0.0, 5.0, 200.0)),
    jitter_ms=st.sampled_from((0.0, 0.0, 50.0)),
    reorder=CHANCES,
    reorder_ms=st.sampled_from((0.0, 30.0)),
    duplicate=CHANCES,
    corrupt=CHANCES,
    truncate=CHANCES,
    rate_bytes_s=st.sampled_from((0.0, 10_000.0)),
    bucket_bytes=st.just(1_000),
    queue_bytes=st.just(3_000),
)
# A pause, whether it goes up, which client, and its bytes.
SENDINGS = st.lists(
    st.tuples(
        st.sampled_from((0.0, 0.001, 0.04, 0.3)),
        st.booleans(),
        st.integers(0, 3),
        st.binary(max_size=600),
    ),
    max_size=60,
)
FAR_S = 1_000.0


class Story:
    """One proxy between clients 0 to 3 and a target that answers from each flow."""

    def __init__(self, up: Impairment, down: Impairment, *, seed: int = 1, **limits: int) -> None:
        self.core = Impairer(up, down, seed=seed, **limits)
        self.now_s = 100.0
        self.told: list[tuple[float, Step]] = []

    def send(self, pause_s: float, goes_up: bool, client: int, datagram: bytes) -> None:
        self.pass_time(pause_s)
        if goes_up:
            self.core.receive_from_client(client, datagram, self.now_s)
        else:
            self.core.receive_from_target(client + 1, datagram, self.now_s)
        self.take(self.now_s)

    def pass_time(self, seconds: float) -> None:
        """As a timer would: awake at each deadline, and at no other time."""
        until_s = self.now_s + seconds
        while (at_s := self.core.deadline_s) is not None and at_s <= until_s:
            self.now_s = max(self.now_s, at_s)
            self.take(self.now_s)
        self.now_s = until_s

    def take(self, now_s: float) -> None:
        self.told += [(now_s, step) for step in self.core.take_steps(now_s)]

    def arrived(self, kind: type[Step] = ToTarget) -> list[bytes]:
        return [
            step.datagram
            for _, step in self.told
            if isinstance(step, ToTarget | ToClient) and isinstance(step, kind)
        ]

    def dropped(self, direction: Direction = Direction.UP) -> dict[Drop, int]:
        counted = self.core.ways[direction].counters.dropped
        return {reason: number for reason, number in counted.items() if number}


@given(SENDINGS, IMPAIRMENTS, IMPAIRMENTS, st.integers(0, 9))
def test_every_datagram_is_accounted_for_in_each_direction(
    sendings: list[tuple[float, bool, int, bytes]], up: Impairment, down: Impairment, seed: int
) -> None:
    story = Story(up, down, seed=seed, flows_max=3)
    for sending in sendings:
        story.send(*sending)
        check_sums(story, sendings)
    story.pass_time(FAR_S)

    check_sums(story, sendings)
    for way in story.core.ways.values():
        assert (way.held_datagrams, way.held_bytes) == (0, 0)
    assert len(story.arrived(ToTarget)) == story.core.ways[Direction.UP].counters.delivered
    assert len(story.arrived(ToClient)) == story.core.ways[Direction.DOWN].counters.delivered


def check_sums(story: Story, sendings: list[tuple[float, bool, int, bytes]]) -> None:
    total = 0
    for way in story.core.ways.values():
        counters = way.counters
        went_in = counters.received + counters.duplicated
        came_out = counters.delivered + sum(counters.dropped.values())
        assert went_in == came_out + way.held_datagrams
        total += counters.received
    assert total <= len(sendings)


@given(
    st.lists(st.tuples(st.sampled_from((0.0, 0.001, 0.04)), IMPAIRMENTS), max_size=40),
    st.integers(0, 9),
)
def test_nothing_leaves_before_its_time(
    sendings: list[tuple[float, Impairment]], seed: int
) -> None:
    """Each datagram carries the time before which it may not leave."""
    story = Story(Impairment(), Impairment(), seed=seed)
    way = story.core.ways[Direction.UP]
    for pause_s, impairment in sendings:
        way.change(replace(impairment, corrupt=0.0, truncate=0.0))
        story.pass_time(pause_s)
        due_s = story.now_s + impairment.delay_ms / 1000
        story.send(0.0, True, 0, repr(due_s).encode())
    story.pass_time(FAR_S)

    early = [
        step
        for now_s, step in story.told
        if isinstance(step, ToTarget) and now_s < float(step.datagram)
    ]
    assert early == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from((0.0, 0.001, 0.04)),
            st.sampled_from((0.0, 10.0, 90.0)),
            st.sampled_from((0.0, 5_000.0)),
        ),
        max_size=60,
    )
)
def test_without_jitter_and_reordering_the_order_is_kept_whatever_else_changes(
    sendings: list[tuple[float, float, float]],
) -> None:
    story = Story(Impairment(), Impairment())
    for number, (pause_s, delay_ms, rate_bytes_s) in enumerate(sendings):
        changed = Impairment(delay_ms=delay_ms, rate_bytes_s=rate_bytes_s, loss=0.2, duplicate=0.2)
        if pause_s:
            story.core.ways[Direction.UP].change(changed)
        story.send(pause_s, True, 0, b"%04d" % number)
    story.pass_time(FAR_S)

    assert story.arrived() == sorted(story.arrived())


@given(SENDINGS, IMPAIRMENTS, IMPAIRMENTS, st.integers(0, 9))
def test_the_same_seed_has_the_same_fate(
    sendings: list[tuple[float, bool, int, bytes]], up: Impairment, down: Impairment, seed: int
) -> None:
    stories = [Story(up, down, seed=seed) for _ in range(2)]
    for story in stories:
        for sending in sendings:
            story.send(*sending)
        story.pass_time(FAR_S)

    assert stories[0].told == stories[1].told


def test_another_seed_has_another_fate_and_one_direction_does_not_change_the_others() -> None:
    lossy = Impairment(loss=0.5)
    stories = [
        Story(lossy, lossy, seed=1),
        Story(lossy, Impairment(), seed=1),
        Story(lossy, lossy, seed=2),
    ]
    for story in stories:
        for number in range(100):
            story.send(0.001, True, 0, b"%d" % number)
            story.send(0.001, False, 0, b"%d" % number)

    first, other_way_down, other_seed = (story.arrived() for story in stories)
    assert first == other_way_down
    assert first != other_seed


def test_what_is_held_is_bounded_in_datagrams_and_in_bytes() -> None:
    slow = Impairment(delay_ms=1_000)
    few = OneWay(slow, random.Random(1), held_datagrams_max=10)
    small = OneWay(slow, random.Random(1), held_bytes_max=1_000)
    for way in (few, small):
        for _ in range(50):
            way.receive(1, bytes(300), 1.0)

    assert (few.held_datagrams, few.counters.dropped[Drop.HELD_FULL]) == (10, 40)
    assert (small.held_bytes, small.counters.dropped[Drop.HELD_FULL]) == (900, 47)


def test_a_full_queue_drops_from_its_tail() -> None:
    story = Story(Impairment(rate_bytes_s=1_000, bucket_bytes=100, queue_bytes=250), Impairment())
    for number in range(6):
        story.send(0.0, True, 0, bytes([number]) * 100)
    story.pass_time(FAR_S)

    assert [datagram[0] for datagram in story.arrived()] == [0, 1, 2]
    assert story.dropped() == {Drop.QUEUE_FULL: 3}


def test_what_is_held_back_is_overtaken() -> None:
    story = Story(Impairment(reorder=1.0, reorder_ms=50), Impairment())
    story.send(0.0, True, 0, b"first")
    story.core.ways[Direction.UP].change(Impairment())
    story.send(0.01, True, 0, b"second")
    story.pass_time(FAR_S)

    assert story.arrived() == [b"second", b"first"]
    assert story.core.ways[Direction.UP].counters.reordered == 1


@given(st.binary(min_size=1, max_size=100), st.integers(0, 50))
def test_damage_flips_one_bit_or_cuts_the_end_off(datagram: bytes, seed: int) -> None:
    flipped = Story(Impairment(corrupt=1.0), Impairment(), seed=seed)
    flipped.send(0.0, True, 0, datagram)
    cut = Story(Impairment(truncate=1.0), Impairment(), seed=seed)
    cut.send(0.0, True, 0, datagram)

    (changed,) = flipped.arrived()
    (shorter,) = cut.arrived()
    differing = int.from_bytes(changed, "big") ^ int.from_bytes(datagram, "big")
    assert differing.bit_count() == 1
    assert len(changed) == len(datagram)
    assert len(shorter) < len(datagram)
    assert datagram.startswith(shorter)


def test_a_duplicate_is_one_more_of_the_same() -> None:
    story = Story(Impairment(duplicate=1.0), Impairment())
    story.send(0.0, True, 0, b"twice")

    assert story.arrived() == [b"twice", b"twice"]


def test_a_blackhole_takes_what_comes_and_what_was_under_way_and_then_passes_again() -> None:
    story = Story(Impairment(delay_ms=100), Impairment(delay_ms=100))
    story.send(0.0, True, 0, b"under way")
    story.core.blackhole(story.now_s + 5)
    story.send(1.0, True, 0, b"into the dark")
    story.send(3.95, False, 0, b"due after it")
    assert story.told == []

    story.send(0.1, True, 0, b"after")
    story.send(0.0, False, 0, b"back")
    story.pass_time(1.0)

    assert (story.arrived(ToTarget), story.arrived(ToClient)) == ([b"after"], [b"back"])
    assert story.dropped() == {Drop.BLACKHOLED: 2}
    assert story.dropped(Direction.DOWN) == {Drop.BLACKHOLED: 1}


def test_each_client_is_a_flow_of_its_own_and_answers_find_the_way_back() -> None:
    story = Story(Impairment(), Impairment())
    for client in (0, 1):
        story.send(0.0, True, client, b"ask")
    for client in (1, 0):
        story.send(0.0, False, client, b"answer")

    assert [step for _, step in story.told] == [
        ToTarget(1, b"ask"),
        ToTarget(2, b"ask"),
        ToClient(1, b"answer"),
        ToClient(0, b"answer"),
    ]


def test_a_client_too_many_makes_the_one_that_was_silent_for_longest_forgotten() -> None:
    story = Story(Impairment(delay_ms=10), Impairment(delay_ms=10), flows_max=2)
    for client in (0, 1, 0, 2):
        story.send(0.001, True, client, b"%d" % client)
    story.send(0.001, False, 1, b"for nobody")
    story.pass_time(FAR_S)

    assert Forgotten(2) in [step for _, step in story.told]
    assert story.arrived() == [b"0", b"0", b"2"]
    assert story.dropped() == {Drop.FLOW_GONE: 1}
    assert story.dropped(Direction.DOWN) == {Drop.FLOW_GONE: 1}
    assert story.core.flows == 2


def test_rebinding_happens_on_command_and_again_and_again_until_it_is_ended() -> None:
    story = Story(Impairment(), Impairment())
    story.send(0.0, True, 0, b"hello")
    story.core.rebind()
    story.core.rebind_every(2.0, story.now_s)
    story.pass_time(7.0)
    story.core.rebind_every(0.0, story.now_s)
    story.pass_time(7.0)

    times = [now_s - 100 for now_s, step in story.told if isinstance(step, Rebound)]
    assert times == pytest.approx([0, 2, 4, 6])


def test_what_comes_to_an_old_port_is_counted_and_goes_nowhere() -> None:
    story = Story(Impairment(), Impairment())
    story.core.receive_late()
    story.pass_time(FAR_S)

    assert story.told == []
    assert story.dropped(Direction.DOWN) == {Drop.REBOUND: 1}
    check_sums(story, [(0.0, False, 0, b"")])


MEANINGLESS: dict[str, dict[str, Any]] = {
    "a chance above one": {"loss": 1.1},
    "a negative delay": {"delay_ms": -1.0},
    "no number": {"jitter_ms": float("nan")},
    "an endless delay": {"delay_ms": float("inf")},
    "a text": {"delay_ms": "1"},
    "a truth": {"loss": True},
    "a burst of less than one datagram": {"loss": 0.1, "burst": 0.5},
    "bursts too short for so much loss": {"loss": 0.9, "burst": 2.0},
    "a rate without a queue": {"rate_bytes_s": 1.0, "queue_bytes": 0},
    "a rate without a bucket": {"rate_bytes_s": 1.0, "bucket_bytes": 0},
}


@pytest.mark.parametrize("case", MEANINGLESS)
def test_a_setting_that_means_nothing_is_refused(case: str) -> None:
    with pytest.raises(ImpairmentError):
        Impairment(**MEANINGLESS[case])
