"""What a node was given to enrol with: a ticket, or an invitation with a token beside it."""

from pathlib import Path
from typing import Any

import pytest

from identity import Code, GatewayAddress, Identifier, Invitation, SidelinkError, Ticket
from node.enrolment_wire import TOKEN_CHARACTERS_MAX
from node.settings import GatewaySettings, SidecarSettings
from node.settings_load import load_settings
from node.tickets import load_entry, load_ticket, read_token

GATEWAYS = (GatewayAddress("gw.example", 7440, Identifier(bytes(32))),)
AUTHORITY = Identifier(bytes([1]) * 32)
TICKET = Ticket("acme", AUTHORITY, GATEWAYS, bytes(16), 2_000_000_000)
INVITATION = Invitation("acme", AUTHORITY, GATEWAYS)


def settings(**flags: Any) -> SidecarSettings:
    return load_settings(SidecarSettings, flags, variables={})


def code_of(call: Any) -> Code:
    with pytest.raises(SidelinkError) as caught:
        call()
    return caught.value.code


def test_nothing_given_is_nothing() -> None:
    assert load_entry(settings()) is None


@pytest.mark.parametrize("by_file", [False, True])
def test_a_ticket_or_an_invitation_comes_from_a_value_or_a_file(
    tmp_path: Path, by_file: bool
) -> None:
    def given(text: str) -> dict[str, Any]:
        if not by_file:
            return {"ticket": text}
        path = tmp_path / "ticket"
        path.write_text(f"\n {text}\n")
        return {"ticket_file": str(path)}

    token_file = str(tmp_path / "token")
    assert load_entry(settings(**given(TICKET.encode()))) == TICKET
    invited = settings(token_file=token_file, **given(INVITATION.encode()))
    assert load_entry(invited) == INVITATION


def test_an_invitation_lets_nobody_in_by_itself(tmp_path: Path) -> None:
    assert code_of(lambda: load_entry(settings(ticket=INVITATION.encode()))) is (
        Code.CONFIG_INVALID
    )


def test_a_token_beside_a_ticket_is_a_mistake(tmp_path: Path) -> None:
    both = settings(ticket=TICKET.encode(), token_file=str(tmp_path / "token"))

    assert code_of(lambda: load_entry(both)) is Code.CONFIG_INVALID


def test_a_gateway_enrols_by_ticket_only() -> None:
    invited = load_settings(GatewaySettings, {"ticket": INVITATION.encode()}, variables={})

    assert code_of(lambda: load_ticket(invited)) is Code.ENROL_TICKET_MALFORMED


def test_a_token_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    given = settings(token_file=str(path))
    for text in ("first", "second"):
        path.write_text(f"{text}\n")
        assert read_token(given) == text


TOKENS: dict[str, Any] = {
    "a file that is not there": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "an empty file": lambda path: path.write_text(" \n"),
    "a token that is too long": lambda path: path.write_text("x" * (TOKEN_CHARACTERS_MAX + 1)),
}


@pytest.mark.parametrize("make", TOKENS.values(), ids=TOKENS)
def test_no_token_is_in(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "token"
    make(path)

    assert code_of(lambda: read_token(settings(token_file=str(path)))) is Code.CONFIG_INVALID


@pytest.mark.parametrize("name", ["", "a/b", "..", "Pod", "x" * 64])
def test_a_node_is_not_called(name: str) -> None:
    if not name:
        assert settings(node_name=None).node_name is None
        return
    assert code_of(lambda: settings(node_name=name)) is Code.CONFIG_INVALID


def test_a_node_may_be_called_as_its_host_is() -> None:
    assert settings(node_name="billing-7f9c-x2").node_name == "billing-7f9c-x2"
