"""What an endpoint counts, as metrics and as a part of the status."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from node.parts import Parts
from transport import Endpoint

# Why a datagram was dropped: fields of the endpoint's counters without their first word.
_DROPPED: Final = "dropped_"


def show_counters(parts: Parts, endpoint: Endpoint) -> None:
    """Let operators see what the endpoint counts. Once for each program."""
    counters, metrics = endpoint.counters, parts.metrics
    read, gauge = metrics.counter_read, metrics.gauge
    read(
        "datagrams_dropped",
        "Datagrams that were not taken or not sent, by reason.",
        lambda: _dropped(endpoint),
        label="reason",
    )
    read("retries_sent", "Strangers asked to prove their address.", lambda: counters.retries_sent)
    read("versions_sent", "Strangers told our QUIC version.", lambda: counters.versions_sent)
    read("handshakes_begun", "Hops that others began to open.", lambda: counters.accepted)
    read("handshakes_shed", "Hops that stood still half open.", lambda: counters.shed)
    read("hops_cut", "Hops whose peer cost more than it brought.", lambda: counters.cut)
    read("hops_failed", "Hops ended by a fault of ours.", lambda: counters.failed_connections)
    read("hop_migrations", "Peers that came to another address.", lambda: counters.migrations)
    read("hop_key_updates", "Packet keys renewed.", lambda: counters.key_updates)
    gauge("hops_half_open", "Hops others are opening now.", lambda: endpoint.half_open_count)
    parts.status["transport"] = lambda: _status(endpoint)


def _dropped(endpoint: Endpoint) -> Mapping[str, float]:
    udp = endpoint.udp_counters
    found = {
        name.removeprefix(_DROPPED): count
        for name, count in asdict(endpoint.counters).items()
        if name.startswith(_DROPPED)
    }
    return {**found, "socket_full": udp.dropped_full, "socket_error": udp.dropped_error}


def _status(endpoint: Endpoint) -> Mapping[str, Any]:
    counted = {
        name: count
        for name, count in asdict(endpoint.counters).items()
        if not name.startswith(_DROPPED)
    }
    return {
        **counted,
        "half_open": endpoint.half_open_count,
        "dropped": {reason: count for reason, count in _dropped(endpoint).items() if count},
    }
