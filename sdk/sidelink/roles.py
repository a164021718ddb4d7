"""What a connection asks of those who use it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from sidelink.errors import SidelinkError
from sidelink.wire import Deliver, DeliverRun, ServerFrame, TellRun

if TYPE_CHECKING:
    from sidelink.connection import Connection


class Call(Protocol):
    """A request that was sent. It is told once what became of it."""

    def answered(self, frame: ServerFrame) -> None: ...

    def failed(self, error: SidelinkError) -> None: ...

    def refused(self, error: SidelinkError) -> None:
        """The sidecar is stopping and has certainly not carried it out."""

    def lost(self, error: SidelinkError) -> None:
        """The connection ended first, so nobody knows."""


class Receiver(Protocol):
    """What an opened agent is to its connection."""

    def delivered(self, connection: "Connection", frame: Deliver | DeliverRun) -> None: ...

    def failed_unasked(self, error: SidelinkError) -> None: ...

    def over(self, error: SidelinkError) -> None:
        """The sidecar serves it no longer, on this connection or another."""

    def posted_answer(self) -> None:
        """An answer was posted, of which only failure is told."""

    def held(self, unsent: Sequence[TellRun | Call]) -> None:
        """Send nothing more until `resumed`. `unsent` was posted and had not left, in order."""

    def resumed(self) -> None: ...

    def leaving(self, connection: "Connection") -> None:
        """After `held`, and after each late answer: time to ask whether everything arrived."""


class Sender(Protocol):
    """Who posts tells: its number on this connection, and how many runs it has begun."""

    number: int
    posted: int
