"""The table of a hop's states."""

from itertools import product

from transport.hop_state import (
    DECIDABLE,
    PERMITTED,
    TRANSITIONS,
    HopInput,
    HopState,
    next_state,
)


def test_every_state_and_input_has_one_answer_and_the_table_is_the_only_one() -> None:
    for state, input_ in product(HopState, HopInput):
        assert next_state(state, input_) is TRANSITIONS.get((state, input_))


def test_no_path_leads_to_an_open_hop_without_a_permit() -> None:
    reachable, frontier = set(), {HopState.DIALLING, HopState.ACCEPTING}
    while frontier:
        state = frontier.pop()
        reachable.add(state)
        for (origin, input_), target in TRANSITIONS.items():
            if origin is state and input_ is not HopInput.PERMIT and target not in reachable:
                frontier.add(target)
    assert reachable.isdisjoint(PERMITTED)


def test_a_permit_counts_only_where_the_owner_may_decide() -> None:
    permitted = {state for state in HopState if next_state(state, HopInput.PERMIT) is not None}
    assert permitted == DECIDABLE


def test_a_closed_hop_stays_closed() -> None:
    answers = {next_state(HopState.CLOSED, input_) for input_ in HopInput}
    assert answers == {None, HopState.CLOSED}


def test_every_state_can_be_closed_and_every_state_can_be_reached() -> None:
    assert all(next_state(state, HopInput.CLOSE) is HopState.CLOSED for state in HopState)
    assert set(TRANSITIONS.values()) | {HopState.DIALLING, HopState.ACCEPTING} == set(HopState)
