"""Who may open which link, and the table of those that are joined."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import Code
from link import LinkEnd, LinkError, LinkIds, RelayTable, is_peers_link
from link.limits import ACCEPTOR_LINK_BIT, LINK_ID_MAX


def test_dialler_and_acceptor_count_up_on_their_own_side() -> None:
    dialler, acceptor = LinkIds(is_dialler=True), LinkIds(is_dialler=False)

    assert [dialler.take() for _ in range(3)] == [1, 2, 3]
    assert [acceptor.take() for _ in range(2)] == [ACCEPTOR_LINK_BIT | 1, ACCEPTOR_LINK_BIT | 2]


@pytest.mark.parametrize("is_dialler", [True, False])
def test_ids_end_before_they_would_become_those_of_the_other_side(is_dialler: bool) -> None:
    ids = LinkIds(is_dialler=is_dialler)
    ids._next = ACCEPTOR_LINK_BIT - 1 if is_dialler else LINK_ID_MAX

    assert ids.take()
    with pytest.raises(LinkError) as caught:
        ids.take()
    assert caught.value.code is Code.ROUTE_LINK_LIMIT


@given(st.integers(0, LINK_ID_MAX), st.booleans())
def test_a_link_is_the_peers_or_ours_or_nobodys(link: int, is_dialler: bool) -> None:
    sides = [is_peers_link(link, is_dialler=side) for side in (is_dialler, not is_dialler)]

    assert sum(sides) == (0 if link in (0, ACCEPTOR_LINK_BIT) else 1)


ENDS = st.builds(LinkEnd, st.integers(1, 4), st.integers(1, 6))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("join"), ENDS, ENDS),
            st.tuples(st.just("part"), ENDS),
            st.tuples(st.just("lose"), st.integers(1, 4)),
        ),
        max_size=60,
    )
)
def test_the_table_is_what_a_plain_set_of_pairs_would_be(steps: list[tuple[object, ...]]) -> None:
    table: RelayTable[str] = RelayTable()
    model: dict[LinkEnd, LinkEnd] = {}
    for step in steps:
        match step:
            case ("join", LinkEnd() as near, LinkEnd() as far):
                if near != far and near not in model and far not in model:
                    table.join(near, far, "permit")
                    model |= {near: far, far: near}
            case ("part", LinkEnd() as end):
                other = model.pop(end, None)
                model.pop(other, None) if other else None
                assert table.part(end) == other
            case ("lose", int() as hop):
                ends = [end for end in model if end.hop == hop]
                others = {model[end] for end in ends if model[end].hop != hop}
                for end in ends:
                    model.pop(model.pop(end, end), None)
                assert {end for end in table.part_hop(hop) if end.hop != hop} == others
        assert len(table) == len(model) // 2
        for end, other in model.items():
            direction = table.find(end)
            assert direction is not None
            assert direction.to == other
        for hop in range(1, 5):
            assert table.links_of(hop) == sum(end.hop == hop for end in model)
    if not model:
        assert not table._of_hop
