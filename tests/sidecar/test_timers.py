"""Timers: in order, once, and a cancelled one holds on to nothing."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.timers import CANCELLED_MIN, Timer, Timers


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("at"), st.integers(0, 20)),
            st.tuples(st.just("cancel"), st.integers(0, 30)),
            st.tuples(st.just("run"), st.integers(0, 20)),
        ),
        max_size=60,
    )
)
def test_timers_are_what_a_sorted_list_would_be(steps: list[tuple[str, int]]) -> None:
    timers, called = Timers(), list[int]()
    model: dict[int, int] = {}
    made: list[Timer] = []
    for what, value in steps:
        if what == "at":
            number = len(made)
            made.append(timers.at(value, lambda _, number=number: called.append(number)))
            model[number] = value
        elif what == "cancel" and value < len(made):
            timers.cancel(made[value])
            model.pop(value, None)
        elif what == "run":
            due = sorted((at, number) for number, at in model.items() if at <= value)
            called.clear()
            timers.run(value)
            assert called == [number for _, number in due]
            for _, number in due:
                del model[number]
        assert len(timers) == len(model)
        assert timers.deadline_s == min(model.values(), default=None)


def test_what_is_cancelled_is_cleared_out_long_before_its_time() -> None:
    timers = Timers()
    kept = [timers.at(1e9, lambda _: None) for _ in range(10)]
    for _ in range(100_000):
        timers.cancel(timers.at(1e6, lambda _: None))

    assert len(timers) == len(kept)
    assert len(timers._heap) <= len(kept) + 2 * CANCELLED_MIN


def test_a_call_may_set_and_cancel_other_timers() -> None:
    timers, called = Timers(), list[str]()
    second = timers.at(2, lambda _: called.append("second"))

    def first(now_s: float) -> None:
        called.append("first")
        timers.cancel(second)
        timers.at(now_s, lambda _: called.append("third"))

    timers.at(1, first)
    timers.run(5)
    timers.cancel(second)

    assert called == ["first", "third"]
    assert timers.deadline_s is None
