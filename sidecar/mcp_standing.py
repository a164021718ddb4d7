"""Whether MCP calls in flight may go on when another policy is in force.

Each is asked about with the requests that were permitted when it began, arguments included. They
are what the call holds anyway, and calls are few: both sides of the mesh bound them. No limit is
charged a second time.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from identity import VerifiedIdentity
from policy import Denial, Obligations, Permit
from sidecar.mcp_message import McpAsk
from sidecar.sweep import Sweep

AskAgain = Callable[[VerifiedIdentity, str, McpAsk], Permit | Denial]
"""(who is at the other end, service, ask) -> decision. A no is written down as an end of the
call."""


class CallCutError(Exception):
    """The policy in force denies a call that an older one has permitted."""

    def __init__(self, denial: Denial) -> None:
        super().__init__(denial.reason)
        self.denial = denial


@dataclass(slots=True, eq=False)
class LiveCall:
    """One call that policy has permitted, and the task that serves it."""

    service: str
    asks: tuple[McpAsk, ...]
    obligations: Obligations = field(default_factory=Obligations)
    """What the permits in force ask of its answer."""
    peer: VerifiedIdentity | None = None
    """None until a stream to the far agent is open."""
    is_stale: bool = False
    """It was permitted by an older policy, and could not be asked about without a peer."""
    denial: Denial | None = None
    task: asyncio.Task[object] | None = field(default_factory=asyncio.current_task)

    def cut(self, denial: Denial) -> None:
        self.denial = denial
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()  # It may wait for a server, or for a peer that takes nothing.


class CallStanding:
    """The calls in flight of one ingress or one egress."""

    def __init__(self, ask_again: AskAgain | None) -> None:
        """Without ``ask_again`` somebody else in this program asks about the same calls."""
        self._ask_again = ask_again
        self._live: dict[LiveCall, None] = {}
        self._sweep: Sweep[LiveCall] = Sweep(self._ask)
        self.changes = 0
        """How often another policy has come into force."""

    def __len__(self) -> int:
        return len(self._live)

    def policy_changed(self) -> None:
        """Calls that the new policy denies end, at once or soon; none of them says a word more."""
        self.changes += 1
        if self._ask_again is not None:
            self._sweep.begin(self._live)

    @contextmanager
    def serving(self, call: LiveCall) -> Iterator[None]:
        """Within it the call may be cut: it then ends with CallCutError, wherever it waits."""
        self._live[call] = None
        try:
            yield
        except asyncio.CancelledError:
            # Cancelled by us, and by nobody else meanwhile.
            if call.denial is None or call.task is None or call.task.uncancel() > 0:
                raise
            raise CallCutError(call.denial) from None
        finally:
            del self._live[call]
            self._sweep.forget(call)

    def found(self, call: LiveCall, peer: VerifiedIdentity) -> None:
        """The far agent is known now. Raises CallCutError, as ``check`` does."""
        call.peer = peer
        if call.is_stale and self._ask_again is not None:
            self._ask(call)
        self.check(call)

    def check(self, call: LiveCall) -> None:
        """Before anything of a call goes on. Raises CallCutError if it may not any more."""
        self._sweep.ask_now(call)
        if call.denial is not None:
            raise CallCutError(call.denial)

    def _ask(self, call: LiveCall) -> None:
        assert self._ask_again is not None
        if call.denial is not None:
            return
        if call.peer is None:
            call.is_stale = True
            return
        obligations = Obligations()
        for ask in call.asks:
            answer = self._ask_again(call.peer, call.service, ask)
            if isinstance(answer, Denial):
                call.cut(answer)
                return
            obligations = obligations.joined(answer.obligations)
        call.obligations = obligations
