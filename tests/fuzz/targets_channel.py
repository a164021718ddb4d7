"""Targets of channel/: the wire of sealed sessions, records, messages, and the handshake itself."""

from typing import Any, Final

from channel import (
    ChannelError,
    Handshake,
    Prologue,
    RecordType,
    RekeyLimits,
    Role,
    StreamOpen,
    decode_stream_open_untrusted,
    encode_stream_open,
)
from channel.kem import MlKem768
from channel.limits import (
    FRAGMENT_BYTES_MIN,
    KEM_CIPHERTEXT_BYTES,
    MESSAGE_BYTES_MAX,
    RECORD_PLAINTEXT_BYTES_MAX,
)
from channel.messages import MessageAssembler, fragments_of
from channel.records import RecordReader, RecordWriter
from channel.wire import (
    FLAG_MORE,
    Denial,
    Move,
    Moved,
    RecordHeader,
    choose_version_untrusted,
    decode_addresses_untrusted,
    decode_code_untrusted,
    decode_denial_untrusted,
    decode_header_untrusted,
    decode_move_untrusted,
    decode_moved_untrusted,
    decode_position_untrusted,
    encode_addresses,
    encode_code,
    encode_denial,
    encode_header,
    encode_move,
    encode_moved,
    encode_position,
)
from cli.demo.plain_codec import PlainCodec
from identity import Code, cbor
from tests.channel.helpers import (
    ALICE,
    BOB,
    MALLORY,
    channel_prologue,
    new_handshake,
    run_handshake,
)
from tests.fuzz.decoders import decoder, tree_of
from tests.fuzz.fakes import tagged_cipher
from tests.fuzz.program import Program, blob
from tests.fuzz.target import Target

_TAG: Final = bytes(16)
_SHORT_KEYS: Final = RekeyLimits(records_max=5)
_SEALED: Final = (RecordType.DATA, RecordType.STREAM_OPEN, RecordType.CLOSE)


def _encode_read_denial(denial: Denial) -> bytes | None:
    """A code that nobody knows yet is read as another number."""
    return None if denial.code is Code.PEER_ERROR_UNKNOWN else encode_denial(denial)


def _encode_known_code(code: Code) -> bytes | None:
    return None if code is Code.PEER_ERROR_UNKNOWN else encode_code(code)


def run_prologue(data: bytes) -> None:
    """What a peer says of versions and target, as far as a prologue is made of it."""
    program = Program(data)
    offered = tuple(program.byte() for _ in range(1 + program.below(8)))
    version = choose_version_untrusted(offered)
    target = program.rest().decode("ascii", "replace")[:60]
    encoded = Prologue(
        purpose="channel", target=target, nonce=bytes(16), versions=offered, version=version
    ).encode()
    assert cbor.decode_untrusted(encoded, bytes_max=4_096)[2] == list(offered)


def run_records(data: bytes) -> None:
    """Records sealed in order and carried by somebody who may change, repeat and drop them.

    The first byte chooses the cipher: one that notices changes, or the demonstration's, which
    protects nothing, so that what is changed is read as well.
    """
    program = Program(data)
    cipher = program.choose((tagged_cipher, PlainCodec))
    writer = RecordWriter(cipher(), _SHORT_KEYS, 0.0)
    reader = RecordReader(cipher(), _SHORT_KEYS)
    sealed: list[bytes] = []
    opened = 0
    while not program.is_over:
        act = program.below(6)
        if act == 0 or not sealed:
            sealed += writer.seal(program.choose(_SEALED), program.blob(), 0.0)
            continue
        record = sealed.pop(0)
        if act == 1:
            record = sealed.pop() if sealed else record
        elif act == 2:
            at = program.number(2) % len(record)
            record = record[:at] + program.blob() + record[at + program.below(4) :]
        elif act == 3:
            continue
        header, _ = reader.open_untrusted(record)
        opened += header.type is not RecordType.REKEY
        if act == 4:
            sealed.insert(0, record)
    assert opened <= len(data)


def _records() -> list[bytes]:
    seal, carry, carry_twice = b"\0\0" + blob(b"abc"), b"\5", b"\4"
    many = (seal + carry) * 12
    return [b"\0" + many, b"\1" + many, b"\0" + many + seal + carry_twice + carry]


