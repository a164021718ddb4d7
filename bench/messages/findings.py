"""What the samples of the messages benchmark say: rows, targets and charts."""

from collections.abc import Mapping, Sequence
from typing import Final

from bench.benchmark import Findings
from bench.messages.rounds import ONE_WAY, Wishes, ask_metric
from bench.messages.systems import GRPC, NATS, OURS_DIRECT, OURS_GATEWAY, SLIM, ZMQ, System
from bench.options import size_label
from bench.report import Row, Target, at_least, at_most
from bench.samples import Samples
from bench.svg import Bar, Chart, Panel

TARGET_CASE: Final = size_label(1024)
ASK_P50: Final = ask_metric(1, "p50")

# What each system does for a message, so that nobody compares what is not alike.
NOTES: Final[Mapping[str, str]] = {
    OURS_DIRECT.name: "ours-direct: sealed from agent to agent; a policy decision at both ends; "
    "four processes on the way of a message.",
    OURS_GATEWAY.name: "ours-gateway: the same, with a gateway between the sidecars that cannot "
    "read; five processes.",
    NATS.name: "nats: TLS to the server, which reads everything; three processes.",
    ZMQ.name: "zmq: CURVE from process to process, no broker, no policy; two processes.",
    GRPC.name: "grpc: mutual TLS from process to process, no broker, no policy; two processes.",
    SLIM.name: "slim: MLS from agent to agent through a node, acknowledged; three processes.",
}


def findings_of(samples: Samples, wishes: Wishes) -> Findings:
    rows = samples.rows()
    measured = {system.name for system in wishes.systems}
    return Findings(
        rows=rows,
        targets=targets_of(samples),
        charts=charts_of(rows, wishes),
        notes=tuple(note for name, note in NOTES.items() if name in measured),
    )


def targets_of(samples: Samples) -> tuple[Target, ...]:
    """At 1 KiB, each a ratio that was taken round by round."""
    direct, gateway = OURS_DIRECT.name, OURS_GATEWAY.name

    def ratio(ours: str, theirs: System, metric: str) -> float | None:
        return samples.ratio(ours, theirs.name, TARGET_CASE, metric)

    direct_one_way = ratio(direct, NATS, ONE_WAY)
    gateway_one_way = ratio(gateway, NATS, ONE_WAY)
    direct_ask, gateway_ask = ratio(direct, NATS, ASK_P50), ratio(gateway, NATS, ASK_P50)
    over_zmq = ratio(direct, ZMQ, ONE_WAY)
    one_way, ask = f"one-way at {TARGET_CASE}", f"ask p50 at {TARGET_CASE}"
    return (
        at_least(f"direct {one_way}, times NATS with TLS", direct_one_way, 1.0),
        at_least(f"direct {one_way}, times pyzmq with CURVE", over_zmq, 2.5),
        at_least(f"gateway {one_way}, times NATS with TLS", gateway_one_way, 0.8),
        at_most(f"direct {ask}, times NATS with TLS", direct_ask, 1.1),
        at_most(f"gateway {ask}, times NATS with TLS", gateway_ask, 2.0),
        at_least(f"beyond: direct {one_way}, times NATS with TLS", direct_one_way, 1.5),
        at_least(f"beyond: gateway {one_way}, times NATS with TLS", gateway_one_way, 1.0),
        at_most(f"beyond: direct {ask}, times NATS with TLS", direct_ask, 0.8),
    )


def charts_of(rows: Sequence[Row], wishes: Wishes) -> tuple[Chart, ...]:
    """One of rates and one of delays, with a panel for each size."""
    rounds = "One round" if wishes.rounds == 1 else f"Medians of {wishes.rounds} rounds"
    note = f"{rounds}; all systems in one run, each agent a process of its own."
    return (
        Chart(
            "messages-one-way",
            "One-way messages, counted at the receiving agent",
            f"More is better. {note}",
            _panels(rows, wishes, ONE_WAY, "/s"),
        ),
        Chart(
            "messages-ask",
            "Ask and reply, one at a time, median",
            f"Less is better. {note}",
            _panels(rows, wishes, ASK_P50, " µs"),
        ),
    )


def _panels(rows: Sequence[Row], wishes: Wishes, metric: str, unit: str) -> tuple[Panel, ...]:
    systems = {system.name: system for system in wishes.systems}
    panels = []
    for case in map(size_label, wishes.sizes):
        bars = tuple(
            Bar(systems[row.system].title, row.value, systems[row.system].is_ours)
            for row in rows
            if (row.case, row.metric) == (case, metric)
        )
        panels.append(Panel(f"Messages of {case}", unit, bars))
    return tuple(panels)
