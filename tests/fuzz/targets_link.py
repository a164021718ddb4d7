"""Targets of link/: frames in pieces, and every message that a frame's body holds."""

from typing import Any, Final

from identity import AgentUri, Code, Identifier, NamePrefix
from link import Frame, FrameError, FrameKind, FrameParser, encode_frame
from link.limits import FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES, STREAM_PREAMBLE_BYTES
from link.messages import (
    Credit,
    HopHello,
    HopLimits,
    LinkOpen,
    PrefixEpoch,
    StreamPreamble,
    decode_code_untrusted,
    decode_credit_untrusted,
    decode_hop_accept_untrusted,
    decode_hop_hello_untrusted,
    decode_hop_reply_untrusted,
    decode_link_open_untrusted,
    decode_prefix_epoch_untrusted,
    decode_prefix_untrusted,
    decode_restarting_untrusted,
    decode_stream_preamble_untrusted,
    encode_code,
    encode_credit,
    encode_hop_accept,
    encode_hop_hello,
    encode_hop_reply,
    encode_link_open,
    encode_prefix,
    encode_prefix_epoch,
    encode_restarting,
    encode_stream_preamble,
    parse_target_untrusted,
)
from link.trust_messages import (
    DocumentPart,
    Held,
    decode_held_untrusted,
    decode_part_untrusted,
    encode_held,
    encode_part,
)
from tests.fuzz.decoders import decoder, tree_of
from tests.fuzz.program import pieces, text_of
from tests.fuzz.target import Target, check_same

NODE: Final = Identifier(bytes(range(32)))
ALICE: Final = AgentUri.parse("agent://acme/alpha/alice")
BOB: Final = AgentUri.parse("agent://acme/beta/bob")
PREFIX: Final = NamePrefix.parse("agent://acme/alpha")


def run_frames(data: bytes) -> None:
    """The first byte is the length of a piece. Pieces and the whole must read alike."""
    body = data[1:]
    whole, whole_fault = _parse([body])
    cut, cut_fault = _parse(pieces(body, data[0] if data else 0))
    assert cut == whole, "the same bytes in pieces are other frames"
    assert (cut_fault is None) == (whole_fault is None), "only some pieces are refused"
    encoded = b"".join(encode_frame(frame.link, frame.kind, frame.body) for frame in whole)
    check_same(encoded, body[: len(encoded)])
    if whole_fault is not None:
        raise whole_fault


def _parse(parts: list[bytes]) -> tuple[list[Frame], FrameError | None]:
    parser = FrameParser()
    frames: list[Frame] = []
    for part in parts:
        try:
            frames += parser.feed_untrusted(part)
        except FrameError as error:
            # What came before the fault may have been handed over with it or not, by the pieces.
            return [], error
        assert parser.held_bytes < FRAME_HEADER_BYTES + FRAME_BODY_BYTES_MAX
    return frames, None


def _frames() -> list[bytes]:
    some = b"".join(
        encode_frame(link, kind, body)
        for link, kind, body in (
            (0, FrameKind.HOP_ACCEPT, encode_hop_accept(1, HopLimits(10))),
            (1, FrameKind.LANE_OPEN, b""),
            (5, FrameKind.RECORD, bytes(40)),
            (5, FrameKind.CREDIT, encode_credit(Credit(0, 1 << 20))),
        )
    )
    return [b"\0" + some, b"\1" + some, b"\7" + some]


def _opening(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "target": BOB,
        "source": ALICE,
        "nonce": bytes(16),
        "source_node": None,
        "noise_1": bytes(48),
    }
    return encode_link_open(LinkOpen(**(fields | changes)))


def _encode_known_limits(value: tuple[int, HopLimits]) -> None:
    """Unknown keys of the limits are for later versions, so there are many encodings."""
    epoch, limits = value
    encode_hop_accept(epoch, limits)


def _encode_known_code(code: Code) -> bytes | None:
    """Numbers that nobody knows yet are all read as one."""
    return None if code is Code.PEER_ERROR_UNKNOWN else encode_code(code)


