"""The bytes behind each example of docs/protocol.md, as the code makes them."""

from collections.abc import Mapping
from typing import Final

from sidelink import wire
from sidelink.tokens import token_of

from channel import Prologue, StreamOpen, encode_stream_open
from channel.limits import MAC_BYTES
from channel.wire import (
    FLAG_MORE,
    Denial,
    Move,
    RecordHeader,
    RecordType,
    encode_denial,
    encode_header,
    encode_move,
    encode_stream_prologue,
)
from identity import (
    AgentUri,
    Code,
    GatewayAddress,
    Identifier,
    Invitation,
    NamePrefix,
    OwnIdentity,
    PolicyFile,
    SignedPolicy,
    SigningKey,
    Ticket,
    create_history,
    decode_revocations_untrusted,
    decode_signed_policy_untrusted,
    issue_policy,
    issue_revocations,
)
from link import Credit, FrameKind, HopHello, HopLimits, LinkOpen, PrefixEpoch, StreamPreamble
from link.frames import encode_frame
from link.messages import (
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
)
from link.trust_messages import DocumentPart, Held, encode_held, encode_part
from node.enrolment_wire import (
    EnrolGrant,
    EnrolRefusal,
    EnrolRequest,
    RenewRequest,
    TokenRequest,
    encode_grant,
    encode_refusal,
    encode_request,
)
from sidecar.envelope import Ask, Reject, Reply, Tell, TellRun, encode_batch
from sidecar.mcp_wire import RequestHead, ResponseHead, encode_request_head, encode_response_head

KEY: Final = SigningKey.from_private_bytes(bytes(range(32)))
HISTORY: Final = create_history(KEY, created_unix_s=1_900_000_000, expires_unix_s=2_000_000_000)
IDENTIFIER: Final = HISTORY.identifier
NONCE: Final = bytes(range(16))
PLANNER: Final = AgentUri.parse("agent://acme/finance/planner")
BILLING: Final = AgentUri.parse("agent://acme/billing/main")
FINANCE: Final = NamePrefix.parse("agent://acme/finance")

NOISE_1_BYTES: Final = 1_232
NOISE_2_BYTES: Final = 2_000


def _without(tail_bytes: int, body: bytes) -> bytes:
    """The body up to a Noise message, which is different each time."""
    assert body.endswith(bytes(tail_bytes))
    return body[:-tail_bytes]


def _link_open(source_node: bool) -> bytes:
    node = IDENTIFIER if source_node else None
    opening = LinkOpen(BILLING, PLANNER, NONCE, node, bytes(NOISE_1_BYTES))
    encoded = encode_link_open(opening)
    assert encoded.endswith(b"\xf6"), "no move"
    return _without(NOISE_1_BYTES, encoded[:-1])


def _link_open_move() -> bytes:
    move = encode_move(Move(b"\xcc" * 16, 1, 7, bytes(MAC_BYTES)))
    return _without(
        MAC_BYTES, encode_link_open(LinkOpen(BILLING, PLANNER, NONCE, None, b"", move=move))
    )


def _hop_hello() -> bytes:
    hello = HopHello("admit", str(IDENTIFIER), NONCE, bytes(NOISE_1_BYTES))
    return _without(NOISE_1_BYTES, encode_hop_hello(hello))


def _hop_prologue() -> bytes:
    extra = (b"admit", b"\xaa" * 32, b"\xbb" * 32)
    return Prologue("hop", str(IDENTIFIER), NONCE, extra=extra).encode()


def _revocations() -> bytes:
    encoded = issue_revocations(
        OwnIdentity("authority", KEY, HISTORY, {}, ()),
        "acme",
        number=1_900_000_000,
        issued_unix_s=1_900_000_000,
        next_update_unix_s=1_900_086_400,
        revoked=[Identifier(bytes(range(32)))],
    )
    return decode_revocations_untrusted(encoded).message.payload


def _policy() -> SignedPolicy:
    encoded = issue_policy(
        OwnIdentity("authority", KEY, HISTORY, {}, ()),
        "acme",
        number=1_900_000_000,
        issued_unix_s=1_900_000_000,
        files=[PolicyFile("base.yaml", "rules: []\n")],
        signers=[Identifier(bytes(range(32)))],
    )
    return decode_signed_policy_untrusted(encoded)


