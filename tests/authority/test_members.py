"""The members' book: a name has one holder, and renewal goes by what a node was granted."""

from dataclasses import replace
from typing import Any

import pytest

from authority import members as members_module
from authority.members import FORGOTTEN_SECONDS
from identity import (
    AgentUri,
    Code,
    Identifier,
    SidelinkError,
    SigningKey,
    VerifiedIdentity,
    decode_credential_untrusted,
)
from tests.authority.helpers import DAY_S, Office, new_node
from tests.simulation.people import authority, stranger

FINANCE = AgentUri.parse("agent://acme/finance")
HASH = bytes(32)


def refused(code: Code, call: Any) -> None:
    with pytest.raises(SidelinkError) as caught:
        call()
    assert caught.value.code is code


def granted(office: Office, own: Any, grant: Any) -> VerifiedIdentity:
    """Who the node is to others, with what it was granted."""
    held = decode_credential_untrusted(grant.credential).credential
    return replace(
        stranger().identity,
        identifier=own.identifier,
        name=held.name,
        kind="node",
        role_of_node=held.role_of_node,
        issuer=held.issuer,
        expires_unix_s=held.expires_unix_s,
    )


def test_a_name_that_a_live_node_holds_is_not_given_to_a_second(office: Office) -> None:
    first, second = office.ticket(), office.ticket()
    office.enrol(first.code, new_node())

    refused(Code.ENROL_NAME_DENIED, lambda: office.enrol(second.code, new_node()))
    assert [ticket.used for ticket in office.book.tickets()].count(0) == 1, "it is still good"


def test_its_holder_may_enrol_again_under_its_name(office: Office) -> None:
    own = new_node()
    office.enrol(office.ticket().code, own)

    assert office.enrol(office.ticket(attributes={"site": "new"}).code, own)
    assert len(office.members.members()) == 1


def test_whoever_asks_for_a_ticket_is_told_who_holds_its_name(office: Office) -> None:
    own = new_node()
    assert office.given(name="finance").held_by is None
    office.enrol(office.ticket().code, own)

    assert office.given(name="finance").held_by == own.identifier
    assert office.given(name="finance", replace=True).held_by is None
    assert office.given(name_prefix="finance").held_by is None


def test_a_name_is_free_again_when_its_holders_credential_is_over(office: Office) -> None:
    office.enrol(office.ticket().code, new_node())
    office.clock.advance(DAY_S)

    assert office.enrol(office.ticket().code, new_node())


def test_a_name_is_free_again_when_its_holder_was_revoked(office: Office) -> None:
    own = new_node()
    office.enrol(office.ticket().code, own)
    office.revocations.revoke(own.identifier, "", unix_s=office.clock.unix_s())

    assert office.enrol(office.ticket().code, new_node())


def test_a_ticket_that_replaces_takes_the_name_and_the_other_is_not_renewed(
    office: Office,
) -> None:
    first, second = new_node(), new_node()
    grant, _ = office.enrol(office.ticket().code, first)
    office.enrol(office.ticket(replace=True).code, second)

    assert office.members.find(FINANCE) == second.identifier
    identity = granted(office, first, grant)
    refused(Code.ENROL_NOT_A_MEMBER, lambda: office.renew(first, identity))


def test_several_gateways_need_no_names_of_anybodys_choice(office: Office) -> None:
    names = [
        str(office.enrol(office.ticket(name=None, role="gateway").code, new_node())[1].name)
        for _ in range(2)
    ]

    assert len(set(names)) == 2
    assert all(name.startswith("agent://acme/gateway/") for name in names)


