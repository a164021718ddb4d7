"""Which agent processes are read no further, and which conversations are to blame. Pure."""

from sidecar.conversation import WAITING_BYTES_HIGH, WAITING_BYTES_LOW, Conversation
from sidecar.local_port import LocalSession


class Pauses:
    """A session is read again once none of the conversations that paused it is too full."""

    __slots__ = ("_because",)

    def __init__(self) -> None:
        self._because: dict[LocalSession, set[Conversation]] = {}

    def pause_if_full(self, conversation: Conversation, session: LocalSession) -> None:
        if conversation.waiting_bytes > WAITING_BYTES_HIGH:
            self._because.setdefault(session, set()).add(conversation)
            conversation.paused.add(session)
            session.pause()

    def resume_if_low(self, conversation: Conversation) -> None:
        """Called whenever something may have left the conversation."""
        if not conversation.paused or conversation.waiting_bytes > WAITING_BYTES_LOW:
            return
        paused, conversation.paused = conversation.paused, set()
        for session in paused:
            because = self._because[session]
            because.discard(conversation)
            if not because:
                del self._because[session]
                session.resume()

    def session_gone(self, session: LocalSession) -> None:
        for conversation in self._because.pop(session, set()):
            conversation.paused.discard(session)
