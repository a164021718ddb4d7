"""The published vectors hold for our own implementation, each case for its own reason."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import pytest

from conformance import VECTORS, vector_path
from identity import (
    REVOCATIONS_WITH_HISTORY_BYTES_MAX,
    SIGNED_POLICY_BYTES_MAX,
    AgentUri,
    Identifier,
    IdentityError,
    NamePrefix,
)
from link import FrameError, FrameKind, FrameParser, encode_frame
from link.messages import (
    decode_code_untrusted,
    decode_credit_untrusted,
    decode_hop_accept_untrusted,
    decode_hop_hello_untrusted,
    decode_hop_reply_untrusted,
    decode_link_open_untrusted,
    decode_prefix_epoch_untrusted,
    decode_prefix_untrusted,
    decode_restarting_untrusted,
)
from link.trust_messages import decode_held_untrusted, decode_part_untrusted

NAMES: Final[Any] = json.loads(vector_path("names-1").read_text())
FRAMES: Final[Any] = json.loads(vector_path("frames-1").read_text())

DECODERS: Final[Mapping[int, Callable[[bytes], object]]] = {
    FrameKind.LINK_OPEN: decode_link_open_untrusted,
    FrameKind.LINK_CLOSE: decode_code_untrusted,
    FrameKind.CREDIT: decode_credit_untrusted,
    FrameKind.REGISTER: decode_prefix_untrusted,
    FrameKind.REGISTERED: decode_prefix_epoch_untrusted,
    FrameKind.DISPLACED: decode_prefix_epoch_untrusted,
    FrameKind.UNREGISTER: decode_prefix_untrusted,
    FrameKind.LISTS_HELD: decode_held_untrusted,
    FrameKind.LIST: partial(
        decode_part_untrusted, total_bytes_max=REVOCATIONS_WITH_HISTORY_BYTES_MAX
    ),
    FrameKind.POLICY_HELD: decode_held_untrusted,
    FrameKind.POLICY: partial(decode_part_untrusted, total_bytes_max=SIGNED_POLICY_BYTES_MAX),
    FrameKind.RESTARTING: decode_restarting_untrusted,
    FrameKind.HOP_HELLO: decode_hop_hello_untrusted,
    FrameKind.HOP_REPLY: decode_hop_reply_untrusted,
    FrameKind.HOP_ACCEPT: decode_hop_accept_untrusted,
    FrameKind.HOP_CLOSE: decode_code_untrusted,
}


def by(key: str, cases: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(case, id=case[key]) for case in cases]


def test_every_file_is_named_and_no_other_can_be_asked_for() -> None:
    folder = vector_path(VECTORS[0]).parent

    assert {
        str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.json")
    } == set(VECTORS)
    with pytest.raises(ValueError, match="no vector file"):
        vector_path("../names-1")


@pytest.mark.parametrize("case", NAMES["identifiers"]["valid"], ids=lambda case: case["text"][:12])
def test_an_identifier_prints_and_parses(case: dict[str, str]) -> None:
    identifier = Identifier(bytes.fromhex(case["digest"]))

    assert str(identifier) == case["text"]
    assert Identifier.parse(case["text"]) == identifier


@pytest.mark.parametrize("case", by("why", NAMES["identifiers"]["invalid"]))
def test_no_other_text_is_an_identifier(case: dict[str, str]) -> None:
    with pytest.raises(IdentityError) as refused:
        Identifier.parse(case["text"])
    assert refused.value.code.text == case["code"]


@pytest.mark.parametrize("text", NAMES["uris"]["valid"])
def test_an_agent_uri_parses_and_prints(text: str) -> None:
    assert str(AgentUri.parse(text)) == text


@pytest.mark.parametrize("case", by("why", NAMES["uris"]["invalid"]))
def test_no_other_text_is_an_agent_uri(case: dict[str, str]) -> None:
    with pytest.raises(IdentityError) as refused:
        AgentUri.parse(case["text"])
    assert refused.value.code.text == case["code"]


def test_prefixes_cover_whole_segments_only() -> None:
    for wide, narrow in NAMES["prefixes"]["covers"]:
        assert NamePrefix.parse(wide).covers(AgentUri.parse(narrow)), (wide, narrow)
    for wide, narrow in NAMES["prefixes"]["does_not_cover"]:
        assert not NamePrefix.parse(wide).covers(AgentUri.parse(narrow)), (wide, narrow)


@pytest.mark.parametrize("case", by("what", FRAMES["valid"]))
def test_a_frame_parses_and_prints(case: dict[str, Any]) -> None:
    wire, body = bytes.fromhex(case["frame"]), bytes.fromhex(case["body"])

    [frame] = FrameParser().feed_untrusted(wire)

    assert frame == (case["link"], case["kind"], body)
    assert encode_frame(*frame) == wire
    if case["kind"] in DECODERS:
        DECODERS[case["kind"]](body)


def test_every_kind_has_a_frame() -> None:
    assert {case["kind"] for case in FRAMES["valid"]} == set(FrameKind)


@pytest.mark.parametrize("case", by("why", FRAMES["invalid"]))
def test_no_other_bytes_are_frames(case: dict[str, str]) -> None:
    with pytest.raises(FrameError) as refused:
        FrameParser().feed_untrusted(bytes.fromhex(case["frame"]))
    assert refused.value.code.text == case["code"]


@pytest.mark.parametrize("case", by("why", FRAMES["bodies"]))
def test_a_body_of_another_shape_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(FrameError) as refused:
        DECODERS[case["kind"]](bytes.fromhex(case["body"]))
    assert refused.value.code.text == case["code"]