def test_a_renewal_is_on_the_same_terms_and_for_the_head_of_the_history(office: Office) -> None:
    own = new_node()
    ticket = office.ticket(attributes={"site": "north"}, allowed_attributes={"role": ["a"]})
    first, _ = office.enrol(ticket.code, own)
    office.clock.advance(DAY_S / 2)
    rotated = own.with_next_key(
        SigningKey.generate(), unix_s=office.clock.unix_s(), overlap_s=3_600
    )
    second, _ = office.renew(rotated, granted(office, own, first))

    before = decode_credential_untrusted(first.credential).credential
    after = decode_credential_untrusted(second.credential).credential
    assert after.pin == rotated.history.pin != before.pin
    assert after.expires_unix_s == before.expires_unix_s + DAY_S // 2
    same = ("subject", "name", "kind", "role_of_node", "attributes", "delegable")
    assert [getattr(after, key) for key in same] == [getattr(before, key) for key in same]


def test_a_renewal_is_refused_to(office: Office) -> None:
    own, other = new_node(), new_node()
    grant, _ = office.enrol(office.ticket().code, own)
    member = granted(office, own, grant)
    not_member = granted(office, other, grant)
    strangers = {
        "a node without a credential": (own, replace(member, kind="unenrolled")),
        "an agent": (own, replace(member, kind="agent")),
        "a node of another authority": (own, replace(member, issuer=Identifier(HASH))),
        "a node that is not in the book": (other, not_member),
    }
    for title, (who, identity) in strangers.items():
        with pytest.raises(SidelinkError) as caught:
            office.renew(who, identity)
        assert caught.value.code is Code.ENROL_NOT_A_MEMBER, title
    assert office.renew(own, member)


def test_a_history_behind_what_was_seen_is_not_renewed(office: Office) -> None:
    """Whoever holds a superseded key has a history that ends with it, or forks there."""
    own = new_node()
    grant, _ = office.enrol(office.ticket().code, own)
    member = granted(office, own, grant)
    now = office.clock.unix_s()
    rotated = own.with_next_key(SigningKey.generate(), unix_s=now, overlap_s=3_600)
    office.renew(rotated, member)
    forked = own.with_next_key(SigningKey.generate(), unix_s=now, overlap_s=3_600)

    refused(Code.ENROL_BAD_REQUEST, lambda: office.renew(own, member))
    refused(Code.ENROL_BAD_REQUEST, lambda: office.renew(forked, member))
    assert office.renew(rotated, member)


def test_a_revoked_identity_is_neither_enrolled_nor_renewed(office: Office) -> None:
    own = new_node()
    grant, _ = office.enrol(office.ticket().code, own)
    office.revocations.revoke(own.identifier, "lost", unix_s=office.clock.unix_s())
    ticket = office.ticket()

    refused(Code.ENROL_REVOKED, lambda: office.enrol(ticket.code, own))
    refused(Code.ENROL_REVOKED, lambda: office.renew(own, granted(office, own, grant)))
    assert office.enrol(ticket.code, new_node()), "and the ticket is still good"


def test_whose_credential_is_long_over_is_forgotten(office: Office) -> None:
    office.enrol(office.ticket(name="old").code, new_node())
    office.clock.advance(DAY_S + FORGOTTEN_SECONDS + 1)
    office.enrol(office.ticket(name="new").code, new_node())

    assert [member.name for member in office.members.members()] == ["agent://acme/new"]


def test_a_token_lets_one_identity_in_until_nobody_would_take_it(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members_module, "TOKENS_KEPT_MAX", 2)
    one, other = authority().identifier, stranger().own.identifier
    use = office.members.use_token
    for token in (b"\0" * 32, b"\1" * 32):
        use(token, one, unix_s=0, until_unix_s=10)
    use(b"\0" * 32, one, unix_s=10, until_unix_s=10)

    refused(Code.ENROL_TOKEN_USED, lambda: use(b"\0" * 32, other, unix_s=10, until_unix_s=10))
    refused(Code.LOCAL_LIMIT, lambda: use(b"\2" * 32, one, unix_s=10, until_unix_s=20))
    use(b"\2" * 32, one, unix_s=11, until_unix_s=20)
