"""The judge of the ladder finds each broken promise, and no other."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.impairment.ladder import counted_since, read_hop_losses, read_options
from tests.impairment.report import HopLoss, Seen, judge, percentile
from tests.impairment.rungs import ASK_TIMEOUT_S, RUNGS, Rung
from tests.mesh.programs import Program

RUNG = Rung("a test", answered_min=0.75)
GOOD: list[dict[str, Any]] = [
    *({"told": number, "outcome": "accepted", "took_s": 0.1} for number in range(4)),
    *({"heard": number} for number in range(4)),
    *({"asked": number, "outcome": "answered", "took_s": 0.2} for number in range(3)),
    {"asked": 3, "outcome": "message.timeout", "took_s": ASK_TIMEOUT_S},
    {"done": True},
]


def seen_of(told: list[dict[str, Any]]) -> Seen:
    seen = Seen()
    for one in told:
        seen.take(one)
    return seen


def test_a_good_story_breaks_nothing() -> None:
    report = judge("test", RUNG, seen_of([{"ready": "agent://acme/x"}, *GOOD]))

    assert report.broken == []
    assert (report.tells, report.accepted, report.heard) == (4, 4, 4)
    assert (report.asks, report.answered, report.ask_failures) == (4, 3, {"message.timeout": 1})
    assert (report.accepted_p50_s, report.ask_p99_s) == pytest.approx((0.1, 0.2))


def test_what_was_not_accepted_may_arrive_or_not() -> None:
    told = [
        *GOOD,
        {"told": 4, "outcome": "message.outcome_unknown", "took_s": 1.0},
        {"told": 5, "outcome": "route.unknown", "took_s": 1.0},
        {"heard": 4},
    ]

    report = judge("test", RUNG, seen_of(told))

    assert report.broken == []
    assert report.unaccepted_heard == 1
    assert report.tell_failures == {"message.outcome_unknown": 1, "route.unknown": 1}


BROKEN = {
    "an accepted message that never arrived": (
        [one for one in GOOD if one != {"heard": 2}],
        "1 accepted messages never arrived",
    ),
    "a message that arrived twice": (
        [*GOOD, {"heard": 3}],
        "1 messages arrived more than once",
    ),
    "a message that was overtaken": (
        [*(one for one in GOOD if one != {"heard": 1}), {"heard": 1}],
        "1 messages were overtaken",
    ),
    "an ask that did not end in its time": (
        [*GOOD, {"asked": 4, "outcome": "answered", "took_s": ASK_TIMEOUT_S + 3}],
        "1 asks ended too late",
    ),
    "too few answers": (
        [*GOOD, {"asked": 4, "outcome": "route.unknown", "took_s": 0.1}],
        "3 of 5 asks were answered",
    ),
    "a wrong answer": (
        [*GOOD, {"asked": 4, "outcome": "a wrong answer", "took_s": 0.1}],
        "3 of 5 asks were answered",
    ),
    "a sender that did not finish": (GOOD[:-1], "the sender did not come to its end"),
    "nothing at all": ([{"done": True}], "nothing was accepted"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_promise_is_named_and_nothing_else(case: str) -> None:
    told, promise = BROKEN[case]

    report = judge("test", RUNG, seen_of(told))

    assert report.broken == [promise]
    assert promise in report.text()
    assert json.loads(json.dumps(report.to_json()))["broken"] == [promise]


def log_line(second: int, event: str, **more: Any) -> str:
    return json.dumps({"timestamp": f"2026-11-25T12:00:{second:02}Z", "event": event, **more})


def test_lost_hops_are_read_from_the_log_with_the_time_until_they_are_back(
    tmp_path: Path,
) -> None:
    program = Program("a", "sidecar", tmp_path / "a", ("up",))
    before = log_line(1, "hop_lost", code="hop.closed", detail="of an earlier rung") + "\n"
    code, detail = "hop.peer_lost", "QUIC: Idle timeout"
    lines = [
        log_line(10, "hop_lost", code=code, detail=detail),
        "a warning of a library",
        log_line(12, "hop_lost", code="hop.unreachable", detail="an attempt to come back"),
        log_line(15, "gateway_connected"),
        log_line(40, "hop_lost", code=code, detail=detail),
    ]
    program.log.write_text(before + "\n".join(lines) + "\n")
    begun_unix_s = 1_795_608_000.0  # 12:00:00 of that day

    losses = read_hop_losses(program, len(before), begun_unix_s)

    assert losses == [
        HopLoss("a", 10.0, code, detail, back_after_s=5.0),
        HopLoss("a", 40.0, code, detail, back_after_s=None),
    ]
    report = judge("test", RUNG, replace(seen_of(GOOD), hop_losses=losses))
    assert "a lost its hop at 10.0 s" in report.text()
    assert "back never" in report.text()


def test_counters_of_a_rung_are_the_difference_of_two_looks() -> None:
    before = {"a": {"up": {"received": 5, "dropped": {"lost": 1}}}}
    after = {"a": {"up": {"received": 9, "dropped": {"lost": 2, "blackholed": 3}}}}

    assert counted_since(before, after) == {
        "a": {"up": {"received": 4, "dropped": {"lost": 1, "blackholed": 3}}}
    }


def test_percentiles_of_little_are_that_little() -> None:
    assert percentile([3.0], 99) == 3.0
    assert math.isnan(percentile([], 50))


def test_the_ladders_options() -> None:
    options = read_options(["far", "--engines", "qh3,aioquic,qh3", "--seed", "7", "--json"])

    assert (options.rungs, options.engines) == (["far"], ("qh3", "aioquic", "qh3"))
    assert (options.seed, options.json) == (7, True)


@pytest.mark.parametrize("arguments", [["heaven"], ["--engines", "qh3"]])
def test_options_of_the_ladder_that_mean_nothing_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        read_options(arguments)


@pytest.mark.parametrize("name", RUNGS)
def test_a_rung_can_be_climbed_in_the_time_that_it_gives(name: str) -> None:
    rung = RUNGS[name]

    assert 0 < rung.answered_min <= 1
    if rung.blackhole_at_s is not None:
        assert rung.blackhole_at_s + rung.blackhole_s < rung.seconds, "it ends in the middle"
