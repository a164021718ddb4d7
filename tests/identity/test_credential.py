"""Credentials: what one may say, and that nothing else is read out of it."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import (
    RESERVED_ATTRIBUTES,
    AgentUri,
    AttributeValue,
    Code,
    Delegable,
    IdentityError,
    NamePrefix,
    SignatureBudget,
    SigningKey,
    decode_credential_untrusted,
    issue_credential,
)
from identity.cbor import decode_untrusted, encode
from identity.cose import SignedType, sign
from tests.identity.helpers import DAY_S, NOW, PLANNER, WIDE, Person, flip_bit

ISSUER, SUBJECT = Person(), Person().rotated()

ISS, SUB, AUD, EXP, NBF, IAT, CTI = range(1, 8)
NAME, KIND, ROLE, ATTRIBUTES, DELEGABLE, PIN, ISSUER_CHANGE, UNKNOWN = range(-65537, -65545, -1)
PREFIXES, VALUES, ACTIONS, DEPTH, LIFETIME = range(1, 6)


def test_a_credential_reads_back_as_it_was_issued() -> None:
    signed = ISSUER.issue(
        SUBJECT,
        PLANNER,
        attributes={"role": "planner", "clearance": -2, "on_call": True, "teams": ("a", "b")},
        delegable=WIDE,
    )

    read = decode_credential_untrusted(signed.encoded)

    assert read == signed
    assert read.credential.issuer == ISSUER.history.identifier
    assert read.credential.subject == SUBJECT.history.identifier
    assert read.credential.name == AgentUri.parse(PLANNER)
    assert read.credential.pin == SUBJECT.history.pin
    assert read.credential.attributes["on_call"] is True
    assert read.credential.delegable == WIDE
    read.message.verify(ISSUER.key.verify_key, SignatureBudget(), Code.CHANNEL_CREDENTIAL_INVALID)


def test_a_node_has_a_role_and_an_agent_has_none() -> None:
    node = ISSUER.issue(SUBJECT, PLANNER, kind="node", role_of_node="gateway").credential

    assert (node.kind, node.role_of_node) == ("node", "gateway")
    with pytest.raises(IdentityError):
        ISSUER.issue(SUBJECT, PLANNER, kind="node", role_of_node=None)
    with pytest.raises(IdentityError):
        ISSUER.issue(SUBJECT, PLANNER, kind="agent", role_of_node="sidecar")


def test_two_credentials_never_share_an_id() -> None:
    ids = {ISSUER.issue(SUBJECT, PLANNER).credential.credential_id for _ in range(8)}

    assert len(ids) == 8


def claims(**changes: Any) -> bytes:
    """A credential, truly signed by its issuer, that says something it should not."""
    payload = decode_credential_untrusted(ISSUER.issue(SUBJECT, PLANNER).encoded).message.payload
    fields = decode_untrusted(payload, bytes_max=4096)
    fields |= {globals()[name]: value for name, value in changes.items()}
    kept = {key: value for key, value in fields.items() if value is not ...}
    return sign(ISSUER.key, SignedType.CREDENTIAL, encode(kept)).encode()


def delegable(**changes: Any) -> bytes:
    fields: dict[int, Any] = {
        PREFIXES: ["agent://acme/finance"],
        VALUES: {"role": ["planner"]},
        ACTIONS: ["message.ask"],
        DEPTH: 1,
        LIFETIME: DAY_S,
    }
    fields |= {globals()[name]: value for name, value in changes.items()}
    return claims(DELEGABLE={key: value for key, value in fields.items() if value is not ...})


WHAT_IS_NOT_A_CREDENTIAL = {
    "no bytes": b"",
    "a trailing byte": claims() + b"\x00",
    "signed as an attestation": sign(
        ISSUER.key, SignedType.ATTESTATION, decode_credential_untrusted(claims()).message.payload
    ).encode(),
    "claims that are not a map": sign(ISSUER.key, SignedType.CREDENTIAL, encode([])).encode(),
    "claims that are not CBOR": sign(ISSUER.key, SignedType.CREDENTIAL, b"\xff").encode(),
    "a claim that is missing": claims(PIN=...),
    "a claim that is unknown": claims(UNKNOWN=1),
    "a claim under a text": sign(
        ISSUER.key,
        SignedType.CREDENTIAL,
        encode(
            decode_untrusted(decode_credential_untrusted(claims()).message.payload, bytes_max=4096)
            | {"role": 1}
        ),
    ).encode(),
    "an issuer that is not an identifier": claims(ISS="acme"),
    "a subject of raw bytes": claims(SUB=bytes(32)),
    "a subject that issued it itself": claims(SUB=str(ISSUER.history.identifier)),
    "a trust domain of two segments": claims(AUD="acme/finance"),
    "a trust domain that is a list": claims(AUD=["acme"]),
    "another trust domain than its name's": claims(AUD="evil"),
    "a name of another trust domain": claims(NAME="agent://evil/finance/planner"),
    "a name that is a pattern": claims(NAME="agent://acme/*"),
    "an expiry before its beginning": claims(EXP=NOW - 11),
    "an expiry that is text": claims(EXP="never"),
    "an expiry that is true": claims(EXP=True),
    "an expiry beyond the year 9999": claims(EXP=2**53),
    "a beginning before 1970": claims(NBF=-1),
    "an id that is too short": claims(CTI=bytes(15)),
    "an unknown kind": claims(KIND="authority"),
    "a kind of node without a role": claims(KIND="node"),
    "an agent with a role of node": claims(ROLE="gateway"),
    "a node with an unknown role": claims(KIND="node", ROLE="authority"),
    "a node whose role is null": claims(KIND="node", ROLE=None),
    "a pin of one part": claims(PIN=[0]),
    "a pin with a short hash": claims(PIN=[0, bytes(31)]),
    "a pin below zero": claims(PIN=[-1, bytes(32)]),
    "an issuer's change below zero": claims(ISSUER_CHANGE=-1),
    "attributes that are a list": claims(ATTRIBUTES=[]),
    "an attribute that is null": claims(ATTRIBUTES={"role": None}),
    "an attribute that is a map": claims(ATTRIBUTES={"role": {}}),
    "an attribute that is bytes": claims(ATTRIBUTES={"role": b"planner"}),
    "an attribute that is a list of numbers": claims(ATTRIBUTES={"role": [1]}),
    "an attribute that is a list of lists": claims(ATTRIBUTES={"role": [["planner"]]}),
    "an attribute that is a long list": claims(ATTRIBUTES={"role": ["x"] * 65}),
    "an attribute of 64 unsigned bits": claims(ATTRIBUTES={"role": 2**63}),
    "an attribute below 64 bits": claims(ATTRIBUTES={"role": -(2**63) - 1}),
    "an attribute that is too long": claims(ATTRIBUTES={"role": "x" * 1025}),
    "an attribute too long in bytes": claims(ATTRIBUTES={"role": "\u00e9" * 513}),
    "an attribute with a newline": claims(ATTRIBUTES={"role": "planner\r\nX-Admin: 1"}),
    "an attribute with a NUL": claims(ATTRIBUTES={"role": "planner\x00"}),
    "an attribute with a line separator": claims(ATTRIBUTES={"role": "planner\u2028"}),
    "an attribute's name in upper case": claims(ATTRIBUTES={"Role": "planner"}),
    "an attribute's name with a dot": claims(ATTRIBUTES={"subject.role": "planner"}),
    "an attribute's name that is empty": claims(ATTRIBUTES={"": "planner"}),
    "an attribute's name that is a number": claims(ATTRIBUTES={1: "planner"}),
    "an attribute's name of 64 characters": claims(ATTRIBUTES={"a" * 64: "planner"}),
    "65 attributes": claims(ATTRIBUTES={f"a{n}": 1 for n in range(65)}),
    **{
        f"the reserved attribute {name}": claims(ATTRIBUTES={name: "x"})
        for name in sorted(RESERVED_ATTRIBUTES)
    },
    "a delegable that is null": claims(DELEGABLE=None),
    "a delegable without a depth": delegable(DEPTH=...),
    "a delegable depth of nine": delegable(DEPTH=9),
    "a delegable depth below zero": delegable(DEPTH=-1),
    "a delegable depth of true": delegable(DEPTH=True),
    "a delegable lifetime below zero": delegable(LIFETIME=-1),
    "a delegable prefix of another domain": delegable(PREFIXES=["agent://evil"]),
    "a delegable prefix that is a pattern": delegable(PREFIXES=["agent://acme/*"]),
    "a delegable prefix that is null": delegable(PREFIXES=[None]),
    "65 delegable prefixes": delegable(PREFIXES=["agent://acme"] * 65),
    "a delegable action that is a pattern": delegable(ACTIONS=["message.*"]),
    "a delegable action that is a number": delegable(ACTIONS=[1]),
    "a delegable reserved attribute": delegable(VALUES={"kind": None}),
    "a delegable value that is a map": delegable(VALUES={"role": [{}]}),
    "a delegable attribute with one bare value": delegable(VALUES={"role": "planner"}),
}


@pytest.mark.parametrize(
    "data", WHAT_IS_NOT_A_CREDENTIAL.values(), ids=WHAT_IS_NOT_A_CREDENTIAL.keys()
)
def test_what_is_not_a_credential_is_refused(data: bytes) -> None:
    with pytest.raises(IdentityError) as caught:
        decode_credential_untrusted(data)

    assert caught.value.code is Code.CHANNEL_CREDENTIAL_INVALID


def test_the_tables_above_start_from_a_credential_that_is_read() -> None:
    assert decode_credential_untrusted(claims()).credential.delegable is None
    assert decode_credential_untrusted(delegable()).credential.delegable is not None


def test_a_reserved_attribute_is_not_issued() -> None:
    with pytest.raises(IdentityError, match="reserved"):
        ISSUER.issue(SUBJECT, PLANNER, attributes={"name": "agent://acme/billing"})


def test_a_credential_too_large_to_be_read_is_not_issued() -> None:
    with pytest.raises(IdentityError, match="at most"):
        ISSUER.issue(SUBJECT, PLANNER, attributes={f"a{n}": "x" * 1000 for n in range(17)})


def test_a_key_that_is_not_the_issuers_issues_nothing() -> None:
    with pytest.raises(ValueError, match="lacks"):
        issue_credential(
            SigningKey.generate(),
            ISSUER.history,
            SUBJECT.history,
            name=AgentUri.parse(PLANNER),
            trust_domain="acme",
            kind="agent",
            role_of_node=None,
            attributes={},
            delegable=None,
            not_before_unix_s=NOW,
            expires_unix_s=NOW + 1,
        )


@settings(max_examples=100)
@given(st.data())
def test_no_flipped_bit_of_a_credential_goes_unnoticed(data: st.DataObject) -> None:
    encoded = ISSUER.issue(SUBJECT, PLANNER, attributes={"role": "planner"}).encoded
    bit = data.draw(st.integers(0, 8 * len(encoded) - 1))

    with pytest.raises(IdentityError):
        decode_credential_untrusted(flip_bit(encoded, bit)).message.verify(
            ISSUER.key.verify_key, SignatureBudget(), Code.CHANNEL_CREDENTIAL_INVALID
        )


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(IdentityError):
        decode_credential_untrusted(data)


claim_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary() | st.text("ab\n/:"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.integers(0, 6), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from([*range(1, 8), *range(-65544, -65536)]), claim_values)
def test_no_signed_claim_of_any_type_raises_anything_else(claim: int, value: Any) -> None:
    payload = decode_credential_untrusted(claims()).message.payload
    fields = decode_untrusted(payload, bytes_max=4096) | {claim: value}
    data = sign(ISSUER.key, SignedType.CREDENTIAL, encode(fields)).encode()

    with contextlib.suppress(IdentityError):
        decode_credential_untrusted(data)


attribute_texts = st.text(st.characters(exclude_categories=("C", "Z")), max_size=20)
attribute_values: st.SearchStrategy[AttributeValue] = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | attribute_texts
    | st.lists(attribute_texts, max_size=4).map(tuple)
)
attribute_names = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True).filter(
    lambda name: name not in RESERVED_ATTRIBUTES
)


@settings(max_examples=50)
@given(
    st.dictionaries(attribute_names, attribute_values, max_size=6),
    st.dictionaries(
        attribute_names, st.none() | st.lists(attribute_values, max_size=3).map(tuple), max_size=4
    ),
)
def test_every_attribute_reads_back_with_its_type(
    attributes: dict[str, AttributeValue],
    passed_on: dict[str, tuple[AttributeValue, ...] | None],
) -> None:
    may = Delegable((NamePrefix.parse("agent://acme"),), passed_on, (), 1, DAY_S)

    encoded = ISSUER.issue(SUBJECT, PLANNER, attributes=attributes, delegable=may).encoded
    read = decode_credential_untrusted(encoded).credential

    assert repr(dict(read.attributes)) == repr({name: attributes[name] for name in read.attributes})
    assert read.attributes == attributes
    assert read.delegable == may
