"""What an owner of hops sees of them. QUIC and memory both stand behind it.

A hop proves its peer, then waits: nothing is taken from the peer until the owner has asked policy
and called ``accept`` with the permit. No way leads round that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from channel import VerifyPeer
from identity import Code, Identifier, NoiseKey, VerifiedPeer
from link import Frame, HopLimits


class HopPurpose(StrEnum):
    ADMIT = "admit"
    """A node of the domain, with its credential."""
    ENROL = "enrol"
    """A node that has none yet and may reach the authority only."""
    DIRECT = "direct"
    """A sidecar, to another that told it inside a channel where it is."""


class HopPermit(Protocol):
    """What policy's yes must say about the peer; ``policy.Permit`` fits."""

    @property
    def subject(self) -> Identifier | None: ...

    @property
    def action(self) -> str: ...


ACTION_OF_PURPOSE = {
    HopPurpose.ADMIT: "hop.admit",
    HopPurpose.ENROL: "node.enrol",
    HopPurpose.DIRECT: "hop.admit",
}


@dataclass(frozen=True, slots=True)
class HopIdentity:
    """Who we are on a hop, and who decides who the peer is."""

    identifier: Identifier
    key: NoiseKey
    proof: bytes
    verify: VerifyPeer


IdentityProvider = Callable[[], HopIdentity]
"""Asked at each handshake, so that a renewed credential counts from the next hop on."""


class Hop(Protocol):
    """One connection to a neighbour. Every call returns at once; nothing waits."""

    id: int
    is_dialler: bool
    purpose: HopPurpose
    """Of an accepted hop, legal once it is verified."""
    opened_in_s: float
    """From the first datagram to the opened hop; 0.0 before."""
    own_key: bytes
    """The Noise public key that our side has shown; empty before the handshake."""

    @property
    def peer(self) -> VerifiedPeer:
        """Legal once ``hop_verified`` was called; RuntimeError before."""
        ...

    def renewed(self, peer: VerifiedPeer) -> None:
        """The owner has verified a newer proof of the same peer, for the same Noise key."""
        ...

    @property
    def engine(self) -> str: ...

    @property
    def post_quantum(self) -> bool | None: ...

    @property
    def is_open(self) -> bool: ...

    @property
    def peer_limits(self) -> HopLimits:
        """What the peer said in HOP_ACCEPT; legal once the hop is open."""
        ...

    @property
    def peer_epoch(self) -> int: ...

    def accept(self, permit: HopPermit) -> None:
        """Let the verified peer in. PermissionError if the permit is not for it and its purpose."""
        ...

    def refuse(self, code: Code) -> None:
        """Turn the verified peer away; it learns the code."""
        ...

    def send_frame(self, link: int, kind: int, body: bytes) -> None:
        """Queue one frame. All of one turn of the loop leave together."""
        ...

    def drop_link(self, link: int) -> None:
        """Forget frames of a link that still wait here."""
        ...

    def open_stream(self) -> int:
        """Return a new byte stream's number. The peer hears of it with the first bytes."""
        ...

    def send_stream(self, stream: int, data: bytes, end: bool = False) -> None: ...

    def reset_stream(self, stream: int, code: int) -> None: ...

    def stream_queued_bytes(self, stream: int) -> int: ...

    @property
    def queued_bytes(self) -> int:
        """Bytes of frames that wait here or in the engine, on control and all lanes."""
        ...

    def close(self, code: Code) -> None:
        """End the hop. ``hop_closed`` follows in a later turn."""
        ...


class HopHandler(Protocol):
    """Called on the loop, from the socket's read or the flush after it. Must not block.

    None of these is called from within a call that the owner makes to the hop.
    """

    def hop_verified(self, hop: Hop) -> None:
        """The peer is proved. Accept or refuse now, or within the handshake's time limit."""
        ...

    def hop_opened(self, hop: Hop) -> None:
        """Both sides have accepted."""
        ...

    def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
        """All frames of one read, lanes and control. Each lane's order is kept, and control's."""
        ...

    def stream_received(self, hop: Hop, stream: int, data: bytes, ended: bool) -> None: ...

    def stream_reset(self, hop: Hop, stream: int, code: int) -> None:
        """Once for each stream that the peer gave up; nothing else follows on it."""
        ...

    def hop_closed(self, hop: Hop, code: Code, detail: str) -> None:
        """Exactly once for each hop, also for one that never opened. The detail is for our log."""
        ...
