"""asyncio, UDP and QUIC: the shells that carry frames between neighbours."""

from transport.contract import (
    Hop,
    HopHandler,
    HopIdentity,
    HopPermit,
    HopPurpose,
    IdentityProvider,
)
from transport.counters import EndpointCounters
from transport.endpoint import Endpoint
from transport.engines import resolve_engine
from transport.errors import TransportError
from transport.memory import MemoryHopPair, memory_hop_pair
from transport.settings import EngineChoice, TransportSettings

__all__ = [
    "Endpoint",
    "EndpointCounters",
    "EngineChoice",
    "Hop",
    "HopHandler",
    "HopIdentity",
    "HopPermit",
    "HopPurpose",
    "IdentityProvider",
    "MemoryHopPair",
    "TransportError",
    "TransportSettings",
    "memory_hop_pair",
    "resolve_engine",
]
