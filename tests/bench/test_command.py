"""What can be typed after ./dev bench, and what is refused."""

import argparse
from typing import Any

import pytest

from bench.__main__ import listing, parse
from bench.benchmark import NAMES, load_benchmark
from bench.errors import BenchError
from bench.messages.command import wishes_of
from bench.messages.systems import OURS_DIRECT, System, known_systems
from node.settings import SidecarSettings


def options_of(line: str) -> argparse.Namespace:
    return parse(line.split())


def test_the_listing_names_every_benchmark_and_says_what_it_measures() -> None:
    text = listing()

    for name in NAMES:
        assert f"  {name} " in text
        assert load_benchmark(name).SUMMARY in text


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_takes_the_common_options(name: str) -> None:
    options = options_of(f"{name} --json --out figures --quick")

    assert options.json
    assert str(options.out) == "figures"
    assert options.quick


def test_messages_measures_everything_in_rounds_unless_told_otherwise() -> None:
    wishes = wishes_of(options_of("messages"))

    assert [system.name for system in wishes.systems] == [one.name for one in known_systems()]
    assert wishes.sizes == (64, 1024, 16 * 1024)
    assert wishes.rounds == 5
    assert wishes.messages is None


def test_quick_is_one_round_of_one_size() -> None:
    wishes = wishes_of(options_of("messages --quick"))

    assert (wishes.sizes, wishes.rounds) == ((1024,), 1)
    assert wishes.seconds < 1


def test_a_profile_looks_at_ours_alone() -> None:
    wishes = wishes_of(options_of("messages --profile"))

    assert wishes.sizes == (1024,)
    assert wishes.systems
    assert all(system.is_ours for system in wishes.systems)


GIVEN: dict[str, tuple[str, dict[str, Any]]] = {
    "systems, in the order given": (
        "--systems nats,ours-gateway",
        {"systems": ("nats", "ours-gateway")},
    ),
    "sizes, each once": ("--sizes 100,200,100", {"sizes": (100, 200)}),
    "rounds and seconds": ("--rounds 3 --seconds 0.5", {"rounds": 3, "seconds": 0.5}),
    "messages": ("--messages 5000", {"messages": 5000}),
}


@pytest.mark.parametrize("title", GIVEN)
def test_messages_takes(title: str) -> None:
    line, expected = GIVEN[title]

    wishes = wishes_of(options_of(f"messages {line}"))

    found = {name: getattr(wishes, name) for name in expected}
    if "systems" in found:
        found["systems"] = tuple(system.name for system in found["systems"])
    assert found == expected


REFUSED = {
    "a benchmark that there is not": "nothing",
    "a system that there is not": "messages --systems kafka",
    "a message too small for its number": "messages --sizes 8",
    "a message that the policy would refuse": "messages --sizes 65536",
    "no number": "messages --sizes big",
    "no rounds": "messages --rounds 0",
    "less than no time": "messages --seconds -1",
    "for ever": "messages --seconds inf",
    "not a number at all": "messages --seconds nan",
    "two lengths": "messages --seconds 1 --messages 10",
    "a record without a header": "relay --sizes 16",
    "more hops than a gateway takes": "relay --hops 2000",
    "no handshakes": "handshakes --count 0",
    "no agents": "identity --agents 0",
    "an engine that there is not": "hop --engine msquic",
    "a sin that nobody commits": "hostile --sins pride",
    "a datagram that no path carries": "hop --datagram-bytes 64",
    "a soak of no minutes": "soak --minutes 0",
    "a soak of half a minute": "soak --minutes 0.5",
    "a soak of more than a day": "soak --minutes 1441",
    "too few agents for all that is to happen": "soak --agents 3",
    "a thing that nobody counts": "soak --inspect everything",
}


@pytest.mark.parametrize("title", REFUSED)
def test_the_command_line_refuses(title: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options_of(REFUSED[title])

    assert ended.value.code == 2
    assert "usage: ./dev bench" in capsys.readouterr().err


def test_a_system_whose_packages_are_not_installed_says_which_and_where_from() -> None:
    with pytest.raises(BenchError, match=r"Kafka: no package 'bench.messages.peer_kafka'; .*extra"):
        _ = System("kafka", "Kafka", "bench.messages.peer_kafka").module


def test_the_direct_path_is_measured_where_sidecars_have_one() -> None:
    assert (OURS_DIRECT in known_systems()) == ("direct" in SidecarSettings.model_fields)


def test_honest_programs_go_before_others_only_if_that_is_asked_for() -> None:
    assert options_of("hostile --real-time --sins window,garbage,window").real_time
    assert options_of("hostile --sins window,garbage,window").sins == ("window", "garbage")
    assert not options_of("hostile").real_time
