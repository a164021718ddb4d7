"""Costly steps of openings: one at a time, each node in its turn, and no more than a bound."""

from collections.abc import Callable

from identity import Identifier
from sidecar.handshakes import (
    BETWEEN_STEPS_SECONDS,
    STEPS_WAITING_MAX,
    STEPS_WAITING_PER_NODE_MAX,
    Handshakes,
)
from sidecar.timers import Timers

GREEDY = Identifier(bytes(31) + b"\1")
MODEST = Identifier(bytes(31) + b"\2")


class Stage:
    def __init__(self) -> None:
        self.timers = Timers()
        self.handshakes = Handshakes(self.timers)
        self.done: list[str] = []
        self._now_s = 0.0

    def submit(self, node: Identifier, name: str = "") -> bool:
        return self.handshakes.submit(node, self._step(name), self._now_s)

    def turn(self) -> None:
        """One turn of the loop later."""
        self._now_s += 2 * BETWEEN_STEPS_SECONDS
        self.timers.run(self._now_s)

    def _step(self, name: str) -> Callable[[float], None]:
        return lambda now_s: self.done.append(name)


def test_a_step_that_comes_alone_is_done_at_once() -> None:
    stage = Stage()

    assert stage.submit(MODEST, "one")
    assert stage.done == ["one"]


def test_of_many_one_is_done_in_each_turn_of_the_loop() -> None:
    stage = Stage()
    for name in "abc":
        stage.submit(GREEDY, name)
    seen = [list(stage.done)]
    for _ in range(2):
        stage.turn()
        seen.append(list(stage.done))

    assert seen == [["a"], ["a", "b"], ["a", "b", "c"]]
    assert len(stage.handshakes) == 0


def test_a_node_that_sends_many_does_not_hold_up_another() -> None:
    stage = Stage()
    for name in ("first", "second", "third", "fourth"):
        stage.submit(GREEDY, name)
    stage.submit(MODEST, "modest")
    for _ in range(2):
        stage.turn()

    assert stage.done == ["first", "second", "modest"]


def test_when_all_is_done_no_timer_is_left() -> None:
    stage = Stage()
    stage.submit(GREEDY)
    stage.submit(GREEDY)
    for _ in range(3):
        stage.turn()

    assert len(stage.timers) == 0


def test_too_many_of_one_node_are_refused_and_another_still_has_room() -> None:
    stage = Stage()
    taken = [stage.submit(GREEDY) for _ in range(STEPS_WAITING_PER_NODE_MAX + 2)]

    assert taken == [True] * (STEPS_WAITING_PER_NODE_MAX + 1) + [False]
    assert stage.submit(MODEST)


def test_too_many_of_all_are_refused() -> None:
    stage = Stage()
    nodes = [Identifier(number.to_bytes(32, "big")) for number in range(STEPS_WAITING_MAX)]
    taken = [stage.submit(node) for node in nodes]
    assert all(taken)
    stage.submit(MODEST)

    assert not stage.submit(Identifier(bytes(31) + b"\3" * 1))
    assert len(stage.handshakes) == STEPS_WAITING_MAX
