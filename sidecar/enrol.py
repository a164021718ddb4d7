"""A sidecar's enrolment: a ticket or a token, a gateway that leads to the authority, and one
question."""

import asyncio
from typing import Final

import structlog

from identity import Code, GatewayAddress, Invitation, SidelinkError, Ticket
from node.enrolment import (
    EnrolmentExchange,
    adopt_grant,
    check_role,
    ticket_exchange,
    token_exchange,
    trust_ticket,
)
from node.parts import Parts
from node.settings import SidecarSettings
from node.tickets import load_entry, read_token
from sidecar.uplink import EnrolmentHandler
from transport import Endpoint, Hop, HopPurpose

# A ticket's gateways may still be starting; a refusal is final at once.
PATIENCE_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 0.5

_TEMPORARY: Final = frozenset(
    {
        Code.ENROL_AUTHORITY_UNREACHABLE,
        Code.ENROL_KEYS_UNAVAILABLE,
        Code.HOP_UNREACHABLE,
        Code.HOP_TIMEOUT,
        Code.HOP_PEER_LOST,
        Code.HOP_RESTARTING,
        Code.HOP_CLOSED,
        Code.HOP_DENIED,
    }
)

_log = structlog.get_logger("sidecar.enrol")


async def enrol(parts: Parts, settings: SidecarSettings, endpoint: Endpoint) -> None:
    """Do nothing for a node that has a credential. Raises SidelinkError when it is refused."""
    if parts.node.enrolled:
        check_role(parts.node, "sidecar")
        return
    entry = load_entry(settings)
    if entry is None:
        raise SidelinkError(
            Code.ENROL_TICKET_MISSING, "this sidecar has no credential yet and no ticket"
        )
    check_role(parts.node, "sidecar", entry)
    trust_ticket(parts.node, entry, parts.clock.unix_s())
    give_up_s = parts.clock.now_s() + PATIENCE_SECONDS
    while True:
        for gateway in entry.gateways:
            try:
                await _enrol_through(parts, settings, entry, gateway, endpoint)
                return
            except SidelinkError as exc:
                if exc.code not in _TEMPORARY or parts.clock.now_s() >= give_up_s:
                    raise
                _log.info("enrolment_waits", code=exc.code.text, detail=exc.detail)
        await asyncio.sleep(RETRY_SECONDS)


async def _enrol_through(
    parts: Parts,
    settings: SidecarSettings,
    entry: Ticket | Invitation,
    gateway: GatewayAddress,
    endpoint: Endpoint,
) -> None:
    handler = EnrolmentHandler(parts)
    hop = endpoint.dial(
        gateway.host,
        gateway.port,
        purpose=HopPurpose.ENROL,
        target=gateway.identifier,
        handler=handler,
    )
    try:
        await handler.opened
        exchange = _exchange(parts, settings, entry, hop)
        handler.exchange = exchange
        grant = await exchange.answer()
    finally:
        hop.close(Code.HOP_CLOSED)
    adopt_grant(parts.node, parts.store, entry, grant, parts.clock)
    _log.info("enrolled", name=str(parts.node.identity.name))


def _exchange(
    parts: Parts, settings: SidecarSettings, entry: Ticket | Invitation, hop: Hop
) -> EnrolmentExchange:
    if isinstance(entry, Ticket):
        return ticket_exchange(parts.node, entry, hop, parts.clock, name=settings.node_name)
    # Read for each attempt: whoever projects the token replaces it before it expires.
    return token_exchange(parts.node, entry, read_token(settings), hop, parts.clock)
