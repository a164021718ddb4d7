"""What a connection asks of the endpoint that it belongs to."""

import asyncio
from typing import TYPE_CHECKING, Protocol

from transport.counters import EndpointCounters
from transport.path import Address
from transport.settings import TransportSettings
from transport.udp import UdpSocket

if TYPE_CHECKING:
    from transport.connection import HopConnection


class ConnectionHome(Protocol):
    """What a connection asks of its endpoint."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def udp(self) -> UdpSocket: ...

    @property
    def engine_name(self) -> str: ...

    @property
    def own_certificate_hash(self) -> bytes: ...

    @property
    def settings(self) -> TransportSettings: ...

    @property
    def counters(self) -> EndpointCounters: ...

    def now_s(self) -> float: ...

    def flush_later(self, connection: "HopConnection") -> None: ...

    def add_id(self, connection_id: bytes, connection: "HopConnection") -> None: ...

    def drop_id(self, connection_id: bytes) -> None: ...

    def let_in(self, connection: "HopConnection") -> None:
        """The owner accepted: it counts as half open no longer."""
        ...

    def note_progress(self, connection: "HopConnection") -> None:
        """A half-open connection came a step further."""
        ...

    def forget(
        self, connection: "HopConnection", last_words: list[tuple[bytes, Address]]
    ) -> None: ...

    def note_stall(self, address: Address) -> None:
        """Large datagrams get lost on the way to this address."""
        ...

    def note_failure(self, error: BaseException) -> None: ...
