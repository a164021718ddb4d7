"""Targets of the messages benchmark: all of them always, each from ratios of one run."""

from bench.messages.findings import ASK_P50, findings_of, targets_of
from bench.messages.rounds import ONE_WAY, Wishes
from bench.messages.systems import NATS, OURS_DIRECT, OURS_GATEWAY, ZMQ
from bench.samples import Samples

CASE = "1 KiB"
RATES = {OURS_DIRECT: 150_000.0, OURS_GATEWAY: 80_000.0, NATS: 100_000.0, ZMQ: 40_000.0}
DELAYS = {OURS_DIRECT: 330.0, OURS_GATEWAY: 900.0, NATS: 300.0}


def samples() -> Samples:
    found = Samples()
    for system, rate in RATES.items():
        found.add(0, system.name, CASE, ONE_WAY, rate, "messages/s")
    for system, delay in DELAYS.items():
        found.add(0, system.name, CASE, ASK_P50, delay, "µs")
    return found


def test_each_target_has_its_ratio() -> None:
    reached = [(target.target, target.value, target.met) for target in targets_of(samples())]

    assert reached == [
        (1.0, 1.5, True),
        (2.5, 3.75, True),
        (0.8, 0.8, True),
        (1.1, 1.1, True),
        (2.0, 3.0, False),
        (1.5, 1.5, True),
        (1.0, 0.8, False),
        (0.8, 1.1, False),
    ]


def test_a_target_of_a_system_that_was_left_out_is_there_and_not_met() -> None:
    targets = targets_of(Samples())

    assert len(targets) == 8
    assert not any(target.met for target in targets)
    assert {target.value for target in targets} == {None}


def test_charts_show_every_system_of_the_run_and_tell_ours_apart() -> None:
    wishes = Wishes(tuple(RATES), (1024,), rounds=1, seconds=1.0)

    [one_way, ask] = findings_of(samples(), wishes).charts

    assert [bar.label for bar in one_way.panels[0].bars] == [system.title for system in RATES]
    assert [bar.is_ours for bar in one_way.panels[0].bars] == [True, True, False, False]
    assert [bar.value for bar in ask.panels[0].bars] == [330.0, 900.0, 300.0]
