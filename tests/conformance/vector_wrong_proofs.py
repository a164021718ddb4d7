"""What is wrong with proofs: one change of a valid one each. Rows as in vector_wrong_objects."""

from typing import Any, Final

from identity import Code
from tests.conformance.vector_cases import ANCHORS, globex_link
from tests.conformance.vector_changes import OPEN, give, remove_at, set_at, splice_at
from tests.conformance.vector_people import (
    ATTRIBUTES,
    AUTHORITY,
    CHILD,
    DAY_S,
    DELEGABLE,
    FINANCE,
    GLOBEX,
    HELPER,
    NAME,
    NODE,
    NOW,
    PIN,
    PLANNER,
    SEVENTH,
    STRANGER,
    WIDE,
    helper_link,
    node_link,
)
from tests.conformance.vector_wrong_objects import Row, flipped, opened

_PROOF: Final = Code.CHANNEL_PROOF_INVALID
_EXCEEDED: Final = Code.CHANNEL_DELEGATION_EXCEEDED
_AGENT: Final = "an agent"
_SUB: Final = "a subagent"
_BOTH: Final = "an agent of whom another authority says something too"
_SEEN: Final = "an agent of which its newest key was seen"


_SHAPES: Final[list[Row]] = [
    ("a byte behind it", _AGENT, splice_at(begin=2020, put="00"), _PROOF),
    ("no chain", _AGENT, remove_at(3), _PROOF),
    ("version 2", _AGENT, set_at(0, to=2), Code.CHANNEL_VERSION_UNSUPPORTED),
    ("version true", _AGENT, set_at(0, to=True), _PROOF),
    ("a history that is an array", _AGENT, set_at(1, to=[]), _PROOF),
    ("an attestation of 513 bytes", _AGENT, set_at(2, to=bytes(513)), _PROOF),
    ("nine links", _AGENT, set_at(3, to=[[b"", b""]] * 9), _PROOF),
    ("a link without a history", _AGENT, remove_at(3, 1, 1), _PROOF),
    ("a credential that is text", _AGENT, set_at(3, 1, 0, to="x"), _PROOF),
    ("an issuer's history that is null", _AGENT, set_at(3, 1, 1, to=None), _PROOF),
    ("more links than its verifier takes", _SUB, give("chain_links_max", 2), _PROOF),
    ("an empty list of further chains", _AGENT, set_at(4, to=[]), _PROOF),
    ("a further chain without links", _BOTH, set_at(4, 0, to=[]), _PROOF),
]


# Who shows it, with which key, and how its own history goes on.
_PINNED: Final = "an agent whose credential pins its newest key"
_FIRST_ONLY: Final = opened(PLANNER.history)[:1]
_FORK: Final = PLANNER.history_with((PLANNER.keys[0], STRANGER.keys[0]))
_NINE: Final = SEVENTH.history_with((*SEVENTH.keys, STRANGER.keys[0]))
_ATTESTATION: Final = Code.CHANNEL_ATTESTATION_INVALID
_PARTY: Final[list[Row]] = [
    (
        "the verifier's own",
        _AGENT,
        give("own", str(PLANNER.identifier)),
        Code.CHANNEL_SELF_CONNECTION,
    ),
    (
        "the attestation of somebody else",
        _AGENT,
        set_at(2, to=HELPER.attestation()),
        _ATTESTATION,
    ),
    ("an attestation for another purpose", _AGENT, give("purpose", "hop"), _ATTESTATION),
    (
        "an attestation of another Noise key",
        _AGENT,
        give("noise_key", HELPER.noise.public.raw.hex()),
        _ATTESTATION,
    ),
    ("an attestation that is over", _AGENT, set_at(2, OPEN, 2, OPEN, 6, to=NOW), _ATTESTATION),
    (
        "an attestation that somebody else signed",
        _AGENT,
        set_at(2, OPEN, 3, to=opened(HELPER.attestation())[3]),
        _ATTESTATION,
    ),
    (
        "an attestation by a key that the history lacks",
        _AGENT,
        set_at(2, OPEN, 2, OPEN, 4, to=2),
        Code.CHANNEL_HISTORY_INVALID,
    ),
    (
        "a history behind its pin that is signed wrongly",
        _AGENT,
        set_at(1, OPEN, 1, 2, to=flipped(opened(PLANNER.history)[1][2])),
        Code.CHANNEL_HISTORY_INVALID,
    ),
    (
        "a history shorter than its pin",
        _PINNED,
        set_at(1, OPEN, to=_FIRST_ONLY),
        Code.CHANNEL_PIN_MISMATCH,
    ),
    (
        "a history that forks from its pin",
        _PINNED,
        set_at(1, to=_FORK),
        Code.CHANNEL_PIN_MISMATCH,
    ),
    (
        "a history shorter than what was seen of it",
        _SEEN,
        set_at(1, OPEN, to=_FIRST_ONLY),
        Code.CHANNEL_HISTORY_OUTDATED,
    ),
    (
        "a history that forks from what was seen of it",
        _SEEN,
        set_at(1, to=_FORK),
        Code.CHANNEL_PIN_MISMATCH,
    ),
    (
        "17 signatures",
        "as many signatures as may be",
        set_at(1, to=_NINE),
        Code.CHANNEL_TOO_MANY_SIGNATURES,
    ),
    (
        "an authority of whom the verifier knows a fork",
        "an authority",
        give("seen", [[str(AUTHORITY.identifier), 1, bytes(32).hex()]]),
        Code.CHANNEL_PIN_MISMATCH,
    ),
    (
        "an authority whose newest key is of the future",
        "a node",
        set_at(3, 0, 1, OPEN, 1, 0, OPEN, 4, to=NOW + 61),
        Code.CHANNEL_NOT_YET_VALID,
    ),
]


