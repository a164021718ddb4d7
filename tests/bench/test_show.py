"""The text for people holds every figure, and every target whether met or not."""

import io

from rich.console import Console

from bench.report import Machine, Report, Row, at_least
from bench.show import CASES_ACROSS_MAX, show

MACHINE = Machine("a processor", 2, "Linux 6.1", "CPython 3.11.7", (0.5, 0.25, 0.125))


def text_of(*rows: Row, missed: float | None = None) -> str:
    report = Report("messages", MACHINE, rows, (at_least("direct", missed, 1.0),))
    written = io.StringIO()
    show(Console(file=written, width=110), report, ["What a reader should know."])
    return written.getvalue()


def test_systems_go_down_and_cases_across() -> None:
    text = text_of(
        Row("ours", "64 B", "one-way rate", 400_000.0, "messages/s"),
        Row("ours", "1 KiB", "one-way rate", 90_000.0, "messages/s"),
        Row("nats", "64 B", "one-way rate", 120_000.0, "messages/s"),
    )

    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "one-way rate, messages/s" in lines
    assert "64 B 1 KiB" in lines
    assert "ours 400,000 90,000" in lines
    assert "nats 120,000" in lines
    assert "What a reader should know." in lines


def test_more_cases_than_fit_across_go_down_and_none_is_lost() -> None:
    rows = [
        Row("ours", f"place {number}", "share", float(number), "%")
        for number in range(CASES_ACROSS_MAX + 1)
    ]

    lines = [" ".join(line.split()) for line in text_of(*rows).splitlines()]

    assert [f"ours place {row.case[6:]} {row.value:.0f}" in lines for row in rows] == [True] * 10


def test_a_target_that_is_missed_or_was_not_measured_is_shown_as_such() -> None:
    missed = " ".join(text_of(missed=0.57).split())
    unmeasured = " ".join(text_of().split())

    assert "direct, at least 1 0.570 not met" in missed
    assert "direct, at least 1 not measured not met" in unmeasured
