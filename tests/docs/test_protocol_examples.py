"""Every example and every number of docs/protocol.md is what the code makes and holds."""

import re

import pytest
from sidelink import wire

from authority import desk
from channel import limits as channel
from gateway import enrolling, hops, relay
from gateway import streams as gateway_streams
from identity import (
    cose,
    credential,
    history,
    proof,
    purpose,
    revocation,
    seen,
    signed_policy,
    verifier,
)
from link import frames as link_frames
from link import limits as link
from link import trust_messages
from node import enrolment, enrolment_wire, neighbours, spreading
from sidecar import admission, direct, envelope, mcp_ingress, mcp_wire, paths, slot, streams
from tests.docs.examples import hex_examples, text_examples
from tests.docs.markdown import DOCS, hex_bytes, named_blocks, table_rows
from transport import limits as transport

PROTOCOL = DOCS / "protocol.md"
HEX = hex_examples()
TEXT = text_examples()

CONSTANTS = {
    "body of a frame": link.FRAME_BODY_BYTES_MAX,
    "lanes of a hop": link.LANES,
    "initial window of a link or byte stream": link.INITIAL_WINDOW_BYTES,
    "proof": proof.PROOF_BYTES_MAX,
    "links of a proof's chain": credential.CHAIN_LINKS_MAX,
    "further chains of a proof": proof.FURTHER_MAX,
    "links of each further chain": credential.CHAIN_LINKS_MAX,
    "credential": credential.CREDENTIAL_BYTES_MAX,
    "attestation": purpose.ATTESTATION_BYTES_MAX,
    "life of an attestation": purpose.ATTESTATION_LIFETIME_S_MAX,
    "overlap of a replaced key": history.OVERLAP_S_MAX,
    "identities in a revocation list": revocation.REVOKED_MAX,
    "revocation list with its history": revocation.REVOCATIONS_WITH_HISTORY_BYTES_MAX,
    "time from a revocation list to its next update": revocation.NEXT_UPDATE_S_MAX,
    "number of a revocation list above the Unix time": revocation.NUMBER_AHEAD_MAX,
    "authorities in LISTS_HELD": trust_messages.HELD_MAX,
    "bytes of a document in one LIST or POLICY": trust_messages.PART_BYTES_MAX,
    "signers of a mandate": signed_policy.SIGNERS_MAX,
    "mandate": signed_policy.MANDATE_BYTES_MAX,
    "files of a policy bundle": signed_policy.FILES_MAX,
    "texts of a policy bundle": signed_policy.TEXT_BYTES_MAX,
    "policy bundle": signed_policy.BUNDLE_BYTES_MAX,
    "mandatory policy with its histories": signed_policy.SIGNED_POLICY_BYTES_MAX,
    "number of a mandate or bundle above the Unix time": signed_policy.NUMBER_AHEAD_MAX,
    "number of a signer's bundle above the Unix time": signed_policy.SIGNER_AHEAD_MAX,
    "change history": history.HISTORY_BYTES_MAX,
    "changes of a history": history.CHANGES_MAX,
    "signature checks for one proof": cose.SIGNATURE_CHECKS_MAX,
    "signature checks for an authority's history in it": 2 * (verifier.ANCHOR_CHANGES_NEW_MAX + 1),
    "signature checks for the history of a mandatory policy's signer": (
        signed_policy.SIGNER_SIGNATURES_MAX
    ),
    "plaintext of a record": channel.RECORD_PLAINTEXT_BYTES_MAX,
    "message of a channel": channel.MESSAGE_BYTES_MAX,
    "smallest fragment that continues": channel.FRAGMENT_BYTES_MIN,
    "smallest body of a RECORD, for a relay": link.RECORD_BODY_BYTES_MIN,
    "Noise message 1, of any version": link.NOISE_1_BYTES_MAX,
    "MOVE, of any version": link.MOVE_BYTES_MAX,
    "records of a direction until ACK": channel.ACK_RECORDS,
    "bytes of records of a direction until ACK": channel.ACK_BYTES,
    "time until ACK": channel.ACK_DELAY_S,
    "addresses in ADDRESSES": channel.ADDRESSES_MAX,
    "records before ACCEPT": channel.EARLY_BYTES_MAX,
    "records under one key": channel.REKEY_LIMITS.records_max,
    "plaintext under one key": channel.REKEY_LIMITS.bytes_max,
    "from the first message of a channel to OPEN": channel.HANDSHAKE_S_MAX,
    "body of an envelope": envelope.BODY_BYTES_MAX,
    "messages of a batch": envelope.ENVELOPES_PER_BATCH_MAX,
    "enrolment message": enrolment_wire.ENROLMENT_BYTES_MAX,
    "prefixes of a node": link.PREFIXES_PER_NODE_MAX,
    "longest restart delay": link.RESTART_DELAY_MS_MAX,
    "head of an MCP exchange": mcp_wire.HEAD_BYTES_MAX,
    "body of an MCP request": mcp_wire.BODY_BYTES_MAX,
    "batch of the local API": wire.BATCH_BYTES_MAX,
    "clock difference that is forgiven": history.CLOCK_SKEW_S,
}
CHOICES = {
    "window that a receiver keeps open": link.LINK_WINDOW_BYTES,
    "UDP payload before a peer is accepted": transport.PRE_AUTH_BYTES_MAX,
    "time until a hop's peer is verified, and again until the hop is open": (
        transport.HANDSHAKE_TIMEOUT_S
    ),
    "idle time until a hop is lost": transport.IDLE_TIMEOUT_S,
    "time between PINGs": transport.KEEPALIVE_S,
    "half-open connections": transport.HALF_OPEN_MAX,
    "half-open connections of one source": transport.HALF_OPEN_PER_SOURCE_MAX,
    "handshakes that begin in a second, in the long run": transport.HANDSHAKES_PER_S,
    "handshakes of one source that begin in a second, in the long run": (
        transport.HANDSHAKES_PER_SOURCE_PER_S
    ),
    "datagrams of strangers in a second, in the long run": transport.STRANGERS_PER_S,
    "life of a Retry token": transport.RETRY_LIFETIME_S,
    "links of a hop": link.LINKS_PER_HOP_MAX,
    "byte streams of a hop": link.STREAMS_PER_HOP_MAX,
    "byte streams of a link, at a relay": relay.STREAMS_PER_LINK_MAX,
    "hops for enrolment at a gateway": enrolling.ENROLLING_HOPS_MAX,
    "time of a hop for enrolment": enrolling.ENROLLING_SECONDS_MAX,
    "links of a hop for enrolment": hops.LINKS_PER_ENROLMENT_MAX,
    "bytes that wait for a hop at a relay": hops.RelayLimits().hop_queue_bytes_max,
    "bytes that wait for all hops at a relay": hops.RelayLimits().queue_bytes_max,
    "links that a hop opens at once": hops.RelayLimits().openings_burst,
    "links that a hop opens in a second after that": hops.RelayLimits().openings_per_s,
    "bytes sent and not acknowledged on a channel": channel.UNACKNOWLEDGED_BYTES_MAX,
    "ACK and WAKE sent and not acknowledged on a channel": channel.REPLIES_MAX,
    "bytes of messages that are not whole, and of answers that are not taken, on all channels with"
    " one node": admission.HELD_BYTES_PER_NODE_MAX,
    "time of a channel without a link": paths.PARKED_SECONDS_MAX,
    "time until a MOVE has failed": paths.MOVE_SECONDS_MAX,
    "direct hops of a sidecar": direct.DIRECT_HOPS_MAX,
    "bytes that wait for a byte stream at a relay": gateway_streams.STREAM_QUEUED_BYTES_MAX,
    "prefixes of a gateway": link.PREFIXES_MAX,
    "channels of a sidecar": admission.CHANNELS_MAX,
    "channels of a sidecar whose peer is not verified": admission.CHANNELS_UNVERIFIED_MAX,
    "byte streams that one side has on a channel": streams.STREAMS_PER_CHANNEL_MAX,
    "bytes of a stream that is not announced": streams.EARLY_BYTES_MAX,
    "enrolment channels of an authority": desk.CHANNELS_MAX,
    "enrolment channels of an authority with one node": desk.CHANNELS_PER_NODE_MAX,
    "workload token": enrolment_wire.TOKEN_CHARACTERS_MAX,
    "links of a chain that a verifier takes": verifier.CHAIN_LINKS,
    "grace behind the next update of a revocation list": revocation.GRACE_S,
    "histories that are remembered as seen": seen.SEEN_MAX,
    "RENEW that a hop takes at once": neighbours.RENEWALS_BURST,
    "RENEW that a hop takes in a second after that": neighbours.RENEWALS_PER_S,
    "RENEW that a channel takes at once": slot.RENEWALS_BURST,
    "RENEW that a channel takes in a second after that": slot.RENEWALS_PER_S,
    "time between LISTS_HELD, and between POLICY_HELD": spreading.HELD_AGAIN_SECONDS,
    "revocation lists, and policies, that a hop takes, or is sent, at once": (
        spreading.DOCUMENTS_BURST
    ),
    "revocation lists, and policies, that a hop takes, or is sent, in a second after that": (
        spreading.DOCUMENTS_PER_S
    ),
    "bytes of revocation lists, and of policies, that are not whole, on all hops": (
        spreading.ASSEMBLING_BYTES_MAX
    ),
    "time of an enrolment channel, at the authority": desk.CHANNEL_SECONDS_MAX,
    "time a node waits for the authority's answer": enrolment.ANSWER_SECONDS_MAX,
    "MCP requests in flight at an ingress": mcp_ingress.REQUESTS_MAX,
}


