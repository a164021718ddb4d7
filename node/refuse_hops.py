"""The handler for programs that only dial: whoever dials them is proved, then turned away."""

from identity import Code
from link import Frame
from transport import Hop


class RefuseHops:
    """Fits HopHandler. Nothing opens, so nothing arrives."""

    def hop_verified(self, hop: Hop) -> None:
        hop.refuse(Code.HOP_DENIED)

    def hop_opened(self, hop: Hop) -> None:
        """Never called: every hop has been refused."""

    def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
        """Never called."""

    def stream_received(self, hop: Hop, stream: int, data: bytes, ended: bool) -> None:
        """Never called."""

    def stream_reset(self, hop: Hop, stream: int, code: int) -> None:
        """Never called."""

    def hop_closed(self, hop: Hop, code: Code, detail: str) -> None:
        """There was nothing to lose."""
