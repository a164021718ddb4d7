"""The authority's tables: an older version is taken over, a newer one refused."""

import sqlite3
from pathlib import Path

import pytest

from authority.members import MemberBook
from authority.tables import MIGRATIONS, Tables
from authority.terms import Terms, encode_terms
from authority.tickets import TicketBook, _hash
from identity import AgentUri, Code, Identifier, SidelinkError
from node.errors import ConfigError

ONE, OTHER, THIRD = (Identifier(bytes([number]) * 32) for number in range(3))
NOW = 1_800_000_000
CODE, OPEN = bytes(16), bytes([1]) * 16


def laid_by_the_first_version(path: Path) -> None:
    """As it was laid before versions were noted: a used ticket, an open one, two nodes."""
    connection = sqlite3.connect(path)
    connection.executescript(MIGRATIONS[0])
    terms = encode_terms(Terms(AgentUri.parse("agent://acme/finance"), "sidecar", {"a": 1}, None))
    for code, redeemed_by in ((CODE, ONE.digest), (OPEN, None)):
        connection.execute(
            "INSERT INTO authority_tickets VALUES (?, ?, ?, ?)",
            (_hash(code), terms, NOW + 60, redeemed_by),
        )
    for name, node in (("finance", ONE), ("lost", OTHER)):
        connection.execute(
            "INSERT INTO authority_nodes VALUES (?, ?, ?, ?, ?)",
            (f"agent://acme/{name}", node.digest, "sidecar", NOW, NOW + 60),
        )
    connection.commit()
    connection.close()


def test_tables_of_the_first_version_keep_their_tickets_nodes_and_terms(tmp_path: Path) -> None:
    laid_by_the_first_version(tmp_path / "state.db")
    for _ in range(2):
        tables = Tables(tmp_path / "state.db")
        members = MemberBook(tables)
        tickets = TicketBook(tables, members)
        assert tickets.redeem(CODE, ONE, NOW).terms == members.terms_of(ONE)
        with pytest.raises(SidelinkError) as used:
            tickets.redeem(CODE, OTHER, NOW)
        with pytest.raises(SidelinkError) as unknown:
            members.terms_of(OTHER)
        held = members.holder_of(AgentUri.parse("agent://acme/lost"), NOW)
        states = sorted(ticket.state(NOW) for ticket in tickets.tickets())
        tables.close()

        assert used.value.code is Code.ENROL_TICKET_USED
        assert unknown.value.code is Code.ENROL_NOT_A_MEMBER
        assert held == OTHER
        assert states == ["open", "used"]


def test_tables_of_a_newer_version_are_left_alone(tmp_path: Path) -> None:
    Tables(tmp_path / "state.db").close()
    connection = sqlite3.connect(tmp_path / "state.db")
    connection.execute("INSERT INTO authority_schema VALUES (?)", (len(MIGRATIONS) + 1,))
    connection.commit()
    connection.close()

    with pytest.raises(ConfigError) as caught:
        Tables(tmp_path / "state.db")
    assert caught.value.code is Code.CONFIG_INVALID
    assert "newer version" in caught.value.detail


def test_what_fails_in_the_middle_was_never_written(tmp_path: Path) -> None:
    tables = Tables(tmp_path / "state.db")
    members = MemberBook(tables)

    def write_and_fail() -> None:
        with tables.together():
            members.set_gateway("gw:1", ONE)
            members.set_gateway("gw:2", ONE)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()

    assert members.gateway_at("gw:1") is None
    tables.close()
