"""Metrics have bounded labels, and each program a registry of its own."""

import pytest

from node.metrics import LABEL_VALUES_MAX, Metrics


def test_a_value_outside_the_declared_set_is_counted_as_other() -> None:
    metrics = Metrics("gateway", "0")
    hops = metrics.counter("hops", "Hops.", purpose=("admit", "enrol"))

    hops.increment(purpose="admit")
    hops.increment(2, purpose="agent://acme/a-name-that-a-peer-chose")

    assert metrics.value("hops_total", purpose="admit") == 1
    assert metrics.value("hops_total", purpose="other") == 2
    assert b"acme" not in metrics.text()


def test_two_programs_of_one_process_share_nothing() -> None:
    first, second = Metrics("gateway", "0"), Metrics("sidecar", "0")
    first.counter("hops", "Hops.").increment()
    second.counter("hops", "Hops.")

    assert first.value("hops_total") == 1
    assert second.value("hops_total") == 0


def test_gauges_and_read_counters_ask_when_somebody_looks() -> None:
    metrics = Metrics("gateway", "0")
    frames = 1
    metrics.gauge("links", "Links.", lambda: frames)
    metrics.counter_read("frames", "Frames.", lambda: frames)

    frames = 7

    assert metrics.value("links") == 7
    assert metrics.value("frames_total") == 7


def test_histograms_count_seconds() -> None:
    metrics = Metrics("gateway", "0")
    metrics.histogram("hop_seconds", "Set-up.", engine=("qh3",)).observe(0.2, engine="qh3")

    assert metrics.value("hop_seconds_count", engine="qh3") == 1


def test_labels_are_all_given_and_declared() -> None:
    counter = Metrics("gateway", "0").counter("hops", "Hops.", purpose=("admit",))

    with pytest.raises(ValueError, match="purpose"):
        counter.increment()
    with pytest.raises(ValueError, match="declares"):
        Metrics("gateway", "0").counter(
            "x", "X.", label=[str(n) for n in range(LABEL_VALUES_MAX + 1)]
        )


def test_the_program_says_which_it_is() -> None:
    assert b'program="gateway"' in Metrics("gateway", "1.2").text()
