"""The hop pairs that the contract runs on: memory, each engine, and one engine on each side."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from identity import Identifier
from tests.transport.helpers import Owner, endpoint, make_identity
from transport import Hop, HopIdentity, HopPurpose, TransportSettings, memory_hop_pair

KINDS = ("memory", "qh3", "aioquic", "qh3→aioquic", "aioquic→qh3")
QUIC_KINDS = KINDS[1:]


@dataclass
class Pair:
    hop: Hop
    """The dialler's end; the acceptor's is in ``acceptor.hops`` once it is verified."""
    dialler: Owner
    acceptor: Owner

    @property
    def far(self) -> Hop:
        return self.acceptor.hops[0]

    async def wait_opened(self) -> None:
        await self.dialler.wait_for("opened")
        await self.acceptor.wait_for("opened")

    async def wait_closed(self) -> None:
        await self.dialler.wait_for("closed")
        await self.acceptor.wait_for("closed")


@asynccontextmanager
async def hop_pair(
    kind: str,
    *,
    dialler: Owner | None = None,
    acceptor: Owner | None = None,
    identities: tuple[HopIdentity, HopIdentity] | None = None,
    purpose: HopPurpose = HopPurpose.ADMIT,
    target: Identifier | None = None,
    **settings: object,
) -> AsyncIterator[Pair]:
    dialler, acceptor = dialler or Owner(), acceptor or Owner()
    own, theirs = identities or (make_identity("d"), make_identity("a"))
    if kind == "memory":
        made = memory_hop_pair(
            dialler,
            acceptor,
            dialler_identity=lambda: own,
            acceptor_identity=lambda: theirs,
            purpose=purpose,
            target=target,
            settings=TransportSettings(**settings),  # type: ignore[arg-type]
        )
        yield Pair(made.dialler, dialler, acceptor)
        made.cut()
        return
    here, _, there = kind.partition("→")
    async with AsyncExitStack() as stack:
        far = await stack.enter_async_context(
            endpoint(acceptor, theirs, engine=there or here, **settings)
        )
        near = await stack.enter_async_context(endpoint(dialler, own, engine=here, **settings))
        hop = near.dial(*far.address, purpose=purpose, target=target)
        yield Pair(hop, dialler, acceptor)
