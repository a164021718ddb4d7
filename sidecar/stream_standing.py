"""Whether byte streams may go on when another policy is in force: asked again, little by little."""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from channel import StreamOpen
from policy import Denial, Party, Permit
from sidecar.decisions import SidecarDecisions
from sidecar.mesh_stream import MeshStream
from sidecar.sealed_stream import SealedStream
from sidecar.slot import ChannelSlot

# As for channels, in ``sidecar.standing``.
ASKED_SECONDS_MAX: Final = 0.003
ASK_SECONDS: Final = 0.001


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """Who opened a stream to whom, for what, and until when that is proved."""

    subject: Party
    target: Party
    service: str
    expires_unix_s: float


class LiveStream(Protocol):
    """A stream that policy has allowed, or is about to serve."""

    def request(self) -> StreamRequest | None:
        """None for one that has ended meanwhile."""
        ...

    def answered(self, answer: Permit | Denial) -> None: ...


@dataclass(slots=True, eq=False)
class ExpectedStream:
    """A stream that the peer announced and whose first byte has not come yet."""

    slot: ChannelSlot
    opening: StreamOpen
    answer: Permit | Denial

    def request(self) -> StreamRequest | None:
        return None if self.slot.dead else _request_on(self.slot, self.opening.service, ours=False)

    def answered(self, answer: Permit | Denial) -> None:
        self.answer = answer


@dataclass(frozen=True, slots=True, eq=False)
class OpenStream:
    """A stream on a channel."""

    stream: SealedStream

    def request(self) -> StreamRequest | None:
        stream = self.stream
        if stream.is_over or stream.slot.dead:
            return None
        return _request_on(stream.slot, stream.service, ours=stream.is_ours)

    def answered(self, answer: Permit | Denial) -> None:
        if isinstance(answer, Denial):
            self.stream.reset(answer.code)


@dataclass(frozen=True, slots=True, eq=False)
class LocalPair:
    """A stream between two agents of this sidecar."""

    asked: StreamRequest
    end: MeshStream

    def request(self) -> StreamRequest | None:
        return self.asked

    def answered(self, answer: Permit | Denial) -> None:
        if isinstance(answer, Denial):
            self.end.reset(answer.code)


class StreamStanding:
    """Asks about all streams of one sidecar."""

    def __init__(self, decisions: SidecarDecisions) -> None:
        self._decisions = decisions
        self._waiting: deque[LiveStream] = deque()

    def ask_all(self, streams: Iterable[LiveStream]) -> None:
        """Another policy is in force. Whoever waits for an older one is asked about this one."""
        was_busy = bool(self._waiting)
        self._waiting = deque(streams)
        if not was_busy:
            self._ask_some()

    def _ask_some(self) -> None:
        waiting, loop = self._waiting, asyncio.get_running_loop()
        until_s = loop.time() + ASKED_SECONDS_MAX
        while waiting and loop.time() < until_s:
            stream = waiting.popleft()
            asked = stream.request()
            if asked is not None:
                stream.answered(
                    self._decisions.stream_again(
                        asked.subject,
                        asked.target,
                        asked.service,
                        expires_unix_s=asked.expires_unix_s,
                    )
                )
        if waiting:
            loop.call_later(ASK_SECONDS, self._ask_some)


def _request_on(slot: ChannelSlot, service: str, *, ours: bool) -> StreamRequest:
    own, peer = slot.agent.party, Party.from_verified(slot.peer.identity)
    subject, target = (own, peer) if ours else (peer, own)
    return StreamRequest(subject, target, service, slot.expires_unix_s)
