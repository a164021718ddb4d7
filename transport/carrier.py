"""What a hop needs below it: streams that keep their order, and a call when a turn is over."""

from typing import Protocol


class HopCarrier(Protocol):
    """A QUIC connection, or one end of a pair in memory."""

    @property
    def engine_name(self) -> str: ...

    @property
    def post_quantum(self) -> bool | None: ...

    @property
    def shown_bytes(self) -> int:
        """How much HOP_ACCEPT is to add to itself, to show that whole datagrams pass."""
        ...

    def now_s(self) -> float: ...

    def flush_soon(self) -> None:
        """Call ``deliver`` and ``write_out`` of the hop in this turn of the loop or the next."""
        ...

    def open_stream(self) -> int: ...

    def send_stream(self, stream: int, data: bytes, end: bool) -> None: ...

    def reset_stream(self, stream: int, code: int) -> None: ...

    def stream_queued_bytes(self, stream: int) -> int: ...

    def send_room_bytes(self) -> int:
        """How much more is worth handing over now, so that queues stay with the hop."""
        ...

    def certificate_hash(self) -> bytes | None:
        """SHA-256 of the certificate that the accepting side showed."""
        ...

    def take_binding(self) -> bytes | None:
        """The channel binding of the connection, once."""
        ...
