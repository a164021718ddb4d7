"""What can go wrong between two neighbours.

* LinkError
  - FrameError    bytes that are not a frame, or a frame that its place forbids
  - CreditError   a peer sent more than it was granted
"""

from typing import ClassVar

from identity import Code, SidelinkError


class LinkError(SidelinkError):
    """Something a neighbour did that this layer forbids."""

    default: ClassVar[Code] = Code.ROUTE_BAD_FRAME

    def __init__(self, detail: str, code: Code | None = None) -> None:
        super().__init__(code if code is not None else self.default, detail)


class FrameError(LinkError):
    """Close the hop; do not argue."""

    default = Code.HOP_BAD_FRAME


class CreditError(LinkError):
    """Reset the link or the stream."""

    default = Code.ROUTE_CREDIT_EXCEEDED
