"""The machine of a sidecar: its agents, remote agents, and what must hold of it at any time."""

import asyncio
from typing import Any, Final

from sidelink import wire

from channel import (
    StreamSession,
)
from policy import Action
from sidecar.conversation import ANSWER_BYTES_WAITING_MAX
from sidecar.streams import EARLY_BYTES_MAX
from tests.fuzz.loops import VirtualLoop
from tests.fuzz.program import Program
from tests.fuzz.sidecar_people import REMOTES, FuzzedSidecar, QuickPuppet

LINKS: Final = (0, 1, 2, 5, 1 << 31, 1 << 31 | 1, 1 << 31 | 2, 1 << 31 | 9)
SIZES: Final = (0, 1, 200, 40_000)
MORE_THAN_ANY_WAIT_S: Final = 400.0


class SidecarMachine(FuzzedSidecar):
    """Three remote agents, each with the last channel that it had."""

    def __init__(self) -> None:
        self.puppets: list[QuickPuppet] = []
        super().__init__()
        self.puppets = [QuickPuppet(self, name) for name in REMOTES]
        self.uris = [puppet.uri for puppet in self.puppets]
        self.stream_ends: dict[int, StreamSession] = {}
        self.requests: set[tuple[int, int]] = set()
        self.tasks: list[asyncio.Task[None]] = []
        self.number = 0
        self.seen: dict[int, int] = {}

    def use_loop(self, loop: VirtualLoop) -> None:
        super().use_loop(loop)
        for session in self.sessions:
            session.listen()

    def new_body(self, program: Program) -> bytes:
        """No two bodies are the same, so that each is known again."""
        self.number += 1
        return self.number.to_bytes(4, "big") + bytes(program.choose(SIZES))

    def check(self) -> None:
        if self.hop is not None and self.hop.closed is not None:
            self.lose_hop()
        for hop in [hop for hop in self.direct_hops if hop.closed is not None]:
            self.lose_direct_hop(hop)
        channels = self.router.channels
        slots = channels.slots()
        counts, strangers = channels.admission, [slot for slot in slots if not slot.initiator]
        assert counts.live == len(slots)
        assert counts.unverified == sum(not slot.verified for slot in strangers)
        assert sum(counts._of_node.values()) == len(strangers)
        room = self.router.agents.mailbox_room
        agents = self.router.agents.awake_agents()
        assert room.held_bytes == sum(agent.mailbox.held_bytes for agent in agents)
        for slot in slots:
            assert not slot.dead
            assert slot.links.waiting_bytes <= ANSWER_BYTES_WAITING_MAX + (4 << 20)
        for session in self.sessions:
            mailbox = session.agent.mailbox
            assert mailbox.held_bytes == sum(waiting.held_bytes for waiting in mailbox)
            self._check_delivered(session)
        for early in self.streams._early.values():
            assert len(early.data) <= EARLY_BYTES_MAX
        assert len(self.streams._streams) == len(self.streams._by_number)
        assert self.echoed <= len(self.sidecar.decisions.permits(Action.STREAM_OPEN))

    def _check_delivered(self, session: Any) -> None:
        """Who is named as sender has proved that name, was permitted, and has said this."""
        new = [
            frame
            for frame in session.frames[self.seen.get(id(session), 0) :]
            if isinstance(frame, wire.Deliver)
        ]
        self.seen[id(session)] = len(session.frames)
        if not new:
            return
        said = {puppet.uri: puppet.said for puppet in self.puppets}
        permitted = {
            pair
            for action in (Action.MESSAGE_TELL, Action.MESSAGE_ASK)
            for pair in self.sidecar.decisions.permits(action)
        }
        for frame in new:
            assert (frame.sender, session.uri) in permitted, "delivered without a permit"
            assert frame.body in said.get(frame.sender, {frame.body}), "nobody sent this"

    def finish(self) -> None:
        """Every request is answered once; nothing is kept for a hop that is gone."""
        self.lose_hop()
        for hop in list(self.direct_hops):
            self.lose_direct_hop(hop)
        self.pass_time(MORE_THAN_ANY_WAIT_S)
        channels, streams = self.router.channels, self.streams
        assert len(channels) == 0
        counts = channels.admission
        tables: list[Any] = [channels._slots, channels._live, channels.hops, counts._of_node]
        tables += [counts._unverified_of_node, counts.unverified, counts.live, streams._early]
        tables += [streams._streams, streams._by_number, streams._expected, streams._ending]
        paths, conversations = channels.paths, self.router.outbound.conversations
        tables += [paths._sessions, paths._parked, paths._wishes, channels.handshakes]
        tables += [conversations._of_slot, streams._next_number]
        assert not any(tables)
        for session in self.sessions:
            answered = [f.request for f in session.frames if getattr(f, "request", 0)]
            assert len(answered) == len(set(answered)), "answered twice"
            missing = {number for handle, number in self.requests if handle == id(session)}
            assert missing <= set(answered), "a request without an answer"

    def open_hop(self) -> None:
        super().open_hop()
        for puppet in self.puppets:
            puppet.forget_read()

    def puppet(self, program: Program) -> QuickPuppet:
        return program.choose(self.puppets)
