"""Sealed sessions between two identities: handshakes, channels and byte streams. No I/O."""

from channel._noise import NoiseCipher, RecordCipher, Role
from channel.channel import Channel
from channel.contract import ChannelOptions, ChannelPermit, MakeCipher, Part
from channel.errors import ChannelError, ChannelStateError
from channel.events import (
    AddressesReceived,
    ChannelClosed,
    ChannelDenied,
    ChannelEvent,
    ChannelOpened,
    DataReceived,
    PeerRenewed,
    PeerVerified,
    SignalReceived,
    StreamData,
    StreamEvent,
    StreamFinished,
    StreamOpenReceived,
    StreamReset,
)
from channel.handshake import Handshake, Session, VerifyPeer
from channel.kem import Kem, KemPrivateKey, MlKem768
from channel.limits import MESSAGE_BYTES_MAX, STREAM_OPEN_BYTES_MAX, RekeyLimits
from channel.state import ChannelState, HandshakeState, StreamState
from channel.stream import StreamSecret, StreamSession
from channel.wire import (
    Prologue,
    RecordType,
    Signal,
    StreamOpen,
    choose_version_untrusted,
    decode_stream_open_untrusted,
    encode_stream_open,
)

__all__ = [
    "MESSAGE_BYTES_MAX",
    "STREAM_OPEN_BYTES_MAX",
    "AddressesReceived",
    "Channel",
    "ChannelClosed",
    "ChannelDenied",
    "ChannelError",
    "ChannelEvent",
    "ChannelOpened",
    "ChannelOptions",
    "ChannelPermit",
    "ChannelState",
    "ChannelStateError",
    "DataReceived",
    "Handshake",
    "HandshakeState",
    "Kem",
    "KemPrivateKey",
    "MakeCipher",
    "MlKem768",
    "NoiseCipher",
    "Part",
    "PeerRenewed",
    "PeerVerified",
    "Prologue",
    "RecordCipher",
    "RecordType",
    "RekeyLimits",
    "Role",
    "Session",
    "Signal",
    "SignalReceived",
    "StreamData",
    "StreamEvent",
    "StreamFinished",
    "StreamOpen",
    "StreamOpenReceived",
    "StreamReset",
    "StreamSecret",
    "StreamSession",
    "StreamState",
    "VerifyPeer",
    "choose_version_untrusted",
    "decode_stream_open_untrusted",
    "encode_stream_open",
]
