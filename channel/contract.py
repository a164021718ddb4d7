"""What a channel and its owner ask of each other: parts, permits, and what may be brought along."""

from collections.abc import Callable
from enum import Enum, auto, unique
from typing import Final, Protocol, TypedDict

from channel._noise import NoiseCipher, RecordCipher
from channel.errors import ChannelError
from channel.handshake import VerifyPeer
from channel.kem import Kem
from channel.limits import RekeyLimits
from channel.state import ChannelInput
from channel.wire import RecordType, decode_code_untrusted
from identity import Code, Identifier

PERMITTED_ACTIONS: Final = frozenset({"channel.open", "node.enrol"})
# What may be said, and believed as a hint, without a seal: why a link could not serve. Never
# what a policy, a mailbox or a service answered.
CLAIMABLE_GROUPS: Final = frozenset({"hop", "channel", "route"})

# What the owner of a state reads in the type of a record.
INPUT_OF_RECORD: Final = {
    RecordType.DATA: ChannelInput.RECORD_DATA,
    RecordType.ACCEPT: ChannelInput.RECORD_ACCEPT,
    RecordType.DENY: ChannelInput.RECORD_DENY,
    RecordType.REKEY: ChannelInput.RECORD_REKEY,
    RecordType.STREAM_OPEN: ChannelInput.RECORD_STREAM_OPEN,
    RecordType.ACK: ChannelInput.RECORD_ACK,
    RecordType.ADDRESSES: ChannelInput.RECORD_ADDRESSES,
    RecordType.RENEW: ChannelInput.RECORD_RENEW,
    RecordType.REST: ChannelInput.RECORD_SIGNAL,
    RecordType.WAKE: ChannelInput.RECORD_SIGNAL,
    RecordType.LEAVING: ChannelInput.RECORD_SIGNAL,
    RecordType.CLOSE: ChannelInput.CLOSE,
}


@unique
class Part(Enum):
    """What a link carries for a channel; each is one kind of frame."""

    OPEN = auto()
    ACCEPT = auto()
    FINISH = auto()
    RECORD = auto()
    CLOSE = auto()


class ChannelPermit(Protocol):
    """Proof that policy said yes to this peer."""

    @property
    def subject(self) -> Identifier | None: ...
    @property
    def action(self) -> str: ...


MakeCipher = Callable[[NoiseCipher], RecordCipher]


class ChannelOptions(TypedDict, total=False):
    """What a test, or another composition, may bring. ``make_cipher`` may wrap each direction.

    ``verify_renewal`` judges newer proofs of a peer that has been let in; ``verify`` does unless it
    is given.
    """

    limits: RekeyLimits
    kem: Kem
    make_cipher: MakeCipher
    verify_renewal: VerifyPeer


def cipher_as_it_is(cipher: NoiseCipher) -> RecordCipher:
    return cipher


def believed_claim_untrusted(body: bytes) -> Code:
    """What to believe of a close that nobody sealed: a hint at most."""
    try:
        code = decode_code_untrusted(body)
    except ChannelError:
        return Code.CHANNEL_UNSEALED_END
    if code is Code.CHANNEL_CLOSED or code.group not in CLAIMABLE_GROUPS:
        return Code.CHANNEL_UNSEALED_END
    return code
