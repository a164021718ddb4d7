"""What a mesh promises its agents, checked as a story is told and at its end."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sidelink import wire

from identity import Code
from policy import Action
from tests.simulation.mesh import Gateway, Sidecar

if TYPE_CHECKING:
    from tests.simulation.story import Actor

# What a sender may be told of a message that was handed over all the same.
UNCERTAIN: Final = frozenset(
    code.text
    for code in (Code.MESSAGE_OUTCOME_UNKNOWN, Code.MESSAGE_TIMEOUT, Code.MESSAGE_REJECTED)
)
# What a sender may be told though nothing is lost.
DESERVED: Final = frozenset(
    code.text for code in (Code.POLICY_DENIED, Code.ROUTE_UNKNOWN, Code.MESSAGE_AGENT_UNKNOWN)
)


class Sent(NamedTuple):
    """One message, and how often its two sidecars had lost something when it was sent."""

    number: int
    to: str
    body: bytes
    losses: tuple[int, ...]


class Promises:
    """Remembers what was handed over to whom."""

    def __init__(self, sidecars: Sequence[Sidecar], *, is_kind: bool) -> None:
        """``is_kind``: nothing is lost in this story, so that nobody may hear of a loss."""
        self._sidecars = sidecars
        self._is_kind = is_kind
        self._seen: dict[tuple[str, str], int] = {}
        self._delivered: dict[bytes, str] = {}
        self._dropped: set[bytes] = set()

    def delivered(self, actor: "Actor", frame: wire.Deliver) -> None:
        life, number = frame.body.split(b"|")[:2]
        body = bytes(frame.body)
        sender = "agent://acme/" + life.decode().partition("#")[0]
        assert frame.sender == sender, "the sender is who the message says, and the channel proved"
        assert body not in self._delivered, "no message is delivered twice"
        self._delivered[body] = actor.life
        pair = (life.decode(), actor.life)
        assert int(number) > self._seen.get(pair, 0), f"{pair}: order is kept"
        self._seen[pair] = int(number)
        action = Action.MESSAGE_ASK if frame.kind == wire.ASK else Action.MESSAGE_TELL
        permitted = actor.session.sidecar.decisions.permitted(action, sender, actor.session.uri)
        assert permitted, "nothing is delivered without a permit"
        assert "outcast" not in sender
        assert not (frame.kind == wire.ASK and actor.name == "quiet")

    def dropped(self, sidecar: Sidecar) -> None:
        """A sidecar stops: what waits for agents that nobody reads for ends with it."""
        self._dropped |= set(bodies_in_mailboxes(sidecar))

    def check_ended(self, actor: "Actor") -> None:
        """Of all that an agent sent it has heard once how it ended, and it is so."""
        if not actor.knows:
            return
        assert not actor.session.is_paused, f"{actor.life} is read again"
        ends: dict[int, list[Any]] = defaultdict(list)
        for frame in actor.session.frames:
            if not isinstance(frame, wire.Deliver):
                ends[frame.request].append(frame)
        for request, sent in actor.sent.items():
            assert len(ends[request]) == 1, f"{sent.number} to {sent.to}: {ends[request]}"
            self._check_end(actor, ends[request][0], sent)
        self._check_nothing_lost(actor, ends)

    def _check_end(self, actor: "Actor", end: Any, sent: Sent) -> None:
        actor.story.tell(f"{actor.life} {end.request} ended as {getattr(end, 'code', 'done')}")
        if isinstance(end, wire.Reply):
            assert end.sender == sent.to
            assert end.body == b"re:" + sent.body[:100]
            assert sent.body in self._delivered
        elif isinstance(end, wire.Failed) and end.code not in UNCERTAIN:
            assert not self._is_kind or end.code in DESERVED, f"{end.code} for no reason"
            assert sent.body not in self._delivered, f"{end.code} says it was not handed over"

    def _check_nothing_lost(self, actor: "Actor", ends: dict[int, list[Any]]) -> None:
        """What was accepted arrives, or its sender is told otherwise, as long as neither sidecar
        dies or stops before it has finished."""
        waiting = {body for sidecar in self._sidecars for body in bodies_in_mailboxes(sidecar)}
        missing = [
            sent.body
            for request, sent in actor.sent.items()
            if isinstance(ends[request][0], wire.Receipt)
            and sent.losses == actor.story.losses_of(actor.session.uri, sent.to)
            and sent.body not in self._delivered
            and sent.body not in waiting
            and sent.body not in self._dropped
        ]
        told = ends[0]
        unknown = Code.MESSAGE_OUTCOME_UNKNOWN.text
        everything = [frame for frames in ends.values() for frame in frames]
        if self._is_kind:
            assert not any(getattr(frame, "code", "") == unknown for frame in everything)
        if not any(frame.code == unknown for frame in told):
            assert len(missing) <= len(told), f"{actor.life} lost {missing[0][:40]!r} and others"


def bodies_in_mailboxes(sidecar: Sidecar) -> list[bytes]:
    """What waits for agents that nobody reads for."""
    if not sidecar.is_up:
        return []
    agents = sidecar.router.agents.awake_agents()
    return [body for agent in agents for waiting in agent.mailbox for body in waiting.bodies]


def is_idle(gateway: Gateway) -> bool:
    return gateway.is_empty() and not gateway.hops


def check_quiet(sidecar: Sidecar) -> None:
    """A router whose hops are gone and whose messages have ended holds no more than names."""
    router = sidecar.router
    channels, outbound = router.channels, router.outbound
    assert len(channels) == 0
    assert channels.admission.unverified == 0
    assert not channels.admission._unverified_of_node
    assert not channels.admission._of_node
    assert not channels.handshakes
    assert not channels._slots
    assert not channels.hops._entries
    assert not channels.paths._sessions
    assert not channels.paths._parked
    assert not channels.paths._wishes
    assert not outbound.conversations._of_slot
    assert not outbound._dirty
    assert not outbound._pauses._because
    for conversation in outbound.conversations.all():
        assert conversation.idle, conversation
        assert not conversation.unconfirmed
        assert not conversation.waiting_bytes
    assert len(router.timers) == 0
    for agent in router.agents.awake_agents():
        assert agent.users == sum(session.agent is agent for session in sidecar.sessions)
