"""Agents and proofs as the benchmark of identity counts them."""

from bench.identity.command import GROWTH, SIDECAR, crowd_case, findings_of
from bench.identity.verifying import verify_per_cpu_s
from bench.report import Row


def test_peers_that_come_again_cost_less_than_new_ones() -> None:
    found = verify_per_cpu_s(3)

    assert found.again_per_cpu_s > found.new_per_cpu_s > 0


def test_a_smaller_crowd_may_take_that_much_less_memory_and_what_was_not_measured_is_not_met() -> (
    None
):
    grown = Row(SIDECAR, crowd_case(100_000), GROWTH, 31.0, "MiB")

    targets = findings_of((grown,), 100_000).targets

    [memory] = [target for target in targets if "memory" in target.name]
    assert (memory.target, memory.value, memory.met) == (30.0, 31.0, False)
    assert not any(target.met for target in targets)
