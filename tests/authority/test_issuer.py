"""The issuer: what a wish for a ticket may say, and what a node gets for it."""

from typing import Any

import pytest

from authority.tickets import TICKET_SECONDS_MAX, TICKET_USES_MAX
from identity import (
    AgentUri,
    ChainLink,
    Code,
    Identifier,
    NamePrefix,
    Purpose,
    SidelinkError,
    decode_credential_untrusted,
)
from tests.authority.helpers import DAY_S, GATEWAYS, Office, new_node
from tests.simulation.people import authority, verifier_of

SOMEBODY = Identifier(bytes(32))

REFUSED_WISHES: dict[str, dict[str, Any]] = {
    "an unknown field": {"colour": "red"},
    "an unknown role": {"role": "authority"},
    "a role that is a list": {"role": ["sidecar"]},
    "a lifetime of nothing": {"expires_in_s": 0},
    "a lifetime that is true": {"expires_in_s": True},
    "a lifetime that is text": {"expires_in_s": "60"},
    "a lifetime beyond the longest": {"expires_in_s": TICKET_SECONDS_MAX + 1},
    "no name": {"name": None},
    "a name and a name prefix": {"name": "finance", "name_prefix": "workers"},
    "a name prefix that is malformed": {"name": None, "name_prefix": "a//b"},
    "a name prefix with prefixes": {"name": None, "name_prefix": "w", "prefixes": ["w"]},
    "a name prefix too deep for a name below it": {
        "name": None,
        "name_prefix": "a/b/c/d/e/f/g/h",
    },
    "several uses of one name": {"uses": 2},
    "no uses": {"uses": 0},
    "uses that are true": {"uses": True},
    "too many uses": {"name": None, "name_prefix": "w", "uses": TICKET_USES_MAX + 1},
    "a replacement that is text": {"replace": "yes"},
    "a replacement below a prefix": {"name": None, "name_prefix": "w", "replace": True},
    "a name that is a number": {"name": 5},
    "a name with an empty segment": {"name": "finance//x"},
    "a name that leaves its trust domain": {"name": "../globex"},
    "a name in upper case": {"name": "Finance"},
    "prefixes that are text": {"prefixes": "finance"},
    "a prefix that is a number": {"prefixes": [5]},
    "a prefix that is malformed": {"prefixes": ["finance", "a b"]},
    "too many prefixes": {"prefixes": [f"p{number}" for number in range(65)]},
    "attributes that are a list": {"attributes": ["role"]},
    "an attribute that is a fraction": {"attributes": {"level": 1.5}},
    "an attribute with a reserved name": {"attributes": {"name": "x"}},
    "an attribute whose name is no name": {"attributes": {"Role": "x"}},
    "an attribute that is far too long": {"attributes": {"role": "x" * 5_000}},
    "too many attributes": {"attributes": {f"a{number}": 1 for number in range(65)}},
    "allowed attributes that are a list": {"allowed_attributes": ["role"]},
    "allowed values that are text": {"allowed_attributes": {"role": "planner"}},
    "allowed values that are a number": {"allowed_attributes": {"role": 5}},
    "an allowed value that is a fraction": {"allowed_attributes": {"role": [0.5]}},
    "a reserved name among the allowed": {"allowed_attributes": {"kind": None}},
}


@pytest.mark.parametrize("wishes", REFUSED_WISHES.values(), ids=REFUSED_WISHES)
def test_a_ticket_is_refused_for(office: Office, wishes: dict[str, Any]) -> None:
    with pytest.raises(SidelinkError) as caught:
        office.ticket(**wishes)

    assert caught.value.code is Code.LOCAL_BAD_REQUEST


def test_a_sidecars_ticket_needs_a_gateway_to_go_through(office: Office) -> None:
    with pytest.raises(SidelinkError) as caught:
        office.issuer.create_ticket({"name": "finance"}, (), unix_s=office.clock.unix_s())
    assert caught.value.code is Code.ENROL_NO_GATEWAY

    given = office.issuer.create_ticket({"role": "gateway"}, (), unix_s=office.clock.unix_s())
    assert given.ticket.gateways == ()