def _claim(link: int, *at: Any, to: Any) -> dict[str, Any]:
    return set_at(3, link, 0, OPEN, 2, OPEN, *at, to=to)


_NODE_BY_HELPER: Final = [HELPER.credential(NODE, FINANCE), HELPER.history]
_STALE: Final = opened(PLANNER.history)[:1]
_CHAINS: Final[list[Row]] = [
    ("a link left out", _SUB, remove_at(3, 1), _PROOF),
    (
        "the credential of somebody else",
        _AGENT,
        set_at(3, 0, to=NODE.link(HELPER, f"{FINANCE}/planner")),
        _PROOF,
    ),
    ("a history that is not the issuer's", _AGENT, set_at(3, 0, 1, to=GLOBEX.history), _PROOF),
    (
        "a chain that returns to the one who shows it",
        _SUB,
        set_at(3, 2, to=_NODE_BY_HELPER),
        _PROOF,
    ),
    (
        "an authority that is not trusted",
        _AGENT,
        give("anchors", ANCHORS[1:]),
        Code.CHANNEL_WRONG_AUTHORITY,
    ),
    (
        "an authority that is trusted for another domain",
        _AGENT,
        give("anchors", [[ANCHORS[0][0], "globex"]]),
        Code.CHANNEL_WRONG_AUTHORITY,
    ),
    (
        "a credential that is malformed",
        _AGENT,
        _claim(0, 7, to=b""),
        Code.CHANNEL_CREDENTIAL_INVALID,
    ),
    ("a credential that is over", _SUB, _claim(0, 4, to=NOW), Code.CHANNEL_CREDENTIAL_EXPIRED),
    ("a credential of the future", _SUB, _claim(0, 5, to=NOW + 61), Code.CHANNEL_NOT_YET_VALID),
    (
        "a credential that somebody else signed",
        _SUB,
        set_at(3, 1, 0, OPEN, 3, to=opened(helper_link()[0])[3]),
        Code.CHANNEL_CREDENTIAL_INVALID,
    ),
    (
        "a credential by a key that its issuer lacks",
        _SUB,
        _claim(1, -65543, to=1),
        Code.CHANNEL_HISTORY_INVALID,
    ),
    (
        "a credential by the authority's replaced key after its overlap",
        "a node of the authority's replaced key",
        set_at(3, 0, 1, OPEN, 1, 0, OPEN, 6, to=60),
        Code.CHANNEL_HISTORY_INVALID,
    ),
    (
        "an issuer's history shorter than its pin",
        _SUB,
        _claim(1, PIN, to=[2, bytes(32)]),
        Code.CHANNEL_PIN_MISMATCH,
    ),
    (
        "an issuer's history that forks from its pin",
        _SUB,
        _claim(1, PIN, 1, to=bytes(32)),
        Code.CHANNEL_PIN_MISMATCH,
    ),
    (
        "an issuer's history that is signed wrongly behind its pin",
        _SUB,
        set_at(3, 0, 1, OPEN, 1, 1, to=bytes(64)),
        Code.CHANNEL_HISTORY_INVALID,
    ),
    (
        "an issuer's history shorter than what was seen of it",
        _SUB,
        give("seen", [[str(PLANNER.identifier), 2, bytes(32).hex()]]),
        Code.CHANNEL_HISTORY_OUTDATED,
    ),
    (
        "an issuer's history that forks from what was seen of it",
        _SUB,
        give("seen", [[str(PLANNER.identifier), 1, bytes(32).hex()]]),
        Code.CHANNEL_PIN_MISMATCH,
    ),
    (
        "an issuer's history without its last change",
        _SUB,
        set_at(3, 0, 1, OPEN, to=_STALE),
        Code.CHANNEL_HISTORY_INVALID,
    ),
]


# Link 1 of a subagent's chain is the planner's credential, issued by the node of link 2.


def exceeds(why: str, *at: Any, to: Any, link: int = 1) -> Row:
    return (why, _SUB, _claim(link, *at, to=to), _EXCEEDED)


