"""What a sidecar tells of itself: its metrics, its status, its agents."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from identity import Code, SidelinkError
from node.metrics import by_code
from node.parts import Parts
from sidecar.agents import NAMES_MAX, LocalAgent

if TYPE_CHECKING:
    from sidecar.program import Sidecar


def publish_figures(sidecar: "Sidecar", parts: Parts) -> None:
    """Register every metric and every line of the status."""
    _count_messages(sidecar, parts)
    _count_ways(sidecar, parts)
    router, uplink, status = sidecar.router, sidecar.uplink, parts.status
    status["gateways"] = uplink.status
    status["displaced"] = lambda: list(uplink.displaced)
    status["engine"] = lambda: sidecar.endpoint.engine_name
    status["channels"] = lambda: len(router.channels)
    status["channels_without_link"] = lambda: router.channels.paths.parked
    status["direct_hops"] = lambda: sidecar.direct_hops
    status["refused"] = lambda: by_code(router.channels.refused)
    status["channels_closed"] = lambda: by_code(router.channels.closed)
    status["local_refused"] = lambda: dict(sidecar.door.access.refused)
    status["messages"] = lambda: _message_status(sidecar)


def _count_messages(sidecar: "Sidecar", parts: Parts) -> None:
    outbound, inbound = sidecar.router.outbound, sidecar.router.inbound
    read, gauge = parts.metrics.counter_read, parts.metrics.gauge
    read("messages_sent", "Messages accepted from agents.", lambda: outbound.sent)
    read("messages_received", "Messages taken for agents.", lambda: inbound.received)
    read(
        "messages_failed",
        "Messages that were not sent.",
        lambda: sum(outbound.failed.values()),
    )
    read(
        "messages_rejected",
        "Messages from others that were not taken.",
        lambda: sum(inbound.rejected.values()),
    )
    read(
        "conversations_stalled",
        "Times that a receiver took nothing for long.",
        lambda: outbound.stalls,
    )
    gauge("agents_awake", "Agents in memory.", lambda: sidecar.agents.awake)
    gauge(
        "mailbox_bytes",
        "What waits for agents.",
        lambda: sidecar.agents.mailbox_room.held_bytes,
    )
    gauge("local_sessions", "Agent processes connected.", lambda: sidecar.port.sessions)
    gauge("local_tokens", "Tokens for agent processes.", lambda: len(sidecar.door.tokens))
    read(
        "local_refused",
        "Agent processes and openings that were refused.",
        lambda: {str(why): count for why, count in sidecar.door.access.refused.items()},
        label="why",
    )
    gauge("mcp_children", "MCP servers running.", lambda: sidecar.mcp.children)


def _count_ways(sidecar: "Sidecar", parts: Parts) -> None:
    router, uplink, streams = sidecar.router, sidecar.uplink, sidecar.streams
    paths, rest = router.channels.paths, router.rest
    read, gauge = parts.metrics.counter_read, parts.metrics.gauge
    read("channels_opened", "Channels opened.", lambda: router.channels_opened)
    read(
        "channels_closed",
        "Channels that ended, by code.",
        lambda: by_code(router.channels.closed),
        label="code",
    )
    read(
        "links_refused",
        "Openings of others refused, by code.",
        lambda: by_code(router.channels.refused),
        label="code",
    )
    read(
        "channels_parked",
        "Times that a channel lost its link.",
        lambda: paths.counters.parked,
    )
    read(
        "channels_moved",
        "Times that a channel went on over another link.",
        lambda: paths.counters.moved,
    )
    read(
        "proofs_shown",
        "Newer proofs shown on live channels.",
        lambda: router.standing.shown,
    )
    read("channels_rested", "Channels put away for being idle.", lambda: rest.rested)
    read("streams_opened", "Byte streams opened.", lambda: streams.opened)
    read("hop_losses", "Hops to gateways that were lost.", lambda: uplink.hop_losses)
    gauge("channels", "Channels open now.", lambda: len(router.channels))
    gauge("channels_without_link", "Channels that look for a link now.", lambda: paths.parked)
    gauge("streams", "Byte streams open now.", lambda: len(streams))
    gauge("direct_hops", "Hops to other sidecars open now.", lambda: sidecar.direct_hops)
    gauge("gateway_connected", "1 while a gateway is connected.", lambda: uplink.connected)


def _message_status(sidecar: "Sidecar") -> dict[str, Any]:
    outbound, inbound = sidecar.router.outbound, sidecar.router.inbound
    return {
        "sent": outbound.sent,
        "received": inbound.received,
        "failed": by_code(outbound.failed),
        "rejected": by_code(inbound.rejected),
        "stalls": outbound.stalls,
    }


def agent_page(sidecar: "Sidecar", request: Mapping[str, Any]) -> dict[str, Any]:
    """A page of the agents of this sidecar, awake or not: those after a name, in order.

    `next` is the name after which the next page comes, None behind the last one.
    """
    after, limit = request.get("after", ""), request.get("limit", NAMES_MAX)
    if type(after) is not str or type(limit) is not int or not 0 < limit <= NAMES_MAX:
        raise SidelinkError(
            Code.LOCAL_BAD_REQUEST, f"`after` is a name, `limit` a number from 1 to {NAMES_MAX}"
        )
    names = sidecar.agents.names(after, limit)
    awake = {str(agent.uri): agent for agent in sidecar.agents.awake_agents()}
    return {
        "agents": [_agent_status(sidecar, name, awake.get(name)) for name in names],
        "next": names[-1] if len(names) == limit else None,
    }


def _agent_status(sidecar: "Sidecar", name: str, agent: LocalAgent | None) -> dict[str, Any]:
    return {
        "uri": name,
        "awake": agent is not None,
        "identifier": None if agent is None else str(agent.identity.identifier),
        "listening": agent is not None and sidecar.router.deliveries.listens(agent),
        "waiting": 0 if agent is None else len(agent.mailbox),
    }
