"""The states of a handshake, a channel and a stream, and every legal move between them.

What is not in a table is an error, and no code elsewhere decides what is legal.
"""

from collections.abc import Mapping
from enum import Enum, auto, unique
from types import MappingProxyType
from typing import Final, TypeVar

from channel.errors import ChannelStateError
from identity import Code


@unique
class HandshakeState(Enum):
    OFFERING = auto()  # The initiator, before message 1.
    SENT_1 = auto()
    ANSWERED = auto()  # The initiator, with the responder verified.
    AWAITING = auto()  # The responder, before message 1.
    RECEIVED_1 = auto()
    SENT_2 = auto()
    VERIFIED = auto()
    CONSUMED = auto()
    FAILED = auto()


@unique
class HandshakeInput(Enum):
    WRITE_1 = auto()
    READ_2 = auto()
    WRITE_3 = auto()
    READ_1 = auto()
    WRITE_2 = auto()
    READ_3 = auto()
    CONSUME = auto()
    FAIL = auto()


_H = HandshakeState
_HI = HandshakeInput

HANDSHAKE_TRANSITIONS: Final[Mapping[tuple[HandshakeState, HandshakeInput], HandshakeState]] = (
    MappingProxyType(
        {
            (_H.OFFERING, _HI.WRITE_1): _H.SENT_1,
            (_H.SENT_1, _HI.READ_2): _H.ANSWERED,
            (_H.ANSWERED, _HI.WRITE_3): _H.VERIFIED,
            (_H.AWAITING, _HI.READ_1): _H.RECEIVED_1,
            (_H.RECEIVED_1, _HI.WRITE_2): _H.SENT_2,
            (_H.SENT_2, _HI.READ_3): _H.VERIFIED,
            (_H.VERIFIED, _HI.CONSUME): _H.CONSUMED,
            (_H.OFFERING, _HI.FAIL): _H.FAILED,
            (_H.SENT_1, _HI.FAIL): _H.FAILED,
            (_H.ANSWERED, _HI.FAIL): _H.FAILED,
            (_H.AWAITING, _HI.FAIL): _H.FAILED,
            (_H.RECEIVED_1, _HI.FAIL): _H.FAILED,
            (_H.SENT_2, _HI.FAIL): _H.FAILED,
            (_H.VERIFIED, _HI.FAIL): _H.FAILED,
            (_H.CONSUMED, _HI.FAIL): _H.CONSUMED,  # The session has left; nothing can fail here.
            (_H.FAILED, _HI.FAIL): _H.FAILED,
        }
    )
)


@unique
class ChannelState(Enum):
    NEW = auto()
    CONNECTING = auto()  # The initiator has sent message 1.
    RESPONDING = auto()  # The responder has sent message 2.
    VERIFIED = auto()  # The responder knows the peer and waits for its own permit.
    OPENING = auto()  # The initiator has sent message 3 and waits for the sealed ACCEPT.
    OPEN = auto()
    CLOSED = auto()


@unique
class ChannelInput(Enum):
    CONNECT = auto()  # Calls of the owner…
    PERMIT = auto()
    REFUSE = auto()
    SEND = auto()
    SAY = auto()  # ADDRESSES, RENEW, or a signal.
    CLOSE = auto()
    HANDSHAKE_1 = auto()  # …what the link brought…
    HANDSHAKE_2 = auto()
    HANDSHAKE_3 = auto()
    RECORD_DATA = auto()  # …and what an authentic record says.
    RECORD_ACCEPT = auto()
    RECORD_DENY = auto()
    RECORD_REKEY = auto()
    RECORD_STREAM_OPEN = auto()
    RECORD_ACK = auto()
    RECORD_ADDRESSES = auto()
    RECORD_SIGNAL = auto()
    RECORD_RENEW = auto()


_C = ChannelState
_CI = ChannelInput

