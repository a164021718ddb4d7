"""The states of a hop and every legal move between them.

A move that is not in TRANSITIONS is an error: of the peer if a frame asked for it, of ours else.
"""

from collections.abc import Mapping
from enum import Enum, auto, unique
from types import MappingProxyType
from typing import Final


@unique
class HopState(Enum):
    DIALLING = auto()  # Ours: QUIC is not connected yet.
    ACCEPTING = auto()  # Theirs: QUIC is not connected yet.
    GREETED = auto()  # Ours: HOP_HELLO is sent.
    AWAITING = auto()  # Theirs: HOP_HELLO must come.
    REPLIED = auto()  # Theirs: HOP_REPLY is sent.
    VERIFIED = auto()  # The peer is proved; its owner decides.
    PEER_ACCEPTED = auto()  # The same, and the peer has accepted us already.
    ACCEPTED = auto()  # We have accepted the peer; its HOP_ACCEPT must come.
    OPEN = auto()
    CLOSED = auto()


@unique
class HopInput(Enum):
    CONNECTED = auto()
    HELLO = auto()
    REPLY = auto()
    FINISH = auto()
    PERMIT = auto()
    PEER_ACCEPT = auto()
    CLOSE = auto()


_S = HopState
_I = HopInput

TRANSITIONS: Final[Mapping[tuple[HopState, HopInput], HopState]] = MappingProxyType(
    {
        (_S.DIALLING, _I.CONNECTED): _S.GREETED,
        (_S.GREETED, _I.REPLY): _S.VERIFIED,
        (_S.ACCEPTING, _I.CONNECTED): _S.AWAITING,
        (_S.AWAITING, _I.HELLO): _S.REPLIED,
        (_S.REPLIED, _I.FINISH): _S.VERIFIED,
        (_S.VERIFIED, _I.PERMIT): _S.ACCEPTED,
        (_S.VERIFIED, _I.PEER_ACCEPT): _S.PEER_ACCEPTED,
        (_S.ACCEPTED, _I.PEER_ACCEPT): _S.OPEN,
        (_S.PEER_ACCEPTED, _I.PERMIT): _S.OPEN,
        **{(state, _I.CLOSE): _S.CLOSED for state in _S},
    }
)

PERMITTED: Final = frozenset({_S.ACCEPTED, _S.OPEN})
"""States in which our owner has let the peer in."""

DECIDABLE: Final = frozenset({_S.VERIFIED, _S.PEER_ACCEPTED})
"""States in which our owner may accept or refuse."""


def next_state(state: HopState, input_: HopInput) -> HopState | None:
    """Return where the input leads, or None if it is not legal here."""
    return TRANSITIONS.get((state, input_))