def test_the_document_and_the_code_have_the_same_examples() -> None:
    assert named_blocks(PROTOCOL, "hex").keys() == HEX.keys()
    assert named_blocks(PROTOCOL, "text").keys() == TEXT.keys()


@pytest.mark.parametrize("name", HEX)
def test_the_bytes_of_an_example_are_those_that_the_code_makes(name: str) -> None:
    assert hex_bytes(named_blocks(PROTOCOL, "hex")[name]).hex() == HEX[name].hex()


@pytest.mark.parametrize("name", TEXT)
def test_the_text_of_an_example_is_what_the_code_prints(name: str) -> None:
    assert named_blocks(PROTOCOL, "text")[name].strip() == TEXT[name]


def test_the_constants_of_the_protocol_are_those_of_the_code() -> None:
    assert _numbers_of("| limit | value |") == CONSTANTS


def test_our_own_limits_are_those_of_the_code() -> None:
    assert _numbers_of("| our choice | value | else |") == CHOICES


def test_every_kind_of_frame_stands_in_the_table_of_frames() -> None:
    written = PROTOCOL.read_text(encoding="utf-8")
    for kind in link_frames.FrameKind:
        assert f"| 0x{kind:02X} | {kind.name} |" in written


def _numbers_of(header: str) -> dict[str, float]:
    rows = table_rows(PROTOCOL, header)
    return {row[0]: _number(row[1]) for row in rows}


def _number(cell: str) -> float:
    match = re.match(r"[\d,.]+", cell)
    assert match is not None, cell
    return float(match[0].replace(",", ""))
