"""What the local API and the router ask of each other. The one is all sockets, the other all rules.

Everything here is called on the event loop and must not block. Frames are those of
`sidelink.wire`; the session has already checked their shape, their sizes, and that the agent
belongs to the session.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sidelink.wire import (
    TEXT_CHARACTERS_MAX,
    Answer,
    AttributeValue,
    Failed,
    Opened,
    Refuse,
    Send,
    ServerFrame,
    TellRun,
    Welcome,
)

from identity import Code, SidelinkError


class LocalApiError(SidelinkError):
    """The listener cannot be made, or a process may not connect."""


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """One file, whatever it is called."""

    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class PeerCredentials:
    """Who is at the other end of a Unix socket, as the kernel says. A process id may be reused."""

    process_id: int
    user_id: int
    group_id: int
    groups: frozenset[int] = frozenset()
    """Supplementary ones, beside ``group_id``."""
    executable: FileIdentity | None = None
    """What it ran when it connected; None if nobody asked or the kernel did not say."""


class LocalSession(Protocol):
    """One connection of an agent process, as the router sees it. Hashable by identity."""

    @property
    def peer(self) -> PeerCredentials: ...

    @property
    def writable(self) -> bool:
        """False while the agent process reads too slowly, and for ever once the session closed.

        Keep messages in the mailbox meanwhile; `LocalRouter.session_writable` tells of the change.
        """

    def deliver(self, frames: Sequence[ServerFrame]) -> None:
        """Queue Deliver, Reply, Receipt and Failed frames; one loop turn's make one batch.

        Never calls back into the router. Does nothing once the session has closed.
        """

    def agent_opened(self, opened: Opened) -> None:
        """The answer to `open_agent`, now or later: from here on `opened.agent` is this session's.

        Does nothing if the session has closed in the meantime.
        """

    def agent_refused(self, failed: Failed) -> None:
        """The other answer to `open_agent`."""

    def agent_gone(self, failed: Failed) -> None:
        """The session acts as this agent no longer, and is told why."""

    def pause(self) -> None:
        """Stop reading from the agent process. What is read already (at most a batch) still comes.

        Not counted: one `resume` undoes any number of `pause`.
        """

    def resume(self) -> None: ...

    def close(self, code: Code, delay_ms: int = 0) -> None:
        """Say Goodbye and close. `LocalRouter.session_closed` is called before this returns."""


class LocalRouter(Protocol):
    """What agents' requests turn into. Answers go through `LocalSession.deliver`, now or later."""

    def welcome(self) -> Welcome: ...

    def open_agent(
        self,
        session: LocalSession,
        request: int,
        name: str,
        attributes: Mapping[str, AttributeValue],
    ) -> None:
        """Answer once with `session.agent_opened` or `session.agent_refused`."""

    def spawn_agent(
        self,
        session: LocalSession,
        request: int,
        parent: str,
        name: str,
        attributes: Mapping[str, AttributeValue],
        ttl_s: int,
    ) -> None:
        """Like ``open_agent``, of an agent below the one that is called ``parent``."""

    def is_child(self, name: str) -> bool:
        """Whether an agent of this name was spawned by another one."""

    def close_agent(self, session: LocalSession, agent: int) -> None:
        """The session answers the Receipt itself. Not called for agents of a closed session."""

    def send_batch(self, session: LocalSession, sends: list[Send]) -> None:
        """Consecutive messages, in the order in which they were sent; never empty.

        Each is accepted or refused before this returns, or else keeps its place: a Flush behind
        it is answered at once. With `request` 0 only a failure is told: Failed with request 0.
        """

    def send_run(self, session: LocalSession, run: TellRun) -> None:
        """Tells in the order in which they were sent, each as a Send with ``request`` 0."""

    def listen(self, session: LocalSession, agent: int, on: bool) -> None: ...

    def answer(self, session: LocalSession, answer: Answer) -> None: ...

    def refuse(self, session: LocalSession, refusal: Refuse) -> None: ...

    def session_writable(self, session: LocalSession) -> None:
        """The session can take deliveries again."""

    def session_closed(self, session: LocalSession) -> None:
        """Called once for each session that said Hello. All its agents are closed with it."""


def failure(
    request: int, code: Code, message: str = "", *, rule: str | None = None, agent: int = 0
) -> Failed:
    """The Failed frame for a code, with the remedy that belongs to it."""
    # Longer texts, or text that is no Unicode, would cost the agent its connection.
    message = message[:TEXT_CHARACTERS_MAX].encode(errors="replace").decode()
    return Failed(request, code.text, message, rule, code.remedy, agent)
