"""What the pure parts may ask of a hop: say something on it, or end it. Never wait for it."""

from typing import Protocol

from identity import Code, VerifiedPeer


class HopPort(Protocol):
    """A hop that has been admitted on both sides. Every call returns at once."""

    @property
    def id(self) -> int: ...
    @property
    def peer(self) -> VerifiedPeer: ...
    @property
    def is_dialler(self) -> bool: ...

    @property
    def queued_bytes(self) -> int:
        """Bytes of frames that wait to leave, on control and all lanes."""

    def send_frame(self, link: int, kind: int, body: bytes) -> None:
        """Queue a frame on the lane of ``link``, or on the control stream by its kind."""

    def open_stream(self) -> int:
        """Begin a byte stream and return its number on this hop."""

    def send_stream(self, stream: int, data: bytes, end: bool = False) -> None: ...
    def reset_stream(self, stream: int, code: int) -> None: ...
    def stream_queued_bytes(self, stream: int) -> int: ...
    def close(self, code: Code) -> None: ...
