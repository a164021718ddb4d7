"""From mailboxes to the sessions that listen, and from their answers back. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakSet

from sidelink.wire import ASK, Deliver, DeliverRun

from identity import Code
from node.clocks import Clock
from sidecar.agents import LocalAgent
from sidecar.local_port import LocalSession
from sidecar.mailbox import Answers, Waiting

# Handed to a session at once. More only waits in its socket instead of here.
TURN_BYTES_MAX: Final = 1 << 20
LEASES_PER_AGENT_MAX: Final = 65_536
# So many asks may wait for an agent's answer before those are looked for whose time is over.
LEASES_LOOKED_AT_MIN: Final = 64


class Nowhere:
    """Where an answer goes that nobody waits for."""

    def reply(self, body: bytes, content_type: str) -> None:
        pass

    def reject(self, reason: str, *, expired: bool = False) -> None:
        pass


_NOWHERE: Final = Nowhere()


@dataclass(slots=True)
class Leases:
    """The asks that an agent was handed and has not answered."""

    by_number: dict[int, tuple[float, Answers]] = field(default_factory=dict)
    """Each with its deadline."""
    late: set[int] = field(default_factory=set)
    """For an answer to these nobody waits any more, so that they hold on to no channel."""
    look_at: int = LEASES_LOOKED_AT_MIN

    def take(self, number: int) -> Answers | None:
        """Where the answer to an ask goes; None if this is the number of none."""
        lease = self.by_number.pop(number, None)
        if lease is not None:
            return lease[1]
        if number in self.late:
            self.late.remove(number)
            return _NOWHERE
        return None

    def look_for_late(self, now_s: float) -> None:
        late = [number for number, lease in self.by_number.items() if lease[0] <= now_s]
        for number in late:
            del self.by_number[number]
        if len(self.late) + len(late) > LEASES_PER_AGENT_MAX:
            self.late.clear()  # An answer to one of these is now one to no ask.
        self.late.update(late)
        self.look_at = max(LEASES_LOOKED_AT_MIN, 2 * len(self.by_number))


class Deliveries:
    """Who listens for which agent, and which delivered asks are still to be answered."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._listeners: dict[int, LocalSession] = {}
        self._agents: dict[LocalSession, dict[int, LocalAgent]] = {}
        self._held: set[int] = set()
        self._leases: dict[int, Leases] = {}
        self._dirty: dict[int, LocalAgent] = {}
        self._number = 0
        self._held_back: dict[LocalSession, list[Callable[[], None]]] = {}
        self._gone: WeakSet[LocalSession] = WeakSet()

    @property
    def open_asks(self) -> int:
        return sum(len(leases.by_number) for leases in self._leases.values())

    @property
    def idle(self) -> bool:
        """Whether nothing is to be answered, and nothing waits for one who takes it."""
        now_s = self._clock.now_s()
        return not any(
            deadline_s > now_s
            for leases in self._leases.values()
            for deadline_s, _answers in leases.by_number.values()
        ) and not any(
            len(agent.mailbox) and handle not in self._held
            for agents in self._agents.values()
            for handle, agent in agents.items()
        )

    def listens(self, agent: LocalAgent) -> bool:
        return agent.handle in self._listeners

    def listen(self, agent: LocalAgent, session: LocalSession) -> bool:
        """Begin to hand over an agent's messages. False when another session does already."""
        if self._listeners.setdefault(agent.handle, session) is not session:
            return False
        self._agents.setdefault(session, {})[agent.handle] = agent
        self._held.discard(agent.handle)
        self._dirty[agent.handle] = agent
        return True

    def hold(self, agent: LocalAgent, session: LocalSession) -> None:
        """Hand over nothing until this session listens again.

        It is still the one that listens: the asks it was handed stay its own to answer, and
        windows hold back those who send to it.
        """
        if self._listeners.get(agent.handle) is session:
            self._held.add(agent.handle)

    def unlisten(self, agent: LocalAgent, session: LocalSession) -> None:
        """Stop. Asks that were handed over and not answered are rejected: nobody will answer."""
        if self._listeners.get(agent.handle) is not session:
            return
        del self._listeners[agent.handle]
        del self._agents[session][agent.handle]
        self._held.discard(agent.handle)
        leases = self._leases.pop(agent.handle, Leases())
        for _deadline_s, answers in leases.by_number.values():
            answers.reject("the agent stopped listening before it answered")
        for waiting in agent.mailbox:
            _release(waiting)

    def session_gone(self, session: LocalSession) -> None:
        for agent in list(self._agents.get(session, {}).values()):
            self.unlisten(agent, session)
        self._agents.pop(session, None)
        self._gone.add(session)
        self._let_go(session)

    def session_writable(self, session: LocalSession) -> None:
        self._dirty.update(self._agents.get(session, {}))
        self._let_go(session)

    def when_writable(self, session: LocalSession | None, call: Callable[[], None]) -> None:
        """At once; or when a session that reads too slowly has caught up, or is gone."""
        if session is None or session.writable or session in self._gone:
            call()
        else:
            self._held_back.setdefault(session, []).append(call)

    def _let_go(self, session: LocalSession) -> None:
        for call in self._held_back.pop(session, ()):
            call()

    def offer(self, agent: LocalAgent, waiting: Waiting) -> Code | None:
        """Put a message into its mailbox. Returns why not, when there is no room."""
        listens = self.listens(agent)
        if not agent.mailbox.add(waiting, counted=not listens):
            return Code.MESSAGE_MAILBOX_FULL
        if not listens:
            # Nobody reads: the mailbox's bound, not the window, is what stops the sender. Else one
            # sleeping agent would stop everything that its correspondents have to say.
            _release(waiting)
        self._dirty[agent.handle] = agent
        return None

    def answer(self, agent: LocalAgent, delivery: int, body: bytes, content_type: str) -> bool:
        """Reply to a delivered ask. False when there is none of this number any more."""
        leases = self._leases.get(agent.handle)
        answers = None if leases is None else leases.take(delivery)
        if answers is None:
            return False
        answers.reply(body, content_type)
        return True

    def refuse(self, agent: LocalAgent, delivery: int, reason: str) -> bool:
        leases = self._leases.get(agent.handle)
        answers = None if leases is None else leases.take(delivery)
        if answers is None:
            return False
        answers.reject(reason)
        return True

    def flush(self) -> None:
        """Hand over what waits for sessions that can take it."""
        dirty, self._dirty = self._dirty, {}
        for handle, agent in dirty.items():
            session = self._listeners.get(handle)
            if handle in self._held:
                continue
            while session is not None and session.writable and len(agent.mailbox):
                self._hand_over(agent, session)

    def _hand_over(self, agent: LocalAgent, session: LocalSession) -> None:
        now_s = self._clock.now_s()
        taken = agent.mailbox.take(TURN_BYTES_MAX)
        frames: list[Deliver | DeliverRun] = []
        for waiting in taken:
            frame = (
                _run_frame(agent, waiting)
                if waiting.answers is None
                else self._ask_frame(agent, waiting, waiting.answers, now_s)
            )
            if frame is not None:
                frames.append(frame)
        if frames:
            session.deliver(frames)
        for waiting in taken:
            _release(waiting)

    def _ask_frame(
        self, agent: LocalAgent, waiting: Waiting, answers: Answers, now_s: float
    ) -> Deliver | None:
        """The frame that hands an ask over, leased until it is answered. None once rejected."""
        remaining_ms = int((waiting.deadline_s - now_s) * 1000)
        if remaining_ms <= 0:
            answers.reject("it waited too long in the mailbox", expired=True)
            return None
        self._number += 1
        if not self._lease(agent, waiting.deadline_s, answers, now_s):
            answers.reject("the agent has too many asks to answer")
            return None
        sender = waiting.sender
        [body] = waiting.bodies
        return Deliver(
            agent.handle,
            self._number,
            ASK,
            sender.uri,
            sender.identifier,
            sender.attributes,
            body,
            waiting.content_type,
            remaining_ms,
        )

    def _lease(self, agent: LocalAgent, deadline_s: float, answers: Answers, now_s: float) -> bool:
        leases = self._leases.setdefault(agent.handle, Leases())
        if len(leases.by_number) >= min(leases.look_at, LEASES_PER_AGENT_MAX):
            leases.look_for_late(now_s)
            if len(leases.by_number) >= LEASES_PER_AGENT_MAX:
                return False
        leases.by_number[self._number] = (deadline_s, answers)
        return True


def _run_frame(agent: LocalAgent, waiting: Waiting) -> DeliverRun:
    sender = waiting.sender
    return DeliverRun(
        agent.handle,
        sender.uri,
        sender.identifier,
        sender.attributes,
        waiting.content_type,
        waiting.bodies,
    )


def _release(waiting: Waiting) -> None:
    """Let its sender send more, once."""
    release, waiting.release = waiting.release, None
    if release is not None:
        release()
