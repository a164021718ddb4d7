"""What channels and streams tell their owner. Values, never callbacks."""

from dataclasses import dataclass, field

from channel.wire import Signal
from identity import Code, VerifiedPeer


@dataclass(frozen=True, slots=True)
class PeerVerified:
    """The peer has proved who it is. The responder's owner now decides: accept or deny."""

    peer: VerifiedPeer


@dataclass(frozen=True, slots=True)
class PeerRenewed:
    """The peer has shown a newer proof: the same identity and name, perhaps other attributes, and
    a later end. What was permitted on the old one is to be asked again."""

    peer: VerifiedPeer


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """Both sides have said yes: ours by accept(), or theirs by a sealed ACCEPT."""


@dataclass(frozen=True, slots=True)
class DataReceived:
    """One whole message, in the order in which the peer sent it."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StreamOpenReceived:
    payload: bytes = field(repr=False)  # It holds the stream's secret.


@dataclass(frozen=True, slots=True)
class AddressesReceived:
    """Where the peer's node says that it may be reached without a gateway: hosts and UDP ports."""

    addresses: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """The peer rests, wakes, or leaves."""

    signal: Signal


@dataclass(frozen=True, slots=True)
class ChannelDenied:
    """The peer's policy said no, under its seal. ChannelClosed follows."""

    code: Code
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """The channel is over, and why. Always the last event.

    ``sealed`` False means that the peer did not say so itself: what it last received, and
    whether it said no, is unknown, and the code is no more than what somebody between claims,
    or what we found ourselves.
    """

    code: Code
    sealed: bool


ChannelEvent = (
    PeerVerified
    | PeerRenewed
    | ChannelOpened
    | DataReceived
    | StreamOpenReceived
    | AddressesReceived
    | SignalReceived
    | ChannelDenied
    | ChannelClosed
)


@dataclass(frozen=True, slots=True)
class StreamData:
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StreamFinished:
    """The peer's sealed FIN: the only end-of-file there is."""


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The stream broke. ``sealed`` True: the peer said so; False: a fault, or an ending that
    nobody sealed, so what is missing is unknown."""

    code: Code
    sealed: bool


StreamEvent = StreamData | StreamFinished | StreamReset