_HELLO: Final = HopHello("admit", str(NODE), bytes(16), bytes(48))
_BODIES: Final = (
    decoder(
        "link.open",
        "LINK_OPEN",
        decode_link_open_untrusted,
        lambda: [_opening(), _opening(target=NODE, source=NODE, source_node=NODE, versions=(1, 2))],
        error=FrameError,
        encode=encode_link_open,
    ),
    decoder(
        "link.hello",
        "HOP_HELLO",
        decode_hop_hello_untrusted,
        lambda: [encode_hop_hello(_HELLO)],
        error=FrameError,
        encode=encode_hop_hello,
    ),
    decoder(
        "link.reply",
        "HOP_REPLY",
        decode_hop_reply_untrusted,
        lambda: [encode_hop_reply(bytes(80))],
        error=FrameError,
        encode=lambda value: encode_hop_reply(value[1], value[0]),
    ),
    decoder(
        "link.accept",
        "HOP_ACCEPT",
        decode_hop_accept_untrusted,
        lambda: [encode_hop_accept(7, HopLimits(65_536))],
        error=FrameError,
        encode=_encode_known_limits,
    ),
    decoder(
        "link.prefix",
        "REGISTER and UNREGISTER",
        decode_prefix_untrusted,
        lambda: [encode_prefix(PREFIX), encode_prefix(NamePrefix.parse("agent://acme"))],
        error=FrameError,
        encode=encode_prefix,
    ),
    decoder(
        "link.epoch",
        "REGISTERED and DISPLACED",
        decode_prefix_epoch_untrusted,
        lambda: [encode_prefix_epoch(PrefixEpoch(PREFIX, 3))],
        error=FrameError,
        encode=encode_prefix_epoch,
    ),
    decoder(
        "link.restarting",
        "RESTARTING",
        decode_restarting_untrusted,
        lambda: [encode_restarting(1_000)],
        error=FrameError,
        encode=encode_restarting,
    ),
    decoder(
        "link.lists_held",
        "LISTS_HELD and POLICY_HELD",
        decode_held_untrusted,
        lambda: [encode_held((Held(NODE, 7),)), encode_held(())],
        error=FrameError,
        encode=encode_held,
    ),
    decoder(
        "link.list",
        "LIST and POLICY: a part of a signed document",
        lambda data: decode_part_untrusted(data, 1 << 20),
        lambda: [encode_part(DocumentPart(NODE, 7, 300, 200, bytes(100)))],
        error=FrameError,
        encode=encode_part,
    ),
)

TARGETS: Final[list[Target]] = [
    Target(
        "link.frames",
        "a stream of frames in pieces, compared with the whole",
        run_frames,
        _frames,
        FrameError,
        bytes_max=8_192,
    ),
    *_BODIES,
    *(tree_of(target) for target in _BODIES),
    decoder(
        "link.credit",
        "CREDIT",
        decode_credit_untrusted,
        lambda: [encode_credit(Credit(0, 1 << 20)), encode_credit(Credit(4, 1))],
        error=FrameError,
        encode=encode_credit,
        bytes_max=64,
    ),
    decoder(
        "link.code",
        "LINK_CLOSE and HOP_CLOSE",
        decode_code_untrusted,
        lambda: [encode_code(Code.ROUTE_UNKNOWN)],
        error=FrameError,
        encode=_encode_known_code,
        bytes_max=16,
    ),
    decoder(
        "link.preamble",
        "the first bytes of a byte stream",
        decode_stream_preamble_untrusted,
        lambda: [encode_stream_preamble(StreamPreamble(5, 1))],
        error=FrameError,
        encode=encode_stream_preamble,
        bytes_max=2 * STREAM_PREAMBLE_BYTES,
    ),
    decoder(
        "link.target",
        "the end of a link, as text",
        lambda data: parse_target_untrusted(text_of(data)),
        lambda: [str(ALICE).encode(), str(NODE).encode()],
        error=FrameError,
        encode=lambda target: str(target).encode(),
        bytes_max=512,
    ),
]
