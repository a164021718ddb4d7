"""What an operator may choose about the transport."""

from dataclasses import dataclass
from typing import Literal

from link.limits import LINKS_PER_HOP_MAX
from transport import limits

EngineChoice = Literal["auto", "qh3", "aioquic"]


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Sizes in bytes of UDP payload, times in seconds. ``auto`` takes qh3 where it is installed."""

    engine: EngineChoice = "auto"
    datagram_bytes: int | None = None
    """What every path carries. None: found out for each path; see ``transport.path``."""
    idle_timeout_s: float = limits.IDLE_TIMEOUT_S
    keepalive_s: float = limits.KEEPALIVE_S
    handshake_timeout_s: float = limits.HANDSHAKE_TIMEOUT_S
    half_open_max: int = limits.HALF_OPEN_MAX
    half_open_per_source_max: int = limits.HALF_OPEN_PER_SOURCE_MAX
    handshakes_per_s: float = limits.HANDSHAKES_PER_S
    handshakes_burst: int = limits.HANDSHAKES_BURST
    handshakes_per_source_per_s: float = limits.HANDSHAKES_PER_SOURCE_PER_S
    handshakes_per_source_burst: int = limits.HANDSHAKES_PER_SOURCE_BURST
    connections_max: int = limits.CONNECTIONS_MAX
    key_update_packets: int = limits.KEY_UPDATE_PACKETS
    key_update_s: float = limits.KEY_UPDATE_S
    retry_lifetime_s: float = limits.RETRY_LIFETIME_S
    segmentation: bool = True
    """UDP_SEGMENT and UDP_GRO where the kernel has them."""
    epoch: int = 0
    """A number that rises with every start of this node; told likewise."""
    links_max: int = LINKS_PER_HOP_MAX
    """Told to each peer in HOP_ACCEPT."""

    def __post_init__(self) -> None:
        size = self.datagram_bytes
        if size is not None and not (
            limits.DATAGRAM_BYTES_MIN <= size <= limits.DATAGRAM_BYTES_MAX
        ):
            raise ValueError(
                f"datagram_bytes must be from {limits.DATAGRAM_BYTES_MIN}"
                f" to {limits.DATAGRAM_BYTES_MAX}"
            )
        if not 0 < self.keepalive_s < self.idle_timeout_s:
            raise ValueError("keepalive_s must be above 0 and below idle_timeout_s")