_BY_A_NODE: Final = [
    [NODE.credential(CHILD, f"{FINANCE}/x", kind="node", role="sidecar"), NODE.history],
    node_link(),
]
_WIDER: Final = WIDE[2] | {"role": ["planner", "owner"]}  # type: ignore[operator]
_DELEGATIONS: Final[list[Row]] = [
    (
        "an issuer that may not issue",
        _SUB,
        remove_at(3, 1, 0, OPEN, 2, OPEN, DELEGABLE),
        _EXCEEDED,
    ),
    (
        "an issuer at the greatest depth",
        "a subagent's child",
        _claim(1, DELEGABLE, 4, to=0),
        _EXCEEDED,
    ),
    ("a node by the word of a node", "a subagent's child", set_at(3, to=_BY_A_NODE), _EXCEEDED),
    exceeds("a name outside the issuer's prefixes", NAME, to="agent://acme/billing/main"),
    exceeds("a credential that outlives its issuer's", 4, to=NOW + 10 * DAY_S + 1),
    exceeds("a longer life than the issuer may give", 5, to=NOW - 24 * DAY_S),
    exceeds("an attribute that is not the issuer's to give", ATTRIBUTES, "rank", to=1),
    exceeds("a value that is not the issuer's to give", ATTRIBUTES, "clearance", to=3),
    exceeds("a value of another type to give", DELEGABLE, 2, "clearance", to=[True]),
    exceeds("a depth that does not decrease", DELEGABLE, 4, to=3),
    exceeds("a longer life to give than the issuer may", DELEGABLE, 5, to=31 * DAY_S),
    exceeds("a prefix to give that is wider than the issuer's", DELEGABLE, 1, to=["agent://acme"]),
    exceeds("an action to give that the issuer has not", DELEGABLE, 3, to=["mcp.call"]),
    exceeds("an attribute to give that the issuer has not", DELEGABLE, 2, to={"rank": None}),
    exceeds("values to give that the issuer has not", DELEGABLE, 2, to={"role": _WIDER["role"]}),
    exceeds("any value to give where the issuer has some", DELEGABLE, 2, "role", to=None),
]


# What the verifier has learned since.
_LISTED: Final = "a node beside a list of others"


def lists(*revoked: Any, **fields: Any) -> dict[str, Any]:
    return give("lists", [AUTHORITY.revocations(*revoked, **fields).hex()])


_TRUST: Final[list[Row]] = [
    ("somebody who is revoked", _LISTED, lists(NODE), Code.CHANNEL_REVOKED),
    ("whose issuer's issuer is revoked", _SUB, lists(NODE), Code.CHANNEL_REVOKED),
    (
        "a list whose grace is over",
        _LISTED,
        give("unix_s", NOW + 4 * DAY_S),
        Code.CHANNEL_REVOCATIONS_STALE,
    ),
]


_AGAIN: Final = [globex_link(PLANNER, attributes={})]
_BY_BOTH: Final = [[globex_link(PLANNER)], [NODE.link(PLANNER, f"{FINANCE}/planner"), node_link()]]
_GLOBEX_LIST: Final = give("lists", [GLOBEX.revocations(PLANNER, _2="globex").hex()])
_LINK: Final = (4, 0, 0)
_PAYLOAD: Final = (*_LINK, 0, OPEN, 2, OPEN)
_FURTHER: Final[list[Row]] = [
    ("further chains of somebody whom nobody named", _BOTH, set_at(3, to=[]), _PROOF),
    ("two credentials of one further issuer", _BOTH, set_at(4, 1, to=_AGAIN), _PROOF),
    ("a further credential of the first issuer", _BOTH, set_at(4, to=_BY_BOTH), _PROOF),
    (
        "a further credential of somebody else",
        _BOTH,
        set_at(*_LINK, to=globex_link(HELPER)),
        _PROOF,
    ),
    (
        "the history of somebody else beside a further credential",
        "an agent of whom somebody says something who is not trusted",
        set_at(*_LINK, 1, to=NODE.history),
        _PROOF,
    ),
    (
        "a further issuer's history that is none",
        _BOTH,
        set_at(*_LINK, 1, to=b""),
        Code.CHANNEL_HISTORY_INVALID,
    ),
    (
        "a further credential for the first authority's domain",
        _BOTH,
        set_at(4, 0, 0, to=GLOBEX.link(PLANNER, f"{FINANCE}/planner")),
        Code.CHANNEL_WRONG_AUTHORITY,
    ),
    (
        "a further credential that is over",
        _BOTH,
        set_at(*_PAYLOAD, 4, to=NOW),
        Code.CHANNEL_CREDENTIAL_EXPIRED,
    ),
    (
        "a further credential that is signed wrongly",
        _BOTH,
        set_at(*_LINK, 0, OPEN, 3, to=bytes(64)),
        Code.CHANNEL_CREDENTIAL_INVALID,
    ),
    (
        "a further credential of another history",
        _BOTH,
        set_at(*_PAYLOAD, PIN, 1, to=bytes(32)),
        Code.CHANNEL_PIN_MISMATCH,
    ),
    ("whom a further authority has revoked", _BOTH, _GLOBEX_LIST, Code.CHANNEL_REVOKED),
]

PROOFS: Final[list[Row]] = [*_SHAPES, *_PARTY, *_CHAINS, *_DELEGATIONS, *_TRUST, *_FURTHER]
