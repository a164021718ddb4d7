"""Who has enrolled: each node under one name, with what it was granted; and the gateways.

A name has one holder. It is free again when the holder's credential is over, or the holder revoked;
before that only an operator, or whoever vouches for a workload, gives it to another node.
"""

from dataclasses import dataclass
from typing import Final

from authority.tables import Tables
from authority.terms import Terms, decode_terms, encode_terms
from identity import AgentUri, Code, Identifier, Pin, SidelinkError

# Who has been away for so long is forgotten. Its credential is over: it needs a ticket anyway.
FORGOTTEN_SECONDS: Final = 30 * 86_400
TOKENS_KEPT_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Member:
    """A node, and when its newest credential was issued and ends."""

    name: str
    identifier: Identifier
    role: str
    issued_unix_s: int
    expires_unix_s: int


class MemberBook:
    """The authority's tables of nodes, used tokens and gateways."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def holder_of(
        self, name: AgentUri, unix_s: float, *, but: Identifier | None = None
    ) -> Identifier | None:
        """The node that holds a name now, unless it is ``but``."""
        row = self._tables.row(
            "SELECT identifier FROM authority_members WHERE name = ? AND expires_unix_s > ? "
            "AND identifier IS NOT ? "
            "AND identifier NOT IN (SELECT identifier FROM authority_revocations)",
            str(name),
            unix_s,
            None if but is None else but.digest,
        )
        return None if row is None else Identifier(bytes(row[0]))

    def check_not_revoked(self, node: Identifier) -> None:
        """Raises SidelinkError (enrol.revoked): a revoked identity is never let in again."""
        row = self._tables.row(
            "SELECT 1 FROM authority_revocations WHERE identifier = ?", node.digest
        )
        if row is not None:
            raise SidelinkError(Code.ENROL_REVOKED, f"{node} was revoked")

    def admit(
        self,
        node: Identifier,
        terms: Terms,
        pin: Pin,
        *,
        unix_s: int,
        expires_unix_s: int,
        replaces: bool,
    ) -> None:
        """Enter a node that gets a credential, or change what it has.

        Whoever had the name before loses its place: its credential is not renewed.
        Raises SidelinkError (enrol.name_denied) for the name of another, unless ``replaces``.
        """
        with self._tables.together():
            holder = self.holder_of(terms.name, unix_s, but=node)
            if holder is not None and not replaces:
                raise SidelinkError(Code.ENROL_NAME_DENIED, f"{terms.name} is held by {holder}")
            self._tables.write(
                "DELETE FROM authority_members "
                "WHERE (name = ? AND identifier != ?) OR expires_unix_s < ?",
                str(terms.name),
                node.digest,
                unix_s - FORGOTTEN_SECONDS,
            )
            self._tables.write(
                "INSERT OR REPLACE INTO authority_members VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                node.digest,
                str(terms.name),
                terms.role,
                encode_terms(terms),
                pin.change_number,
                pin.head_hash,
                unix_s,
                expires_unix_s,
            )

    def terms_of(self, node: Identifier) -> Terms:
        """What a member was granted last. Raises SidelinkError (enrol.not_a_member)."""
        row = self._tables.row(
            "SELECT terms FROM authority_members WHERE identifier = ?", node.digest
        )
        if row is None or row[0] is None:
            raise SidelinkError(Code.ENROL_NOT_A_MEMBER, f"{node} is not in the book")
        return decode_terms(bytes(row[0]))

    def pin_of(self, node: Identifier) -> Pin | None:
        """The point of its history that a member has shown last, its signatures verified."""
        row = self._tables.row(
            "SELECT change_number, head_hash FROM authority_members WHERE identifier = ?",
            node.digest,
        )
        return None if row is None or row[1] is None else Pin(row[0], bytes(row[1]))

    def use_token(
        self, token_hash: bytes, node: Identifier, *, unix_s: float, until_unix_s: int
    ) -> None:
        """Keep in mind which node a token let in, until nobody would take it any more.

        Raises SidelinkError: enrol.token_used, local.limit.
        """
        with self._tables.together():
            self._tables.write("DELETE FROM authority_tokens WHERE until_unix_s < ?", unix_s)
            (count,) = self._tables.row("SELECT count(*) FROM authority_tokens")
            row = self._tables.row(
                "SELECT identifier FROM authority_tokens WHERE token_hash = ?", token_hash
            )
            if row is not None:
                if bytes(row[0]) != node.digest:
                    raise SidelinkError(Code.ENROL_TOKEN_USED, "another node has used it")
                return
            if count >= TOKENS_KEPT_MAX:
                raise SidelinkError(Code.LOCAL_LIMIT, f"{TOKENS_KEPT_MAX} tokens are kept")
            self._tables.write(
                "INSERT INTO authority_tokens VALUES (?, ?, ?)",
                token_hash,
                node.digest,
                until_unix_s,
            )

    def members(self) -> list[Member]:
        rows = self._tables.rows(
            "SELECT name, identifier, role, issued_unix_s, expires_unix_s "
            "FROM authority_members ORDER BY name, identifier"
        )
        return [
            Member(name, Identifier(bytes(digest)), role, issued, expires)
            for name, digest, role, issued, expires in rows
        ]

    def find(self, name: AgentUri) -> Identifier | None:
        """The node that had a name last, whether its credential still counts or not."""
        row = self._tables.row("SELECT identifier FROM authority_members WHERE name = ?", str(name))
        return None if row is None else Identifier(bytes(row[0]))

    def set_gateway(self, address: str, gateway: Identifier) -> None:
        self._tables.write(
            "INSERT OR REPLACE INTO authority_gateways VALUES (?, ?)", address, gateway.digest
        )

    def gateway_at(self, address: str) -> Identifier | None:
        row = self._tables.row(
            "SELECT identifier FROM authority_gateways WHERE address = ?", address
        )
        return None if row is None else Identifier(bytes(row[0]))
