"""Sealed sessions between two identities: handshakes, channels and byte streams. No I/O."""

from channel._noise import Role
from channel.errors import ChannelError, ChannelStateError
from channel.handshake import Handshake, Session, VerifyPeer
from channel.kem import Kem, KemPrivateKey, MlKem768
from channel.state import HandshakeState
from channel.wire import Prologue, RecordType, choose_version_untrusted

__all__ = [
    "ChannelError",
    "ChannelStateError",
    "Handshake",
    "HandshakeState",
    "Kem",
    "KemPrivateKey",
    "MlKem768",
    "Prologue",
    "RecordType",
    "Role",
    "Session",
    "VerifyPeer",
    "choose_version_untrusted",
]
