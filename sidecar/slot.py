"""One live channel and what its owners keep beside it."""

from dataclasses import dataclass, field
from typing import Final

from channel import ChannelState
from identity import AgentUri, Identifier, VerifiedPeer
from link import Frame, HopPort, LinkEnd
from link.buckets import TokenBucket
from node.link_channel import LinkChannel
from policy import Action, Denial, Permit
from sidecar.agents import LocalAgent
from sidecar.mailbox import Sender
from sidecar.timers import Timer

# Each time that a channel moves, all that its peer has not acknowledged is sent again: as much as
# a window, for a frame. Links that fail do not fail more often than this.
MOVES_BURST: Final = 16
MOVES_PER_S: Final = 1.0
# Each time that a peer tells its addresses, policy is asked, and a line is left in the audit log.
MENTIONS_BURST: Final = 8
MENTIONS_PER_S: Final = 0.1
# Each newer proof of a peer costs us signature checks, and a look at policy.
RENEWALS_BURST: Final = 8
RENEWALS_PER_S: Final = 0.1
# Messages of a peer that policy is asked about and denies: a line of the audit log for each, which
# is many times what the message takes.
DENIALS_BURST: Final = 1_024
DENIALS_PER_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Wish:
    """A link on which we have asked to go on, and where no answer has come yet."""

    hop: HopPort
    end: LinkEnd


@dataclass(frozen=True, slots=True)
class LeftLink:
    """A link that a channel has left, which byte streams may still use."""

    hop: HopPort
    is_ours_to_close: bool
    """We asked to leave it; the peer only followed."""


@dataclass(slots=True, eq=False)
class ChannelSlot:
    """One live channel. It may change its link; it never changes its peer."""

    agent: LocalAgent
    links: LinkChannel
    initiator: bool
    remote: AgentUri
    """The name asked for, or, until the peer is verified, the name that the opener claims."""
    source_node: Identifier | None = None
    """The node whose agent opened it, as the gateway attests; None for our own."""
    permits_in: dict[Action, Permit] = field(default_factory=dict)
    permits_out: dict[Action, Permit] = field(default_factory=dict)
    denials: TokenBucket = field(default_factory=lambda: TokenBucket(DENIALS_PER_S, DENIALS_BURST))
    denied: Denial | None = None
    """The last answer of policy to a peer that was denied too often, and how long it holds."""
    denied_until_s: float = 0.0
    own_expires_unix_s: float = 0.0
    """When what our agent has shown on it lapses."""
    armed_s: float | None = None
    timer: Timer | None = None
    expiry_timer: Timer | None = None
    first_flight_id: int = 0
    """The last message that left behind the opening, before its yes. 0 while none has."""
    sender: Sender | None = None
    """The peer as agents are told of it, once it is verified."""
    node: Identifier | None = None
    """The node of the peer, as its chain of credentials proves."""
    verified: bool = False
    opened: bool = False
    dead: bool = False
    own_key: bytes = field(init=False)
    """The Noise public key that our agent has shown on it."""
    shown: bytes = field(init=False)
    """The proof that our agent has shown last: an initiator all it has, a responder its name."""

    early: list[Frame] | None = None
    """Frames behind a last handshake message that has not been read yet."""
    early_bytes: int = 0

    held_bytes: int = 0
    """What its peer makes us hold, when somebody looked: `sidecar.admission`."""

    # Whether it is in use: what a channel that is put away must not have.
    used_s: float = 0.0
    asks_out: int = 0
    """Asks of ours on it that wait for an answer."""
    asks_in: int = 0
    """Asks of the peer on it that we have yet to answer, and until when that is worth it."""
    asked_until_s: float = 0.0
    streams: int = 0
    resting_since_s: float | None = None
    """Our offer to put it away waits for an answer."""
    leaving: bool = False
    """Another channel of the same two goes on in its place."""
    parting: bool = False
    """The program at one of its ends stops soon: it is put away once nothing is under way."""

    # Its way: `sidecar.paths`.
    session_id: bytes = b""
    tried: set[int] = field(default_factory=set)
    """Hops on which its opening was refused by somebody between."""
    wish: Wish | None = None
    tries: int = 0
    moves: TokenBucket = field(default_factory=lambda: TokenBucket(MOVES_PER_S, MOVES_BURST))
    mentions: TokenBucket = field(
        default_factory=lambda: TokenBucket(MENTIONS_PER_S, MENTIONS_BURST)
    )
    """Of addresses, by the peer."""
    renewals: TokenBucket = field(
        default_factory=lambda: TokenBucket(RENEWALS_PER_S, RENEWALS_BURST)
    )
    """Newer proofs, by the peer."""
    parked_until_s: float | None = None
    """It has no link, and has until then to find one."""
    path_timer: Timer | None = None
    left: dict[LinkEnd, LeftLink] = field(default_factory=dict)

    def __post_init__(self) -> None:
        agent = self.agent
        self.own_key = agent.noise_key.public.raw
        self.shown = agent.full_proof if self.initiator else agent.proof
        self.own_expires_unix_s = agent.expires_unix_s

    @property
    def state(self) -> ChannelState:
        return self.links.channel.state

    @property
    def peer(self) -> VerifiedPeer:
        """Who the other end is proved to be. Legal once ``verified``."""
        return self.links.channel.peer

    @property
    def expires_unix_s(self) -> float:
        """When the first of what both sides have proved lapses; 0 before the peer is verified."""
        if not self.verified:
            return 0.0
        return min(self.peer.identity.expires_unix_s, self.own_expires_unix_s)

    @property
    def holds(self) -> bool:
        """Whether new messages wait: it has no link, or is about to be put away or replaced."""
        return (
            self.leaving
            or self.parting
            or self.parked_until_s is not None
            or self.resting_since_s is not None
        )

    def is_quiet(self, now_s: float) -> bool:
        """Whether nothing is under way on it, as far as we can know."""
        return not (
            self.asks_out
            or (self.asks_in and now_s < self.asked_until_s)
            or self.streams
            or self.links.waiting_bytes
            or self.links.channel.awaits_acknowledgement
        )
