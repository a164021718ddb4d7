"""Identities, owners and pairs of hops that the transport's tests share."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

from identity import (
    Code,
    Identifier,
    IdentityError,
    NoiseKey,
    NoisePublicKey,
    VerifiedIdentity,
    VerifiedPeer,
)
from link import Frame
from transport import Endpoint, Hop, HopIdentity, HopPurpose, TransportSettings

WAIT_S = 5.0


def verify_peer(proof: bytes, noise_key: bytes) -> VerifiedPeer:
    """A proof of these tests is identifier ‖ Noise key ‖ padding. Identity tests real ones."""
    if proof[32:64] != noise_key:
        raise IdentityError(Code.CHANNEL_PROOF_INVALID, "not a proof of this key")
    identity = VerifiedIdentity(
        identifier=Identifier(proof[:32]),
        name=None,
        kind="node",
        role_of_node="gateway",
        trust_domain="acme",
        issuer=None,
        attributes=MappingProxyType({}),
        delegable=None,
        expires_unix_s=2_000_000_000,
        ancestors=(),
    )
    return VerifiedPeer(identity, NoisePublicKey(noise_key))


def make_identity(letter: str, *, proof_bytes: int = 64) -> HopIdentity:
    key = NoiseKey.generate()
    identifier = Identifier(letter.encode() * 32)
    proof = (identifier.digest + key.public.raw).ljust(proof_bytes, b".")
    return HopIdentity(identifier, key, proof, verify_peer)


@dataclass(frozen=True)
class FakePermit:
    subject: Identifier | None
    action: str = "hop.admit"


@dataclass
class Owner:
    """Records what a hop tells; accepts at once unless told otherwise."""

    decide: Callable[[Hop], None] | None = None
    log: list[tuple[str, object]] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    hops: list[Hop] = field(default_factory=list)
    received: dict[int, bytearray] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def hop_verified(self, hop: Hop) -> None:
        self._note("verified", hop.peer.identifier)
        self.hops.append(hop)
        if self.decide is not None:
            self.decide(hop)
        else:
            hop.accept(permit_for(hop))

    def hop_opened(self, hop: Hop) -> None:
        self._note("opened", hop.id)

    def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
        assert hop.is_open
        self.frames.extend(frames)
        self._note("frames", len(frames))

    def stream_received(self, hop: Hop, stream: int, data: bytes, ended: bool) -> None:
        self.received.setdefault(stream, bytearray()).extend(data)
        if ended:
            assert stream not in self.ended
            self.ended.add(stream)
        self._note("stream", stream)

    def stream_reset(self, hop: Hop, stream: int, code: int) -> None:
        self._note("reset", (stream, code))

    def hop_closed(self, hop: Hop, code: Code, detail: str) -> None:
        self._note("closed", code)

    def _note(self, what: str, value: object) -> None:
        self.log.append((what, value))
        self.changed.set()

    def values(self, what: str) -> list[object]:
        return [value for name, value in self.log if name == what]

    @property
    def code(self) -> Code | None:
        """Why the hop ended. At most one end for each hop."""
        codes = self.values("closed")
        assert len(codes) <= 1
        return codes[0] if codes else None  # type: ignore[return-value]

    async def wait(self, is_so: Callable[["Owner"], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not is_so(self):
                self.changed.clear()
                await self.changed.wait()

    async def wait_until(self, is_so: Callable[[], object]) -> None:
        """For what no event tells: looked at every millisecond."""
        async with asyncio.timeout(WAIT_S):
            while not is_so():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def wait_for(self, what: str, count: int = 1) -> None:
        await self.wait(lambda owner: len(owner.values(what)) >= count)


def permit_for(hop: Hop) -> FakePermit:
    action = "node.enrol" if hop.purpose is HopPurpose.ENROL else "hop.admit"
    return FakePermit(hop.peer.identifier, action)


@asynccontextmanager
async def endpoint(
    owner: Owner,
    identity: HopIdentity | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    **settings: object,
) -> AsyncIterator[Endpoint]:
    own = make_identity("s") if identity is None else identity
    made = await Endpoint.bind(
        host,
        port,
        identity=lambda: own,
        handler=owner,
        settings=TransportSettings(**settings),  # type: ignore[arg-type]
    )
    try:
        yield made
    finally:
        await made.close()
