"""A sealed byte stream's two ends, and a path that loses, changes and ends what it carries."""

from typing import Final

from channel import (
    ChannelStateError,
    RekeyLimits,
    Role,
    StreamData,
    StreamEvent,
    StreamFinished,
    StreamReset,
    StreamSecret,
    StreamSession,
    StreamState,
)
from channel.limits import CHUNK_BYTES_MAX, CHUNK_LENGTH_BYTES, STREAM_UNSENT_BYTES_MAX
from identity import Code
from tests.channel.test_stream import BINDING
from tests.fuzz.machines import machine_target
from tests.fuzz.program import Program
from tests.fuzz.target import Target

SIZES: Final = (0, 1, 30, 5_000, 65_505, 66_000, 700_000)


class StreamEnd:
    """One side, with what it wrote and what it was told."""

    def __init__(self, session: StreamSession) -> None:
        self.session = session
        self.written = bytearray()
        self.read = bytearray()
        self.has_finished = False
        self.has_reset = False
        self.finished = 0
        self.resets: list[StreamReset] = []

    def hear(self, events: list[StreamEvent]) -> None:
        for event in events:
            assert not self.resets, "an event after the stream broke"
            match event:
                case StreamData(data):
                    assert data
                    assert not self.finished, "data behind the end"
                    self.read += data
                case StreamFinished():
                    self.finished += 1
                case StreamReset():
                    self.resets.append(event)


class StreamMachine:
    """The opener and the other side; bytes on their way keep no boundaries."""

    def __init__(self) -> None:
        ours, raw = StreamSecret.generate()
        limits = RekeyLimits(records_max=4, age_s_max=float("inf"))
        self.ends = tuple(
            StreamEnd(StreamSession(role, secret, limits=limits, **BINDING))
            for role, secret in (
                (Role.INITIATOR, ours),
                (Role.RESPONDER, StreamSecret(raw)),
            )
        )
        self.way = (bytearray(), bytearray())
        self.is_touched = [False, False]

    def say(self, number: int, data: bytes) -> None:
        self.way[number].extend(data)

    def check(self) -> None:
        for number, end in enumerate(self.ends):
            self.say(number, end.session.take_output())
            other = self.ends[1 - number]
            assert end.read == other.written[: len(end.read)], "what was read was not written"
            assert end.finished <= 1
            assert not end.finished or other.has_finished, "an end that nobody said"
            if end.finished:
                assert end.read == other.written, "an end before the last byte"
            assert not any(one.sealed for one in end.resets) or other.has_reset
            session = end.session
            assert len(session._incoming) < CHUNK_LENGTH_BYTES + CHUNK_BYTES_MAX
            assert session._unsent_bytes <= STREAM_UNSENT_BYTES_MAX

    def finish(self) -> None:
        """Once the stream below is over, a side knows that it has all, or that it has not."""
        for end in self.ends:
            last = end.session.quic_ended()
            if last is not None:
                end.hear([last])
            assert end.session.receiving in (StreamState.FINISHED, StreamState.BROKEN)
            if end.session.receiving is StreamState.BROKEN:
                assert end.session.feed_untrusted(b"more") == []
                assert end.session.reset(Code.STREAM_RESET) == b""


def write(machine: StreamMachine, program: Program) -> None:
    number = program.below(2)
    end = machine.ends[number]
    data = bytes([program.byte()]) * program.choose(SIZES)
    try:
        machine.say(number, end.session.write(data))
    except ChannelStateError:
        return
    end.written += data


def finish(machine: StreamMachine, program: Program) -> None:
    number = program.below(2)
    end = machine.ends[number]
    try:
        machine.say(number, end.session.finish())
    except ChannelStateError:
        return
    end.has_finished = True


def reset(machine: StreamMachine, program: Program) -> None:
    number = program.below(2)
    end = machine.ends[number]
    machine.say(number, end.session.reset(program.choose((Code.STREAM_RESET, Code.STREAM_LIMIT))))
    end.has_reset = True


def carry(machine: StreamMachine, program: Program) -> None:
    number = program.below(2)
    count = program.choose((1, 2, 50, 70_000, 1 << 30))
    way = machine.way[number]
    piece = bytes(way[:count])
    del way[:count]
    to = machine.ends[1 - number]
    to.hear(to.session.feed_untrusted(piece))


def lose(machine: StreamMachine, program: Program) -> None:
    way = machine.way[program.below(2)]
    at = program.number(2) % (len(way) + 1)
    del way[at : at + program.byte()]


def change(machine: StreamMachine, program: Program) -> None:
    way = machine.way[program.below(2)]
    at = program.number(2) % (len(way) + 1)
    way[at : at + program.below(4)] = program.blob()


def end_below(machine: StreamMachine, program: Program) -> None:
    end = machine.ends[program.below(2)]
    last = end.session.quic_ended()
    if last is not None:
        end.hear([last])


OPERATIONS: Final = (write, finish, reset, carry, lose, change, end_below)
_BEGIN: Final = ("write", 0, 65, 2, "carry", 0, 4, "carry", 1, 4)

TARGETS: Final[list[Target]] = [
    machine_target(
        "machine.stream",
        "two ends of a byte stream and a path between them",
        StreamMachine,
        OPERATIONS,
        [
            (*_BEGIN, *(("write", 1, 66, 3, "carry", 1, 4) * 5), "finish", 1, "carry", 1, 4),
            (*_BEGIN, "write", 0, 1, 5, "finish", 0, "carry", 0, 3, "carry", 0, 4),
            ("write", 0, 1, 6, "write", 0, 2, 3, "finish", 0, "carry", 0, 4, "carry", 1, 4),
            (*_BEGIN, "reset", 0, 0, "carry", 0, 4, "end_below", 0, "end_below", 1),
            (*_BEGIN, "write", 0, 1, 2, "change", 0, 0, 9, 1, 7, 1, "carry", 0, 4),
        ],
        bytes_max=256,
    ),
]
