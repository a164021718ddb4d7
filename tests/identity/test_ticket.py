"""Tickets and invitations: one string each, read back whole or refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import Code, GatewayAddress, Identifier, IdentityError, Invitation, Ticket
from identity.cbor import encode
from identity.texts import _checksum, _to_base64
from tests.identity.helpers import NOW

AUTHORITY, GATEWAY = Identifier(b"\x01" * 32), Identifier(b"\x02" * 32)
TICKET = Ticket(
    trust_domain="acme",
    authority=AUTHORITY,
    gateways=(
        GatewayAddress("gateway.example", 7440, GATEWAY),
        GatewayAddress("2001:db8::1", 7440, GATEWAY),
    ),
    code=b"sixteen bytes !!",
    expires_unix_s=NOW,
)
TEXT = TICKET.encode()


def test_a_ticket_reads_back_as_it_was_made() -> None:
    assert TEXT.startswith("slt1")
    assert Ticket.parse_untrusted(TEXT) == TICKET


def test_a_gateways_own_ticket_names_no_gateway() -> None:
    ticket = Ticket("acme", AUTHORITY, (), bytes(16), NOW)

    assert Ticket.parse_untrusted(ticket.encode()).gateways == ()


@pytest.mark.parametrize("text", [f" {TEXT}\n", f"{TEXT}\r\n", f"\t{TEXT}"])
def test_white_space_round_a_ticket_does_no_harm(text: str) -> None:
    assert Ticket.parse_untrusted(text) == TICKET


def test_the_code_of_a_ticket_does_not_show_in_its_repr() -> None:
    assert "sixteen" not in repr(TICKET)


def forged(*, tail: bytes = b"", **changes: Any) -> str:
    """A ticket whose checksum is right and whose contents are not."""
    names = ("trust_domain", "authority", "gateways", "code", "expires", "unknown")
    fields: dict[int, Any] = {
        1: "acme",
        2: AUTHORITY.digest,
        3: [["127.0.0.1", 7440, GATEWAY.digest]],
        4: bytes(16),
        5: NOW,
    }
    fields |= {names.index(name) + 1: value for name, value in changes.items()}
    body = encode({key: value for key, value in fields.items() if value is not ...}) + tail
    return "slt1" + _to_base64(body + _checksum(body))


def gateway(host: Any = "127.0.0.1", port: Any = 7440, digest: Any = GATEWAY.digest) -> str:
    return forged(gateways=[[host, port, digest]])


WHAT_IS_NOT_A_TICKET = {
    "nothing": "",
    "the prefix alone": "slt1",
    "a checksum alone": "slt1" + _to_base64(_checksum(b"")),
    "another prefix": "slt2" + TEXT[4:],
    "an identifier": str(AUTHORITY),
    "a ticket cut short": TEXT[:-1],
    "half a ticket": TEXT[: len(TEXT) // 2],
    "a ticket with a character too many": TEXT + "A",
    "a ticket with padding": TEXT + "=",
    "a space within": TEXT[:20] + " " + TEXT[20:],
    "a line break within": TEXT[:20] + "\n" + TEXT[20:],
    "characters of the other base64": TEXT[:20] + "+" + TEXT[21:],
    "letters of another script": TEXT[:20] + "\u0430" + TEXT[21:],
    "far too long a text": "slt1" + "A" * 9000,
    "contents that are not CBOR": "slt1" + _to_base64(b"\xff" + _checksum(b"\xff")),
    "a trailing byte": forged(tail=b"\x00"),
    "a missing field": forged(code=...),
    "an unknown field": forged(unknown=1),
    "a trust domain that is none": forged(trust_domain="acme/finance"),
    "an authority that is too short": forged(authority=bytes(31)),
    "an authority as text": forged(authority=str(AUTHORITY)),
    "a code that is too short": forged(code=bytes(15)),
    "an expiry that is text": forged(expires="never"),
    "an expiry that is true": forged(expires=True),
    "17 gateways": forged(gateways=[["127.0.0.1", 7440, GATEWAY.digest]] * 17),
    "a gateway without an identifier": forged(gateways=[["127.0.0.1", 7440]]),
    "a gateway without a host": gateway(host=""),
    "a host that is an option": gateway(host="-oProxyCommand"),
    "a host that is a path": gateway(host="/run/x"),
    "a host with a newline": gateway(host="127.0.0.1\n"),
    "a host that is too long": gateway(host="a" * 254),
    "port 0": gateway(port=0),
    "port 65536": gateway(port=65_536),
    "a port that is true": gateway(port=True),
}


@pytest.mark.parametrize("text", WHAT_IS_NOT_A_TICKET.values(), ids=WHAT_IS_NOT_A_TICKET.keys())
def test_what_is_not_a_ticket_is_refused(text: str) -> None:
    with pytest.raises(IdentityError) as caught:
        Ticket.parse_untrusted(text)

    assert caught.value.code is Code.ENROL_TICKET_MALFORMED


def test_the_table_above_starts_from_a_ticket_that_is_read() -> None:
    assert Ticket.parse_untrusted(forged()).trust_domain == "acme"


def test_a_ticket_that_no_node_accepts_is_not_made() -> None:
    with pytest.raises(IdentityError):
        Ticket("acme", AUTHORITY, (), b"short", NOW).encode()
    with pytest.raises(IdentityError):
        GatewayAddress("", 7440, GATEWAY)


@given(st.integers(4, len(TEXT) - 1), st.sampled_from("AZaz09-_"))
def test_one_wrong_character_is_noticed(place: int, character: str) -> None:
    text = TEXT[:place] + character + TEXT[place + 1 :]
    if text == TEXT:
        return

    with pytest.raises(IdentityError):
        Ticket.parse_untrusted(text)


@given(st.text())
def test_no_text_raises_anything_else(text: str) -> None:
    for candidate in (text, "slt1" + text):
        with pytest.raises(IdentityError):
            Ticket.parse_untrusted(candidate)


@given(st.binary(max_size=100))
def test_no_contents_raise_anything_else(body: bytes) -> None:
    with pytest.raises(IdentityError):
        Ticket.parse_untrusted("slt1" + _to_base64(body + _checksum(body)))


INVITATION = Invitation("acme", AUTHORITY, TICKET.gateways)


def test_an_invitation_is_a_ticket_without_its_secret() -> None:
    text = INVITATION.encode()

    assert text.startswith("sli1")
    assert Invitation.parse_untrusted(f" {text}\n") == INVITATION


def forged_invitation(**changes: Any) -> str:
    names = ("trust_domain", "authority", "gateways", "code")
    fields: dict[int, Any] = {
        1: "acme",
        2: AUTHORITY.digest,
        3: [["127.0.0.1", 7440, GATEWAY.digest]],
    }
    fields |= {names.index(name) + 1: value for name, value in changes.items()}
    body = encode({key: value for key, value in fields.items() if value is not ...})
    return "sli1" + _to_base64(body + _checksum(body))


WHAT_IS_NOT_AN_INVITATION = {
    "nothing": "",
    "a ticket": TEXT,
    "a ticket that calls itself one": "sli1" + TEXT[4:],
    "an invitation cut short": INVITATION.encode()[:-1],
    "an invitation with a code": forged_invitation(code=bytes(16)),
    "an invitation to no gateway": forged_invitation(gateways=[]),
    "an invitation without an authority": forged_invitation(authority=...),
    "a trust domain that is none": forged_invitation(trust_domain="Acme"),
    "far too long a text": "sli1" + "A" * 9000,
}


@pytest.mark.parametrize(
    "text", WHAT_IS_NOT_AN_INVITATION.values(), ids=WHAT_IS_NOT_AN_INVITATION.keys()
)
def test_what_is_not_an_invitation_is_refused(text: str) -> None:
    with pytest.raises(IdentityError) as caught:
        Invitation.parse_untrusted(text)

    assert caught.value.code is Code.ENROL_TICKET_MALFORMED


def test_the_table_of_invitations_starts_from_one_that_is_read() -> None:
    assert Invitation.parse_untrusted(forged_invitation()).trust_domain == "acme"