CHANNEL_TRANSITIONS: Final[Mapping[tuple[ChannelState, ChannelInput], ChannelState]] = (
    MappingProxyType(
        {
            (_C.NEW, _CI.CONNECT): _C.CONNECTING,
            (_C.NEW, _CI.HANDSHAKE_1): _C.RESPONDING,
            (_C.CONNECTING, _CI.HANDSHAKE_2): _C.OPENING,
            (_C.RESPONDING, _CI.HANDSHAKE_3): _C.VERIFIED,
            (_C.VERIFIED, _CI.PERMIT): _C.OPEN,
            (_C.VERIFIED, _CI.REFUSE): _C.CLOSED,
            # What the initiator sends behind message 3 is opened, and held.
            (_C.VERIFIED, _CI.RECORD_DATA): _C.VERIFIED,
            (_C.VERIFIED, _CI.RECORD_REKEY): _C.VERIFIED,
            (_C.VERIFIED, _CI.RECORD_STREAM_OPEN): _C.VERIFIED,
            (_C.OPENING, _CI.SEND): _C.OPENING,
            (_C.OPENING, _CI.RECORD_ACCEPT): _C.OPEN,
            (_C.OPENING, _CI.RECORD_DENY): _C.CLOSED,
            (_C.OPEN, _CI.SEND): _C.OPEN,
            (_C.OPEN, _CI.SAY): _C.OPEN,
            (_C.OPEN, _CI.RECORD_ACK): _C.OPEN,
            (_C.OPEN, _CI.RECORD_ADDRESSES): _C.OPEN,
            (_C.OPEN, _CI.RECORD_SIGNAL): _C.OPEN,
            (_C.OPEN, _CI.RECORD_RENEW): _C.OPEN,
            (_C.OPEN, _CI.REFUSE): _C.CLOSED,
            (_C.OPEN, _CI.RECORD_DATA): _C.OPEN,
            (_C.OPEN, _CI.RECORD_REKEY): _C.OPEN,
            (_C.OPEN, _CI.RECORD_STREAM_OPEN): _C.OPEN,
            (_C.OPEN, _CI.RECORD_DENY): _C.CLOSED,
            **{(state, _CI.CLOSE): _C.CLOSED for state in _C},
        }
    )
)


@unique
class StreamState(Enum):
    """One direction of a byte stream."""

    STARTING = auto()  # Its first chunk, a handshake message, has not passed yet.
    FLOWING = auto()
    FINISHED = auto()  # FIN has passed: the only end-of-file.
    BROKEN = auto()  # A reset, a fault or an unsealed ending.


@unique
class StreamInput(Enum):
    HANDSHAKE = auto()
    DATA = auto()
    FIN = auto()
    RESET = auto()
    FAIL = auto()


_T = StreamState
_TI = StreamInput

STREAM_TRANSITIONS: Final[Mapping[tuple[StreamState, StreamInput], StreamState]] = MappingProxyType(
    {
        (_T.STARTING, _TI.HANDSHAKE): _T.FLOWING,
        (_T.FLOWING, _TI.DATA): _T.FLOWING,
        (_T.FLOWING, _TI.FIN): _T.FINISHED,
        (_T.FLOWING, _TI.RESET): _T.BROKEN,
        (_T.FINISHED, _TI.RESET): _T.BROKEN,
        **{(state, _TI.FAIL): _T.BROKEN for state in _T},
    }
)

_State = TypeVar("_State", bound=Enum)
_Input = TypeVar("_Input", bound=Enum)


def next_state(
    transitions: Mapping[tuple[_State, _Input], _State], state: _State, input_: _Input
) -> _State:
    """Raises ChannelStateError for a move that its table does not list."""
    try:
        return transitions[state, input_]
    except KeyError:
        closed = state in (ChannelState.CLOSED, StreamState.BROKEN, StreamState.FINISHED)
        code = Code.CHANNEL_CLOSED if closed else Code.LOCAL_INTERNAL
        raise ChannelStateError(code, f"{input_.name} while {state.name}") from None
