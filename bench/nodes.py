"""Nodes on hops of their own, with no program round them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from bench.errors import BenchError
from identity import (
    Code,
    Identifier,
    NoiseKey,
    NoisePublicKey,
    Purpose,
    VerifiedIdentity,
    VerifiedPeer,
)
from link import Frame
from policy import Action, Denial, Party, Request
from tests.simulation.people import START_UNIX_S, Node, engine, verifier_of
from transport import Endpoint, Hop, HopIdentity, HopPermit, TransportSettings


class FramesTaken(Protocol):
    """What an owner of hops does with what comes."""

    def __call__(self, hop: Hop, frames: list[Frame]) -> None: ...


class NodeOnHops:
    """The handler of all hops of one node. ``admit`` is asked about each peer that is proved."""

    def __init__(self, identity: HopIdentity, admit: Callable[[VerifiedPeer], HopPermit]) -> None:
        self.identity = identity
        self.opened: asyncio.Queue[Hop] = asyncio.Queue()
        self.take: FramesTaken = _ignore
        self._admit = admit

    async def bind(self, settings: TransportSettings) -> Endpoint:
        return await Endpoint.bind(
            "127.0.0.1", 0, identity=lambda: self.identity, handler=self, settings=settings
        )

    # HopHandler.

    def hop_verified(self, hop: Hop) -> None:
        hop.accept(self._admit(hop.peer))

    def hop_opened(self, hop: Hop) -> None:
        self.opened.put_nowait(hop)

    def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
        self.take(hop, frames)

    def stream_received(self, hop: Hop, stream: int, data: bytes, ended: bool) -> None:
        pass

    def stream_reset(self, hop: Hop, stream: int, code: int) -> None:
        pass

    def hop_closed(self, hop: Hop, code: Code, detail: str) -> None:
        pass


def member(node: Node) -> NodeOnHops:
    """A node with a real credential of the test authority, and policy's own decisions."""
    own = node.own

    def verify(proof: bytes, noise_key: bytes) -> VerifiedPeer:
        return verifier_of(own.identifier).verify(
            proof, purpose=Purpose.HOP, noise_key=noise_key, unix_s=START_UNIX_S
        )

    def admit(peer: VerifiedPeer) -> HopPermit:
        subject = Party.from_verified(peer.identity)
        request = Request(Action.HOP_ADMIT, subject, Party.from_verified(node.identity))
        answer = engine().decide(request, START_UNIX_S)
        if isinstance(answer, Denial):
            raise BenchError(f"a node of the test authority was denied: {answer.reason}")
        return answer

    key = own.purpose_keys[Purpose.HOP].key
    return NodeOnHops(HopIdentity(own.identifier, key, own.proof(Purpose.HOP), verify), admit)


@dataclass(frozen=True, slots=True)
class _AnyPermit:
    subject: Identifier
    action: str = "hop.admit"


def nobody(letter: bytes) -> NodeOnHops:
    """A node that says only its identifier and believes what the other says, so that two processes
    need no authority between them. The handshake is a real one, its proofs are empty."""
    own = Identifier(letter * 32)

    def verify(proof: bytes, noise_key: bytes) -> VerifiedPeer:
        claimed = VerifiedIdentity(
            Identifier(proof), None, "node", "gateway", "acme", None, MappingProxyType({}), None, 0
        )
        return VerifiedPeer(claimed, NoisePublicKey(noise_key))

    identity = HopIdentity(own, NoiseKey.generate(), own.digest, verify)
    return NodeOnHops(identity, lambda peer: _AnyPermit(peer.identifier))


def _ignore(hop: Hop, frames: list[Frame]) -> None:
    """Nothing is expected."""
