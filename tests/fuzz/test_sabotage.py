"""The targets notice when the code breaks its promises: each row breaks one of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import channel.channel
from channel import Channel, ChannelError, PeerRenewed, StreamSession
from channel.messages import MessageAssembler
from channel.records import RecordReader
from gateway.relay import GatewayRelay
from identity import Identifier, IdentityError, ProofVerifier, decode_revocations_untrusted
from link import Directory, FrameParser, LaneWriter, ReceiveWindow, RelayTable, RelayWindow
from node.neighbours import Neighbours
from node.spreading import Spread
from policy import Action, Request
from sidecar.inbound import Inbound
from sidecar.streams import Streams
from tests.fuzz import engine_hypothesis
from tests.fuzz.registry import TARGETS
from transport.hop import CarriedHop

BY_NAME = {target.name: target for target in TARGETS}
SECONDS = 20.0
RUNS = 3_000


def deliver_at_once(end: Any, record: bytes) -> Any:
    """What a channel does with a record, without the wait for the permit."""
    header, plaintext = end._reader.open_untrusted(record)
    return end._apply_record_untrusted(header, plaintext)


def part_one_side(table: Any, end: Any) -> Any:
    direction = table._directions.pop(end, None)
    return None if direction is None else direction.to


def add_in_front(writer: Any, lane: int, kind: int, body: bytes) -> None:
    _add(writer, lane, kind, body)
    writer._queues[lane].frames.rotate(1)


def ignore_flags(parser: Any, data: bytes) -> Any:
    cleared = bytearray(data)
    if len(cleared) > 5:
        cleared[5] = 0
    return _feed(parser, bytes(cleared))


def open_in_any_order(reader: Any, record: bytes) -> Any:
    reader._epoch, reader._sequence = _header(record)
    return _open(reader, record)


def _header(record: bytes) -> tuple[int, int]:
    return int.from_bytes(record[2:6], "big"), int.from_bytes(record[6:14], "big")


def accept_whoever(hop: Any, permit: Any) -> None:
    permit = type(permit)(hop.peer.identifier, "hop.admit")
    _accept(hop, permit)


def _permit_of_another(inbound: Any, slot: Any, is_ask: bool) -> Any:
    """One that policy gave, but for somebody else."""
    action = Action.MESSAGE_ASK if is_ask else Action.MESSAGE_TELL
    subject = slot.agent.party
    request = Request(action, subject, subject, message_bytes=0)
    return inbound._decisions._decide(request, expires_unix_s=None)


def take_any_number(verifier: Any, encoded: bytes, *, unix_s: float) -> Any:
    """What an authority signed, however old."""
    signed = decode_revocations_untrusted(encoded)
    history = verifier.learn_anchor_history(signed.issuer_history, unix_s=unix_s)
    signed.verify(history, unix_s)
    verifier._lists._lists[signed.content.issuer] = signed.content
    return signed.content


def renew_whoever(neighbours: Any, hop: Any, proof: bytes) -> None:
    noise_key = hop.peer.noise_key.raw
    try:
        hop.renewed(neighbours._node.verify_hop(proof, noise_key))
    except IdentityError:
        return


def renew_any_peer(verify: Any, peer: Any, proof: bytes) -> PeerRenewed:
    try:
        return PeerRenewed(verify(proof, peer.noise_key.raw))
    except IdentityError as error:
        raise ChannelError(error.code, error.detail) from error


_add, _feed, _open = LaneWriter.add, FrameParser.feed_untrusted, RecordReader.open_untrusted
_accept = CarriedHop.accept

# What is broken → the target that must notice, whose part is replaced, and by what.
BROKEN: dict[str, tuple[str, Any, str, Callable[..., Any]]] = {
    "frames whose flags are not looked at": (
        "link.frames",
        FrameParser,
        "feed_untrusted",
        ignore_flags,
    ),
    "an identifier's checksum that is not looked at": (
        "identity.identifier",
        Identifier,
        "parse",
        staticmethod(lambda text: Identifier(text.encode("utf-8", "replace")[:32].ljust(32))),
    ),
    "fragments without an end": (
        "channel.assembler",
        MessageAssembler,
        "add_untrusted",
        lambda assembler, body, flags: assembler._fragments.append(body),
    ),
    "delivery before the permit": (
        "machine.channel",
        Channel,
        "_receive_record_untrusted",
        deliver_at_once,
    ),
    "keys that outlive their channel": ("machine.channel", Channel, "_erase", lambda channel: None),
    "an end of a stream that nobody sealed": (
        "machine.stream",
        StreamSession,
        "quic_ended",
        lambda session: None,
    ),
    "frames of one link that overtake each other": (
        "machine.lane",
        LaneWriter,
        "add",
        add_in_front,
    ),
    "a window that nobody keeps": (
        "machine.window",
        ReceiveWindow,
        "receive_untrusted",
        lambda window, count: setattr(window, "_received", window._received + count),
    ),
    "a link that is parted at one end only": (
        "machine.table",
        RelayTable,
        "part",
        part_one_side,
    ),
    "routes of a hop that is gone": (
        "machine.directory",
        Directory,
        "forget_hop",
        lambda directory, hop: None,
    ),
    "a gateway that attests nothing": (
        "machine.relay",
        GatewayRelay,
        "_refuse_source_untrusted",
        lambda relay, state, opening: None,
    ),
    "a relay without windows": (
        "machine.relay",
        RelayWindow,
        "pass_untrusted",
        lambda window, count: setattr(window, "_passed", window._passed + count),
    ),
    "a hop that any permit opens": ("machine.hop", CarriedHop, "accept", accept_whoever),
    "messages that nobody permitted": (
        "machine.sidecar",
        Inbound,
        "_permit",
        lambda inbound, slot, is_ask, size, unix_s: _permit_of_another(inbound, slot, is_ask),
    ),
    "revocation lists that go back": (
        "machine.neighbours",
        ProofVerifier,
        "learn_revocations_untrusted",
        take_any_number,
    ),
    "parts of lists that are kept for ever": (
        "machine.neighbours",
        Spread,
        "_forget_parts",
        lambda spread, neighbour: setattr(neighbour, "part", None),
    ),
    "a neighbour that becomes another": (
        "machine.neighbours",
        Neighbours,
        "_renew_untrusted",
        renew_whoever,
    ),
    "a channel's peer that becomes another": (
        "machine.channel",
        channel.channel,
        "renewed_untrusted",
        renew_any_peer,
    ),
    "early bytes of a hop that is gone": (
        "machine.sidecar",
        Streams,
        "hop_closed",
        lambda streams, hop: None,
    ),
}


@pytest.mark.prove
@pytest.mark.parametrize(("name", "place", "part", "broken"), BROKEN.values(), ids=BROKEN)
def test_a_target_notices(
    name: str,
    place: Any,
    part: str,
    broken: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(place, part, broken)

    outcome = engine_hypothesis.run(
        BY_NAME[name], seconds=SECONDS, runs=RUNS, work=tmp_path, begin=1
    )

    assert outcome.finding is not None