def enrol(office: Office, code: bytes, own: Any, **changes: Any) -> Any:
    return office.enrol(code, own, **changes)


def test_a_node_gets_what_its_ticket_says_and_every_peer_believes_it(office: Office) -> None:
    ticket = office.ticket(
        prefixes=["finance", "audit/eu"],
        attributes={"site": "north", "teams": ["a", "b"]},
        allowed_attributes={"role": None, "clearance": [1, 2]},
    )
    own = new_node()
    grant, _terms = enrol(office, ticket.code, own)
    proof = own.with_chain((ChainLink(grant.credential, grant.authority_history),)).proof(
        Purpose.HOP
    )
    peer = verifier_of(SOMEBODY).verify(
        proof,
        purpose=Purpose.HOP,
        noise_key=own.purpose_keys[Purpose.HOP].key.public.raw,
        unix_s=office.clock.unix_s(),
    )

    identity = peer.identity
    assert identity.name == AgentUri.parse("agent://acme/finance")
    assert (identity.kind, identity.role_of_node) == ("node", "sidecar")
    assert dict(identity.attributes) == {"site": "north", "teams": ("a", "b")}
    assert identity.delegable is not None
    assert identity.delegable.name_prefixes == (
        NamePrefix.parse("agent://acme/finance"),
        NamePrefix.parse("agent://acme/audit/eu"),
    )
    assert dict(identity.delegable.attributes) == {"role": None, "clearance": (1, 2)}
    assert identity.expires_unix_s == int(office.clock.unix_s()) + DAY_S
    assert grant.gateways == GATEWAYS
    assert [member.name for member in office.members.members()] == ["agent://acme/finance"]


def test_a_gateway_may_name_nobody(office: Office) -> None:
    ticket = office.ticket(role="gateway", name="gw")
    grant, _terms = enrol(office, ticket.code, new_node())

    held = decode_credential_untrusted(grant.credential).credential
    assert held.role_of_node == "gateway"
    assert held.delegable is None


def test_the_same_node_that_asks_again_gets_another_credential_for_the_same(
    office: Office,
) -> None:
    ticket, own = office.ticket(), new_node()
    first, second = (enrol(office, ticket.code, own)[0] for _ in range(2))

    names = {decode_credential_untrusted(g.credential).credential.name for g in (first, second)}
    assert len(names) == 1


def test_what_a_node_sends_is_refused_with_a_code_and_uses_no_ticket_up(office: Office) -> None:
    ticket, own, other = office.ticket(), new_node(), new_node()
    torn = bytearray(own.history.encode())
    torn[-1] ^= 1
    refused = {
        "the history of somebody else": {"history": other.history.encode()},
        "no history": {"history": b""},
        "a history without end": {"history": b"\x9f"},
    }
    for title, changes in refused.items():
        with pytest.raises(SidelinkError) as caught:
            enrol(office, ticket.code, own, **changes)
        assert caught.value.code is Code.ENROL_BAD_REQUEST, title
    with pytest.raises(SidelinkError) as caught:
        enrol(office, ticket.code, own, history=bytes(torn))
    assert caught.value.code is Code.ENROL_BAD_REQUEST

    assert enrol(office, ticket.code, own)


def test_a_history_is_verified_for_nobody_without_a_ticket(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verifying a long one is the dearest thing that a stranger could ask for."""
    verified: list[object] = []
    monkeypatch.setattr(
        type(authority().history), "verify_signatures", lambda *args, **_: verified.append(args)
    )
    with pytest.raises(SidelinkError) as caught:
        enrol(office, bytes(16), new_node())

    assert caught.value.code is Code.ENROL_TICKET_UNKNOWN
    assert verified == []