def run_assembler(data: bytes) -> None:
    """Bodies of DATA records in any order and size; what is held stays bounded."""
    program = Program(data)
    assembler = MessageAssembler()
    while not program.is_over:
        size = program.choose((0, 1, FRAGMENT_BYTES_MIN - 1, FRAGMENT_BYTES_MIN, 60_000))
        body = bytes([program.byte()]) * size
        is_last = program.below(3) == 0
        message = assembler.add_untrusted(body, 0 if is_last else FLAG_MORE)
        assert (message is not None) == is_last
        assert message is None or len(message) <= MESSAGE_BYTES_MAX
        assert assembler.is_between_fragments != is_last
        assert sum(map(len, assembler._fragments)) <= MESSAGE_BYTES_MAX


def run_fragments(data: bytes) -> None:
    """Our own messages, cut and put together again."""
    program = Program(data)
    length = program.number(3) % (MESSAGE_BYTES_MAX + 1)
    message = (program.rest() or b"\0") * (length // max(1, len(data)) + 1)
    message = message[:length]
    assembler = MessageAssembler()
    found = None
    for body, flags in fragments_of(message):
        assert found is None
        assert len(body) <= RECORD_PLAINTEXT_BYTES_MAX
        found = assembler.add_untrusted(bytes(body), flags)
    assert found == message


def _new_pair() -> tuple[Handshake, Handshake]:
    return new_handshake(Role.INITIATOR, ALICE), new_handshake(Role.RESPONDER, BOB)


def run_handshake_messages(data: bytes) -> None:
    """Real handshakes; the program says which of the three messages is changed, and how."""
    program = Program(data)
    initiator, responder = _new_pair()
    first = _carried(initiator.write_1(), program)
    responder.read_1_untrusted(first)
    second = _carried(responder.write_2(), program)
    initiator.read_2_untrusted(second)
    third = _carried(initiator.write_3(), program)
    peer = responder.read_3_untrusted(third)
    assert peer.identifier == ALICE.identifier
    ours, theirs = initiator.into_session(), responder.into_session()
    assert ours.handshake_hash == theirs.handshake_hash
    header = encode_header(RecordHeader(RecordType.DATA, 0, 0, 0))
    record = ours.send.seal(header, b"a first word")
    assert theirs.receive.open_untrusted(header, _carried(record, program)) == b"a first word"


def _carried(message: bytes, program: Program) -> bytes:
    """One message, as somebody between may have changed it. 0 leaves it alone."""
    act = program.below(6)
    at = program.number(2) % len(message) if act else 0
    match act:
        case 1:
            return message[:at] + bytes([message[at] ^ 1 << program.below(8)]) + message[at + 1 :]
        case 2:
            return message[:at]
        case 3:
            return message + program.blob()
        case 4:
            return message[:at] + program.blob() + message[at:]
        case 5:
            return _from_another(program)
    return message


def _from_another(program: Program) -> bytes:
    """A whole message of other people's handshake, or one of the wrong number."""
    other = new_handshake(Role.INITIATOR, MALLORY, channel_prologue(BOB.uri))
    responder = new_handshake(Role.RESPONDER, BOB)
    first = other.write_1()
    responder.read_1_untrusted(first)
    second = responder.write_2()
    other.read_2_untrusted(second)
    return program.choose((first, second, other.write_3(), b""))


def run_kem(data: bytes) -> None:
    """A key and a ciphertext of the peer's, of any length and content."""
    kem = MlKem768()
    program = Program(data)
    if program.below(2):
        secret, ciphertext = kem.encapsulate_untrusted(_public_key(program))
        assert (len(secret), len(ciphertext)) == (32, KEM_CIPHERTEXT_BYTES)
    else:
        _, ciphertext = kem.encapsulate_untrusted(_KEM_KEY.public_bytes)
        assert len(_KEM_KEY.decapsulate_untrusted(_changed(ciphertext, program))) == 32


_KEM_KEY: Final[Any] = MlKem768().generate()


def _public_key(program: Program) -> bytes:
    return _changed(_KEM_KEY.public_bytes, program)


def _changed(data: bytes, program: Program) -> bytes:
    while not program.is_over:
        at = program.number(2) % (len(data) + 1)
        data = data[:at] + program.blob() + data[at + program.byte() :]
    return data


def honest_handshake() -> tuple[Handshake, Handshake]:
    """For tests: what the seeds of the handshake's target do."""
    pair = _new_pair()
    run_handshake(*pair)
    return pair


_DENIAL: Final = decoder(
    "channel.denial",
    "the body of DENY",
    decode_denial_untrusted,
    lambda: [encode_denial(Denial(Code.POLICY_DENIED, "a rule", "a reason"))],
    error=ChannelError,
    encode=_encode_read_denial,
)
_STREAM_OPEN: Final = decoder(
    "channel.stream_open",
    "the body of STREAM_OPEN",
    decode_stream_open_untrusted,
    lambda: [encode_stream_open(StreamOpen(1, "weather", bytes(32)))],
    error=ChannelError,
    encode=encode_stream_open,
)

_ADDRESSES: Final = decoder(
    "channel.addresses",
    "the body of ADDRESSES",
    decode_addresses_untrusted,
    lambda: [encode_addresses((("gw.acme.example", 7440), ("::1", 1)))],
    error=ChannelError,
    encode=encode_addresses,
)

TARGETS: Final[list[Target]] = [
    _ADDRESSES,
    tree_of(_ADDRESSES),
    decoder(
        "channel.move",
        "the wish to go on over another link",
        decode_move_untrusted,
        lambda: [encode_move(Move(bytes(16), 1, 2, bytes(32)))],
        error=ChannelError,
        encode=encode_move,
        bytes_max=128,
    ),
    decoder(
        "channel.moved",
        "the answer to that wish",
        decode_moved_untrusted,
        lambda: [encode_moved(Moved(2, bytes(32)))],
        error=ChannelError,
        encode=encode_moved,
        bytes_max=128,
    ),
    decoder(
        "channel.position",
        "the body of ACK",
        decode_position_untrusted,
        lambda: [encode_position(7)],
        error=ChannelError,
        encode=encode_position,
        bytes_max=32,
    ),
    decoder(
        "channel.header",
        "the header of a record",
        decode_header_untrusted,
        lambda: [encode_header(RecordHeader(RecordType.DATA, FLAG_MORE, 1, 2)) + _TAG],
        error=ChannelError,
        encode=None,
        bytes_max=128,
    ),
    decoder(
        "channel.code",
        "the body of CLOSE and RESET",
        decode_code_untrusted,
        lambda: [encode_code(Code.CHANNEL_CLOSED)],
        error=ChannelError,
        encode=_encode_known_code,
        bytes_max=16,
    ),
    _DENIAL,
    tree_of(_DENIAL),
    _STREAM_OPEN,
    tree_of(_STREAM_OPEN),
    Target(
        "channel.prologue",
        "offered versions and a target",
        run_prologue,
        lambda: [bytes([1, 1, 2]) + str(BOB.uri).encode()],
        ChannelError,
        bytes_max=300,
    ),
    Target(
        "channel.records",
        "records under short keys, changed, repeated and dropped",
        run_records,
        _records,
        ChannelError,
        is_program=True,
    ),
    Target(
        "channel.assembler",
        "fragments of messages",
        run_assembler,
        lambda: [bytes([3, 7, 1, 3, 7, 0, 0, 0, 0]), bytes([4, 1, 1] * 20)],
        ChannelError,
        bytes_max=128,
        is_program=True,
    ),
    Target(
        "channel.fragments",
        "messages of our own, cut and joined",
        run_fragments,
        lambda: [bytes(3) + b"abc", b"\x10\0\0a", b"\0\xff\xff" + bytes(64)],
        None,
        bytes_max=256,
        is_program=True,
    ),
    Target(
        "channel.handshake",
        "real handshakes with changed messages",
        run_handshake_messages,
        lambda: [bytes(4), bytes([1, 0, 40, 3]), bytes([0, 2, 0, 9]), bytes([0, 0, 5, 2])],
        ChannelError,
        bytes_max=64,
        is_program=True,
    ),
    Target(
        "channel.kem",
        "a peer's ML-KEM key and ciphertext",
        run_kem,
        lambda: [b"\0", b"\1"],
        ChannelError,
        bytes_max=64,
        is_program=True,
    ),
]