def hex_examples() -> Mapping[str, bytes]:
    """Each fenced block ``hex NAME`` of the document, by name."""
    gateway = GatewayAddress("127.0.0.1", 7440, IDENTIFIER)
    ticket_code = bytes(range(16))
    return {
        "change": HISTORY.encode()[4:54],
        "history": HISTORY.encode(),
        "revocations": _revocations(),
        "mandate": _policy().mandate_message.payload,
        "bundle": _policy().bundle_message.payload,
        "lists-held": encode_frame(
            0, FrameKind.LISTS_HELD, encode_held((Held(IDENTIFIER, 1_900_000_000),))
        ),
        "list": encode_frame(
            0,
            FrameKind.LIST,
            encode_part(DocumentPart(IDENTIFIER, 1_900_000_000, 12, 8, b"\xee" * 4)),
        ),
        "prologue-channel": Prologue("channel", str(BILLING), NONCE).encode(),
        "prologue-hop": _hop_prologue(),
        "prologue-stream": encode_stream_prologue(b"\xcc" * 32, 1, "clock", True),
        "record-header": encode_header(RecordHeader(RecordType.DATA, FLAG_MORE, 1, 1000)),
        "deny": encode_denial(Denial(Code.POLICY_DENIED, "quarantine", "Denied.")),
        "stream-open": encode_stream_open(StreamOpen(1, "clock", bytes(range(32)))),
        "hop-hello": _hop_hello(),
        "hop-reply": _without(NOISE_2_BYTES, encode_hop_reply(bytes(NOISE_2_BYTES))),
        "hop-accept": encode_frame(0, FrameKind.HOP_ACCEPT, encode_hop_accept(0, HopLimits(65536))),
        "hop-close": encode_frame(0, FrameKind.HOP_CLOSE, encode_code(Code.HOP_RESTARTING)),
        "lane-open": encode_frame(2, FrameKind.LANE_OPEN, b""),
        "link-open": _link_open(source_node=False),
        "link-open-relayed": _link_open(source_node=True),
        "link-open-move": _link_open_move(),
        "link-close": encode_frame(1, FrameKind.LINK_CLOSE, encode_code(Code.ROUTE_UNKNOWN)),
        "credit": encode_frame(5, FrameKind.CREDIT, encode_credit(Credit(0, 1_310_720))),
        "register": encode_frame(0, FrameKind.REGISTER, encode_prefix(FINANCE)),
        "registered": encode_frame(
            0, FrameKind.REGISTERED, encode_prefix_epoch(PrefixEpoch(FINANCE, 2))
        ),
        "restarting": encode_frame(0, FrameKind.RESTARTING, encode_restarting(500)),
        "preamble": encode_stream_preamble(StreamPreamble(5, 1)),
        "enrol-request": encode_request(EnrolRequest(ticket_code, HISTORY.encode())),
        "enrol-token": encode_request(TokenRequest("e30.e30.e30", HISTORY.encode())),
        "enrol-renewal": encode_request(RenewRequest(HISTORY.encode())),
        "enrol-grant": encode_grant(EnrolGrant(b"C", b"H", (gateway,))),
        "enrol-refusal": encode_refusal(EnrolRefusal(Code.ENROL_TICKET_USED)),
        "questions": encode_batch([Tell(1, b"hi", "text/plain"), Ask(2, b"\xc0", "a/b", 30_000)]),
        "run": encode_batch([TellRun(2, [b"hi", b"ho"], "text/plain")]),
        "answers": encode_batch(
            [Reply(2, b"ok", "text/plain"), Reject(1, Code.POLICY_DENIED, "quarantine", "No.")]
        ),
        "mcp-request": encode_request_head(RequestHead("POST", "", (("a", "b"),), 5)),
        "mcp-answer": encode_response_head(ResponseHead(200, (("a", "b"),))),
        "local-hello": wire.encode_batch([wire.Hello(1)]),
        "local-spawn": wire.encode_batch([wire.SpawnAgent(7, "finance/planner", "x", {}, 3600)]),
        "local-send": wire.encode_batch(
            [wire.Send(7, 1, str(BILLING), wire.ASK, b"hi", "text/plain", 30_000)]
        ),
    }


def text_examples() -> Mapping[str, str]:
    """Each fenced block ``text NAME`` of the document, by name."""
    gateway = GatewayAddress("127.0.0.1", 7440, IDENTIFIER)
    ticket = Ticket("acme", IDENTIFIER, (gateway,), bytes(range(16)), 2_000_000_000)
    return {
        "identifier": str(IDENTIFIER),
        "ticket": ticket.encode(),
        "invitation": Invitation("acme", IDENTIFIER, (gateway,)).encode(),
        "local-token": token_of(bytes(range(32))),
    }
