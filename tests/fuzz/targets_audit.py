"""Targets of node/audit_*: a whole log that anybody may have written, and the end of one."""

import hashlib
from typing import Final

import msgspec

from identity import Purpose, new_identity
from node.audit_chain import LINE_BYTES_MAX, SEQUENCE_MAX, Chain, goes_on_after
from node.audit_entry import AuditEntry, encode_entry, record_of
from node.audit_reader import RawLine, decode_line_untrusted, fields_of
from node.audit_verify import Verifier
from node.policy_replay import judge, recorded
from policy import STARTER_POLICY, PolicyEngine
from tests.fuzz.target import Target
from tests.policy.helpers import ask

UNIX_S: Final = 1_900_000_000.0
_ENGINE: Final = PolicyEngine.load(STARTER_POLICY, file="policy.yaml")


def run_log(data: bytes) -> None:
    """Every line is judged, and what passes for a decision can be asked again."""
    verifier = Verifier()
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        sha256 = hashlib.sha256(line).hexdigest()
        verifier.take(RawLine("audit.jsonl", number, line, len(line), sha256, True))
        read = decode_line_untrusted(line)
        assert (read is None) == (fields_of(line) is None)
        past = None if read is None else recorded(read)
        if past is not None:
            judge(_ENGINE, past[0])
    report = verifier.finish()
    assert report.lines == len(lines)
    assert report.signed_seq is None or report.signed_seq <= report.last_seq <= SEQUENCE_MAX


def run_end(data: bytes) -> None:
    """Whatever a file ends with, a line can be put behind it that is one of a chain."""
    chain, torn = goes_on_after(data)
    assert (torn is None) == (not data or data.endswith(b"\n"))
    line = (chain or Chain()).link(b'{"action":"x"}', UNIX_S)
    assert len(line) < LINE_BYTES_MAX
    assert goes_on_after(line)[0] is not None


def _log() -> bytes:
    own = new_identity("node", unix_s=UNIX_S, purposes=(Purpose.HOP,))
    entry = AuditEntry(
        decision_id="a-1",
        action="message.ask",
        effect="deny",
        rule=None,
        policy_version="v",
        subject="a",
        subject_identifier=None,
        object="b",
        service=None,
        reason="no",
        request=record_of(ask(), expires_unix_s=UNIX_S),
    )
    chain = Chain()
    lines = [
        chain.opened(own, UNIX_S, why="started"),
        chain.link(encode_entry(entry), UNIX_S),
        chain.lost(3, UNIX_S),
        chain.checkpoint(own, UNIX_S, why="stopped"),
    ]
    return b"".join(lines).removesuffix(b"\n")


def _broken() -> bytes:
    lines = _log().split(b"\n")
    return b"\n".join((lines[0], b"{", lines[2], lines[1], lines[1], msgspec.json.encode({})))


TARGETS: Final[list[Target]] = [
    Target("node.audit_log", "an audit log to be verified", run_log, lambda: [_log(), _broken()]),
    Target(
        "node.audit_end",
        "the end of an audit log, behind which a program goes on",
        run_end,
        lambda: [_log() + b"\n", _log() + b'\n{"seq"', b"", b"\n"],
    ),
]
