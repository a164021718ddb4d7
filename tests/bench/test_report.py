"""A report has one shape, and targets say whether they were met."""

import json

import pytest

from bench.machine import describe_machine
from bench.report import (
    Machine,
    Report,
    Row,
    Target,
    at_least,
    at_most,
    find_value,
)

MACHINE = Machine("a processor", 2, "Linux 6.1", "CPython 3.11.7", (0.5, 0.25, 0.125))
ROWS = (
    Row("nats", "1 KiB", "one-way rate", 50_000.0, "messages/s"),
    Row("nats", "64 B", "one-way rate", 90_000.0, "messages/s"),
)


def test_the_json_has_exactly_the_agreed_keys() -> None:
    targets = (at_least("fast", 2.0, 1.5), at_most("small", None, 4.0))
    report = Report("messages", MACHINE, ROWS, targets)

    found = json.loads(report.as_json())

    assert found == {
        "name": "messages",
        "machine": {
            "cpu": "a processor",
            "cores": 2,
            "kernel": "Linux 6.1",
            "python": "CPython 3.11.7",
            "load": [0.5, 0.25, 0.125],
        },
        "rows": [
            {
                "system": "nats",
                "case": "1 KiB",
                "metric": "one-way rate",
                "value": 50_000.0,
                "unit": "messages/s",
            },
            {
                "system": "nats",
                "case": "64 B",
                "metric": "one-way rate",
                "value": 90_000.0,
                "unit": "messages/s",
            },
        ],
        "targets": [
            {"name": "fast, at least", "value": 2.0, "target": 1.5, "met": True},
            {"name": "small, at most", "value": None, "target": 4.0, "met": False},
        ],
    }


TARGETS = {
    "enough is enough": (at_least("x", 1.0, 1.0), True),
    "a little less is not": (at_least("x", 0.999, 1.0), False),
    "as small as wanted": (at_most("x", 1.1, 1.1), True),
    "a little larger is not": (at_most("x", 1.11, 1.1), False),
    "nothing measured is not met, though nothing was too large": (at_most("x", None, 1.1), False),
    "nothing measured is not met": (at_least("x", None, 0.0), False),
}


@pytest.mark.parametrize("title", TARGETS)
def test_a_target_is_met_when_its_value_says_so(title: str) -> None:
    target, met = TARGETS[title]

    assert isinstance(target, Target)
    assert target.met is met


def test_a_figure_is_found_by_its_three_names() -> None:
    assert find_value(ROWS, "nats", "64 B", "one-way rate") == 90_000.0
    assert find_value(ROWS, "nats", "16 KiB", "one-way rate") is None


def test_this_machine_describes_itself() -> None:
    machine = describe_machine()

    assert machine.cpu
    assert machine.cores >= 1
    assert len(machine.load) == 3
