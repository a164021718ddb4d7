"""The seam between what runs inside mesh streams (MCP, TCP) and the mesh that carries them."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from identity import AgentUri, Code, SidelinkError, VerifiedIdentity


class StreamError(SidelinkError):
    """The stream ended otherwise than by a sealed FIN: what was read may be only a part."""


class MeshStream(Protocol):
    """One sealed byte stream to a verified agent; flow control and sealing are beneath it."""

    @property
    def peer(self) -> VerifiedIdentity:
        """Who is at the other end, as the channel proved it."""

    async def read(self, bytes_max: int) -> bytes:
        """At most that many bytes; b"" only after a sealed FIN.

        Raises StreamError when the peer has reset the stream or it was cut short, also while
        waiting. May be awaited by one task while another writes.
        """

    async def write(self, data: bytes) -> None:
        """Waits for credit. Raises StreamError once the stream is reset or lost."""

    async def finish(self) -> None:
        """Seal the end of this direction; the other one stays open."""

    def reset(self, code: Code) -> None:
        """End both directions at once; harmless on a stream that has ended."""


OpenStream = Callable[[str, AgentUri, str], Awaitable[MeshStream]]
"""(agent name, to, service) -> stream. Raises SidelinkError: unreachable, denied, timed out."""
