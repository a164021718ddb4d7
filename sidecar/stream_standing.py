"""Whether byte streams may go on when another policy is in force: asked again little by little, or
when something is to go over one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from channel import StreamOpen
from policy import Denial, Party, Permit
from sidecar.decisions import SidecarDecisions
from sidecar.mesh_stream import MeshStream
from sidecar.sealed_stream import SealedStream
from sidecar.slot import ChannelSlot
from sidecar.sweep import Sweep


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


@dataclass(frozen=True, slots=True)
class OpenStream:
    """A stream on a channel. Two of one stream are equal."""

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
        self._sweep: Sweep[LiveStream] = Sweep(self._ask)

    def ask_all(self, streams: Iterable[LiveStream]) -> None:
        """Another policy is in force. Whoever waits for an older one is asked about this one; those
        that are named last come first."""
        self._sweep.begin(streams)

    def ask_expected(self, expected: ExpectedStream) -> None:
        """It begins: by the policy in force."""
        self._sweep.ask_now(expected)

    def ask_open(self, stream: SealedStream) -> None:
        """Something is to go over it. If the policy in force denies that, the stream is reset."""
        if self._sweep:
            self._sweep.ask_now(OpenStream(stream))

    def _ask(self, stream: LiveStream) -> None:
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


def _request_on(slot: ChannelSlot, service: str, *, ours: bool) -> StreamRequest:
    own, peer = slot.agent.party, Party.from_verified(slot.peer.identity)
    subject, target = (own, peer) if ours else (peer, own)
    return StreamRequest(subject, target, service, slot.expires_unix_s)
