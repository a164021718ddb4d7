"""What an endpoint counts reaches operators: each counter, and each reason to drop a datagram."""

from collections.abc import Callable
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest

from node.hop_counters import show_counters
from node.metrics import Metrics
from tests.docs.markdown import DOCS, table_rows
from transport import EndpointCounters
from transport.udp import UdpCounters


@pytest.fixture
def shown() -> tuple[SimpleNamespace, Metrics, Callable[[], Any]]:
    """An endpoint that has counted something of everything, and what is shown of it."""
    counters = EndpointCounters()
    for number, name in enumerate(asdict(counters), 1):
        setattr(counters, name, number)
    udp = UdpCounters(dropped_full=101, dropped_error=102)
    endpoint = SimpleNamespace(counters=counters, udp_counters=udp, half_open_count=103)
    parts = SimpleNamespace(metrics=Metrics("gateway", "0"), status={})
    show_counters(parts, endpoint)  # type: ignore[arg-type]
    return endpoint, parts.metrics, parts.status["transport"]


def test_every_counter_is_a_metric(
    shown: tuple[SimpleNamespace, Metrics, Callable[[], Any]],
) -> None:
    endpoint, metrics, _ = shown
    samples = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in metrics.text().decode().splitlines()
        if line.startswith("sidelink_")
    }

    for name, count in asdict(endpoint.counters).items():
        assert count in samples.values(), name
    assert samples['sidelink_datagrams_dropped_total{reason="socket_full"}'] == 101
    assert samples['sidelink_datagrams_dropped_total{reason="socket_error"}'] == 102
    assert samples["sidelink_hops_half_open"] == 103


def test_every_counter_stands_in_the_status(
    shown: tuple[SimpleNamespace, Metrics, Callable[[], Any]],
) -> None:
    endpoint, _, status = shown
    found = status()

    for name, count in asdict(endpoint.counters).items():
        where = found["dropped"] if name.startswith("dropped_") else found
        assert where[name.removeprefix("dropped_")] == count
    assert found["half_open"] == 103


def test_what_did_not_happen_is_not_listed_among_the_reasons() -> None:
    parts = SimpleNamespace(metrics=Metrics("gateway", "0"), status={})
    endpoint = SimpleNamespace(
        counters=EndpointCounters(dropped_token=1), udp_counters=UdpCounters(), half_open_count=0
    )
    show_counters(parts, endpoint)  # type: ignore[arg-type]

    assert parts.status["transport"]()["dropped"] == {"token": 1}


def test_every_reason_is_explained_to_operators(
    shown: tuple[SimpleNamespace, Metrics, Callable[[], Any]],
) -> None:
    _, _, status = shown
    rows = table_rows(DOCS / "operations.md", "| reason | what was dropped | what it means |")

    assert {row[0].strip("`") for row in rows} == set(status()["dropped"])
