"""Records that tell the owner something and change nothing in the channel itself."""

from channel.errors import ChannelError
from channel.events import (
    AddressesReceived,
    ChannelEvent,
    PeerRenewed,
    SignalReceived,
    StreamOpenReceived,
)
from channel.handshake import VerifyPeer
from channel.wire import RecordType, Signal, decode_addresses_untrusted
from identity import Code, SidelinkError, VerifiedPeer


def told_untrusted(type_: RecordType, body: bytes) -> list[ChannelEvent]:
    """What a record of this type says; of a type that says nothing, nothing."""
    match type_:
        case RecordType.STREAM_OPEN:
            return [StreamOpenReceived(body)]
        case RecordType.ADDRESSES:
            return [AddressesReceived(decode_addresses_untrusted(body))]
        case RecordType.REST | RecordType.WAKE | RecordType.LEAVING:
            if body:
                raise ChannelError(Code.CHANNEL_BAD_RECORD, f"{type_.name} with a body")
            return [SignalReceived(Signal(type_))]
        case _:
            return []


def renewed_untrusted(verify: VerifyPeer, peer: VerifiedPeer, proof: bytes) -> PeerRenewed:
    """Verify a newer proof of the same peer, for the Noise key that its handshake showed.

    Raises ChannelError for a proof that does not hold, or that is somebody else's: a channel never
    changes its peer, nor its name.
    """
    try:
        newer = verify(proof, peer.noise_key.raw)
    except SidelinkError as exc:
        raise ChannelError(exc.code, exc.detail) from exc
    if newer.identifier != peer.identifier or newer.name != peer.name:
        raise ChannelError(Code.CHANNEL_WRONG_NAME, "a renewal by somebody else")
    return PeerRenewed(newer)
