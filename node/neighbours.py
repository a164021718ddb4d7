"""What neighbours show each other while a hop lives: newer proofs, lists and policies. Pure.

A node whose credential was renewed, or whose key was rotated, shows its new proof on each hop that
is open (RENEW). Revocation lists and mandatory policies spread by ``node.spreading``, each by two
frames of its own: what somebody holds, and a part of a newer one.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from identity import (
    REVOCATIONS_WITH_HISTORY_BYTES_MAX,
    SIGNED_POLICY_BYTES_MAX,
    Code,
    IdentityError,
)
from link import Frame, FrameError, FrameKind
from link.buckets import TokenBucket
from node.clocks import Clock
from node.mandatory import MandatoryPolicy
from node.metrics import Metrics, by_code
from node.own_node import OwnNode
from node.spreading import GIVEN, Spread
from transport import Hop

KINDS: Final = frozenset(
    {
        FrameKind.RENEW,
        FrameKind.LISTS_HELD,
        FrameKind.LIST,
        FrameKind.POLICY_HELD,
        FrameKind.POLICY,
    }
)
# A proof costs signature checks. Whoever shows one keeps to a rate, and is given twice as much.
RENEWALS_BURST: Final = 8
RENEWALS_PER_S: Final = 0.1

_log = structlog.get_logger("node.neighbours")


@dataclass(slots=True, eq=False)
class _Neighbour:
    hop: Hop
    owed_proof: bool = False
    """It is shown who we are now as soon as it may be shown that again."""
    renewals: TokenBucket = field(
        default_factory=partial(TokenBucket, GIVEN * RENEWALS_PER_S, GIVEN * RENEWALS_BURST)
    )
    shown: TokenBucket = field(default_factory=partial(TokenBucket, RENEWALS_PER_S, RENEWALS_BURST))


class Neighbours:
    """All hops of one program, as far as trust and mandatory policy are concerned."""

    def __init__(
        self,
        node: OwnNode,
        mandatory: MandatoryPolicy,
        clock: Clock,
        metrics: Metrics,
        *,
        renewed: Callable[[Hop], None] | None = None,
    ) -> None:
        """``renewed`` is told of a hop whose peer has shown a newer proof."""
        self._node = node
        self._clock = clock
        self._renewed = renewed
        self._open: dict[int, _Neighbour] = {}
        self.refused: Counter[Code] = Counter()
        """Lists, policies and proofs that did not count."""
        self.lists = Spread(
            node.trust,
            clock,
            held=FrameKind.LISTS_HELD,
            part=FrameKind.LIST,
            document_bytes_max=REVOCATIONS_WITH_HISTORY_BYTES_MAX,
            refused=self._refuse,
        )
        self.policies = Spread(
            mandatory,
            clock,
            held=FrameKind.POLICY_HELD,
            part=FrameKind.POLICY,
            document_bytes_max=SIGNED_POLICY_BYTES_MAX,
            refused=self._refuse,
        )
        metrics.counter_read(
            "neighbours_not_believed",
            "Lists, policies and proofs of neighbours that did not count, by code.",
            lambda: by_code(self.refused),
            label="code",
        )
        node.trust.on_news.append(self.lists.news)
        mandatory.on_news.append(self.policies.news)
        node.on_change.append(self.show_proof)

    def hop_opened(self, hop: Hop) -> None:
        self._open[hop.id] = _Neighbour(hop)
        for spread in (self.lists, self.policies):
            spread.hop_opened(hop)

    def hop_closed(self, hop: Hop) -> None:
        self._open.pop(hop.id, None)
        for spread in (self.lists, self.policies):
            spread.hop_closed(hop)

    def show_proof(self) -> None:
        """Show every neighbour who we are now."""
        for neighbour in self._open.values():
            self._show_proof(neighbour)

    def tick(self) -> None:
        """Called about once a second."""
        for neighbour in self._open.values():
            if neighbour.owed_proof:
                self._show_proof(neighbour)
        for spread in (self.lists, self.policies):
            spread.tick()

    def receive_untrusted(self, hop: Hop, frame: Frame) -> None:
        """Take one frame of ``KINDS``. Raises FrameError for what breaks the protocol."""
        if frame.link != 0:
            raise FrameError(f"kind {frame.kind:#04x} belongs to no link")
        match frame.kind:
            case FrameKind.RENEW:
                self._renew_untrusted(hop, frame.body)
            case FrameKind.LISTS_HELD:
                self.lists.held_untrusted(hop, frame.body)
            case FrameKind.LIST:
                self.lists.part_untrusted(hop, frame.body)
            case FrameKind.POLICY_HELD:
                self.policies.held_untrusted(hop, frame.body)
            case _:
                self.policies.part_untrusted(hop, frame.body)

    def _show_proof(self, neighbour: _Neighbour) -> None:
        neighbour.owed_proof = not neighbour.shown.take(self._clock.now_s())
        if not neighbour.owed_proof:
            hop = neighbour.hop
            hop.send_frame(0, FrameKind.RENEW, self._node.proof_for_hop(hop.own_key))

    def _renew_untrusted(self, hop: Hop, proof: bytes) -> None:
        neighbour = self._open.get(hop.id)
        if neighbour is None:
            return
        if not neighbour.renewals.take(self._clock.now_s()):
            raise FrameError("renewals without end", Code.HOP_LIMIT_EXCEEDED)
        try:
            newer = self._node.verify_hop(proof, hop.peer.noise_key.raw)
        except IdentityError as exc:
            # Perhaps only our clock is wrong: the hop goes on with what it was opened on.
            self._refuse(hop, exc.code, exc.detail)
            return
        before = hop.peer.identity
        if newer.identifier != hop.peer.identifier or newer.identity.kind != before.kind:
            raise FrameError("a renewal by somebody else")
        if newer.name != before.name or newer.identity.role_of_node != before.role_of_node:
            raise FrameError("a renewal under another name")
        hop.renewed(newer)
        _log.info("peer_renewed", peer=str(newer.identifier))
        if self._renewed is not None:
            self._renewed(hop)

    def _refuse(self, hop: Hop, code: Code, detail: str) -> None:
        self.refused[code] += 1
        if code is not Code.HOP_LIMIT_EXCEEDED:  # That may come with each frame.
            _log.warning(
                "neighbour_not_believed", peer=str(hop.peer.identifier), code=code.text, why=detail
            )
