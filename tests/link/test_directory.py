"""The directory: the longest prefix wins, epochs only rise, the later registration displaces."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import AgentUri, Code, Identifier, NamePrefix
from link import Directory, LinkError
from link.limits import PREFIXES_PER_NODE_MAX

NODES = {hop: Identifier(bytes([hop]) * 32) for hop in range(1, 4)}
PATHS = st.lists(st.sampled_from("abc"), max_size=4).map(tuple)
DOMAINS = st.sampled_from(("acme", "globex"))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("register"), DOMAINS, PATHS, st.sampled_from(list(NODES))),
        st.tuples(st.just("unregister"), DOMAINS, PATHS, st.sampled_from(list(NODES))),
        st.tuples(st.just("forget"), st.sampled_from(list(NODES))),
    ),
    max_size=40,
)


@given(STEPS, st.lists(st.tuples(DOMAINS, PATHS.filter(bool)), min_size=1, max_size=8))
def test_the_directory_is_what_a_plain_search_would_be(
    steps: list[Any], names: list[tuple[str, tuple[str, ...]]]
) -> None:
    directory = Directory()
    model: dict[tuple[str, tuple[str, ...]], int] = {}
    epochs: dict[tuple[str, tuple[str, ...]], int] = {}
    for step in steps:
        match step:
            case ("register", domain, path, hop):
                key = (domain, path)
                route, displaced = directory.register(NamePrefix(domain, path), hop, NODES[hop])
                before = model.get(key)
                epochs[key] = epochs.get(key, 0) + 1
                assert route.epoch == epochs[key], "an epoch only rises, whoever registers"
                assert (displaced is not None) == (before is not None and before != hop)
                assert displaced is None or displaced.hop == before
                model[key] = hop
            case ("unregister", domain, path, hop):
                directory.unregister(NamePrefix(domain, path), hop)
                if model.get((domain, path)) == hop:
                    del model[domain, path]
            case ("forget", hop):
                directory.forget_hop(hop)
                model = {key: held for key, held in model.items() if held != hop}
    assert len(directory) == len(model)
    for domain, path in names:
        covering = [(d, p) for d, p in model if d == domain and path[: len(p)] == p]
        expected = model[max(covering, key=lambda key: len(key[1]))] if covering else None
        found = directory.find(AgentUri(domain, path))
        assert (None if found is None else found.hop) == expected
        for hop in NODES:
            held = any(model[key] == hop for key in covering)
            assert directory.serves(hop, AgentUri(domain, path)) == held


def test_a_prefix_covers_whole_segments_only() -> None:
    directory = Directory()
    directory.register(NamePrefix.parse("agent://acme/fin"), 1, NODES[1])

    assert directory.find(AgentUri.parse("agent://acme/finance/planner")) is None


def test_a_node_that_comes_back_displaces_itself_without_a_word() -> None:
    directory = Directory()
    prefix = NamePrefix.parse("agent://acme/finance")
    directory.register(prefix, 1, NODES[1])

    route, displaced = directory.register(prefix, 1, NODES[1])

    assert displaced is None
    assert route.epoch == 2


def test_the_hop_that_was_displaced_takes_nothing_with_it_when_it_goes() -> None:
    directory = Directory()
    prefix = NamePrefix.parse("agent://acme/finance")
    directory.register(prefix, 1, NODES[1])
    directory.register(prefix, 2, NODES[2])

    directory.unregister(prefix, 1)
    directory.forget_hop(1)

    found = directory.find(AgentUri.parse("agent://acme/finance/planner"))
    assert found is not None
    assert found.hop == 2


def test_a_node_may_hold_so_many_prefixes_and_no_more() -> None:
    directory = Directory()
    for number in range(PREFIXES_PER_NODE_MAX):
        directory.register(NamePrefix("acme", (f"p{number}",)), 1, NODES[1])

    with pytest.raises(LinkError) as caught:
        directory.register(NamePrefix("acme", ("one-more",)), 1, NODES[1])
    assert caught.value.code is Code.ROUTE_LINK_LIMIT
    directory.register(NamePrefix("acme", ("p0",)), 1, NODES[1])
