"""What can go wrong between two endpoints, before or under a hop."""

from identity import Code, SidelinkError


class TransportError(SidelinkError):
    """A hop that cannot be, or can no longer be. The code crosses the wire, the detail does not."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(code, detail)


class DatagramError(TransportError):
    """A datagram that is not for us: drop it and say nothing."""

    def __init__(self, detail: str) -> None:
        super().__init__(Code.HOP_BAD_FRAME, detail)
