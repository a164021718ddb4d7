"""Which agent processes are read no further, and which conversations are to blame. Pure.

A process is one connection for all that its agents say, so a receiver that takes nothing could
stop them all. Its conversation is therefore *stalled* after a while: what it holds stays, what is
new for it is refused, and the process is read again.
"""

from typing import Final

from node.clocks import Clock
from sidecar.conversation import WAITING_BYTES_HIGH, WAITING_BYTES_LOW, Conversation
from sidecar.local_port import LocalSession
from sidecar.timers import Timers

# How long a full conversation may keep others waiting while nothing leaves it. Longer than a lost
# hop takes to be noticed and its channels to go on elsewhere.
STALL_SECONDS: Final = 15.0


class Pauses:
    """A session is read again once none of the conversations that paused it is too full."""

    __slots__ = ("_because", "_clock", "_timers", "stalls")

    def __init__(self, timers: Timers, clock: Clock) -> None:
        self._timers = timers
        self._clock = clock
        self._because: dict[LocalSession, set[Conversation]] = {}
        self.stalls = 0

    def pause_if_full(self, conversation: Conversation, session: LocalSession) -> None:
        if conversation.stalled or conversation.waiting_bytes <= WAITING_BYTES_HIGH:
            return
        self._because.setdefault(session, set()).add(conversation)
        conversation.paused.add(session)
        session.pause()
        if conversation.stall_timer is None:
            self._watch(conversation)

    def progressed(self, conversation: Conversation) -> None:
        """Something may have left a conversation, by the peer's doing."""
        self.resume_if_low(conversation)
        if conversation.stall_timer is not None:
            self._watch(conversation)

    def resume_if_low(self, conversation: Conversation) -> None:
        """Called whenever something may have left the conversation."""
        if conversation.waiting_bytes > WAITING_BYTES_LOW:
            return
        conversation.stalled = False
        if conversation.paused:
            self._resume(conversation)

    def session_gone(self, session: LocalSession) -> None:
        for conversation in self._because.pop(session, set()):
            conversation.paused.discard(session)
            if not conversation.paused:
                self._stop_watching(conversation)

    def _resume(self, conversation: Conversation) -> None:
        self._stop_watching(conversation)
        paused, conversation.paused = conversation.paused, set()
        for session in paused:
            because = self._because[session]
            because.discard(conversation)
            if not because:
                del self._because[session]
                session.resume()

    def _watch(self, conversation: Conversation) -> None:
        self._timers.cancel(conversation.stall_timer)
        at_s = self._clock.now_s() + STALL_SECONDS
        conversation.stall_timer = self._timers.at(at_s, lambda _: self._stall(conversation))

    def _stop_watching(self, conversation: Conversation) -> None:
        self._timers.cancel(conversation.stall_timer)
        conversation.stall_timer = None

    def _stall(self, conversation: Conversation) -> None:
        self.stalls += 1
        conversation.stalled = True
        self._resume(conversation)
