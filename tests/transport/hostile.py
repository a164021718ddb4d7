"""A proved peer that turns hostile: it says in QUIC what no honest engine says.

Its hop is opened by aioquic, whose keys then seal packets that are written here, frame by frame.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aioquic.tls import Epoch

from tests.transport.helpers import Owner, endpoint, make_identity
from transport import Endpoint, Hop, HopPurpose

DATAGRAM_BYTES = 1_400
_OVERHEAD_BYTES = 1 + 8 + 2 + 16
LANE = 4


def varint(value: int, size: int = 0) -> bytes:
    """RFC 9000, section 16; ``size`` of 0 takes the shortest form."""
    for bits, prefix in ((6, 0), (14, 1), (30, 2), (62, 3)):
        length = 1 << prefix
        if value < 1 << bits and length >= size:
            return (value | prefix << (8 * length - 2)).to_bytes(length, "big")
    raise ValueError(value)


def stream_frame(stream: int, offset: int, data: bytes) -> bytes:
    return b"\x0e" + varint(stream) + varint(offset) + varint(len(data)) + data


def crypto_frame(offset: int, data: bytes) -> bytes:
    return b"\x06" + varint(offset) + varint(len(data)) + data


def retire_frame(sequence: int) -> bytes:
    return b"\x19" + varint(sequence)


def new_id_frame(sequence: int, retire_prior_to: int) -> bytes:
    number = sequence.to_bytes(8, "big")
    return b"\x18" + varint(sequence) + varint(retire_prior_to) + b"\x08" + number + number * 2


def challenge_frame(number: int) -> bytes:
    return b"\x1a" + number.to_bytes(8, "big")


def blocked_frame(limit: int) -> bytes:
    return b"\x14" + varint(limit)


def max_data_frame(limit: int) -> bytes:
    return b"\x10" + varint(limit, 8)


def stop_frame(stream: int) -> bytes:
    return b"\x05" + varint(stream) + varint(1)


PING = b"\x01"


@dataclass
class Hostile:
    """The dialler's end of an open hop, and what the honest acceptor makes of it."""

    near: Endpoint
    target: Endpoint
    hop: Hop
    dialler: Owner
    acceptor: Owner
    sent_bytes: int = 0
    _frames: list[bytes] = field(default_factory=list)
    _size: int = 0

    @property
    def connection(self) -> Any:
        return self.hop._carrier._engine._connection  # type: ignore[attr-defined]

    def say(self, frame: bytes) -> None:
        """Put a frame into the packet that is being filled; send it when it is full."""
        if self._size + len(frame) > DATAGRAM_BYTES - _OVERHEAD_BYTES:
            self.send()
        self._frames.append(frame)
        self._size += len(frame)

    def send(self) -> None:
        """Send what was said, sealed as any 1-RTT packet is."""
        payload = b"".join(self._frames).ljust(4, b"\0")
        self._frames, self._size = [], 0
        connection = self.connection
        keys = connection._cryptos[Epoch.ONE_RTT]
        self.sent_bytes += len(payload) + _OVERHEAD_BYTES
        if not keys.send.is_valid():
            return  # The other side has closed, and this one has heard of it.
        number = connection._packet_number
        connection._packet_number += 1
        header = bytes([0x41 | keys.key_phase << 2]) + connection._peer_cid.cid
        header += (number & 0xFFFF).to_bytes(2, "big")
        datagram = keys.encrypt_packet(header, payload, number)
        self.near.udp.send([(datagram, self.target.address)])

    def fall_silent(self) -> None:
        """Read nothing any more, and so acknowledge nothing."""
        self.near.loop.remove_reader(self.near.udp._socket.fileno())

    @property
    def is_cut(self) -> bool:
        return self.acceptor.code is not None


@asynccontextmanager
async def hostile(
    engine: str, *, is_accepted: bool = True, **settings: Any
) -> AsyncIterator[Hostile]:
    """A hop to an acceptor on ``engine``. ``is_accepted``: its owner has let the peer in."""
    decide: Callable[[Hop], None] | None = None if is_accepted else lambda hop: None
    owner, dialler = Owner(decide=decide), Owner()
    async with (
        endpoint(owner, engine=engine, **settings) as target,
        endpoint(dialler, make_identity("d"), engine="aioquic", datagram_bytes=1_452) as near,
    ):
        hop = near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
        await owner.wait_for("opened" if is_accepted else "verified")
        if is_accepted:
            await dialler.wait_for("opened")
        yield Hostile(near, target, hop, dialler, owner)
