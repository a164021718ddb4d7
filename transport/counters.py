"""What an endpoint counts. Every reason to drop a datagram has a number here."""

from dataclasses import dataclass


@dataclass(slots=True)
class EndpointCounters:
    retries_sent: int = 0
    versions_sent: int = 0
    accepted: int = 0
    dropped_malformed: int = 0
    dropped_unknown: int = 0
    """For no connection of ours, and not the first of a new one."""
    dropped_source: int = 0
    """From elsewhere than the address that we dialled: only a dialler may move."""
    dropped_token: int = 0
    dropped_flood: int = 0
    """Of strangers, beyond what they may cost."""
    dropped_rate: int = 0
    """Proved addresses that began handshakes too often."""
    dropped_half_open: int = 0
    dropped_connections: int = 0
    cut: int = 0
    """Peers that cost more than they brought."""
    shed: int = 0
    """Half-open connections that stood still when others wanted in."""
    failed_connections: int = 0
    migrations: int = 0
    """Diallers that came to have another address, and proved it."""
    key_updates: int = 0
    """That we began; those of peers are not counted."""
