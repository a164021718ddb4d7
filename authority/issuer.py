"""What the authority does: gives tickets out, and credentials to whoever may have one. Pure but for
its tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from authority.members import MemberBook
from authority.tables import Tables
from authority.terms import Terms, segment_of
from authority.tickets import TicketBook, ticket_id
from authority.wishes import bad_wish, read_voucher_wishes, read_wishes
from identity import (
    ChainLink,
    ChangeHistory,
    Code,
    Credential,
    GatewayAddress,
    Identifier,
    IdentityError,
    Invitation,
    OwnIdentity,
    SidelinkError,
    SignatureBudget,
    SignedCredential,
    SigningKey,
    Ticket,
    VerifiedPeer,
    create_history,
    issue_credential,
)
from node.enrolment_wire import EnrolGrant, EnrolRequest, RenewRequest

_NO_GATEWAY: Final = "no gateway of this authority has enrolled yet"


@dataclass(frozen=True, slots=True)
class Workload:
    """What a verified token gives its node. ``token_hash`` counts until ``until_unix_s``."""

    terms: Terms
    replaces: bool
    token_hash: bytes
    until_unix_s: int


@dataclass(frozen=True, slots=True)
class GivenTicket:
    """A new ticket, its id, and who holds its name now: nobody else can use it unless it
    replaces."""

    ticket: Ticket
    id: str
    held_by: Identifier | None


class Issuer:
    """One trust domain's issuer of node credentials. ``own`` is asked anew each time: its key may
    be replaced while the program runs."""

    def __init__(
        self,
        own: Callable[[], OwnIdentity],
        trust_domain: str,
        tables: Tables,
        *,
        node_credential_ttl_s: int,
    ) -> None:
        self._own = own
        self._trust_domain = trust_domain
        self._tables = tables
        self._ttl_s = node_credential_ttl_s
        self.members = MemberBook(tables)
        self.tickets = TicketBook(tables, self.members)

    def create_ticket(
        self,
        wishes: Mapping[str, Any],
        gateways: tuple[GatewayAddress, ...],
        *,
        unix_s: float,
    ) -> GivenTicket:
        """Give out a ticket. ``wishes`` come from the admin socket and are checked here.

        Raises SidelinkError: local.bad_request, enrol.no_gateway, local.limit.
        """
        offer, seconds = read_wishes(self._trust_domain, wishes)
        self._rehearse(offer.terms, int(unix_s), names_below=offer.names_below)
        is_sidecar = offer.terms.role == "sidecar"
        if is_sidecar and not gateways:
            raise SidelinkError(Code.ENROL_NO_GATEWAY, _NO_GATEWAY)
        expires_unix_s = int(unix_s) + seconds
        code = self.tickets.create(offer, unix_s=int(unix_s), expires_unix_s=expires_unix_s)
        ticket = Ticket(
            trust_domain=self._trust_domain,
            authority=self._own().identifier,
            gateways=gateways if is_sidecar else (),
            code=code,
            expires_unix_s=expires_unix_s,
        )
        is_claimed = not offer.names_below and not offer.replaces
        held_by = self.members.holder_of(offer.terms.name, unix_s) if is_claimed else None
        return GivenTicket(ticket, ticket_id(code), held_by)

    def invitation(self, gateways: tuple[GatewayAddress, ...]) -> Invitation:
        """Raises SidelinkError (enrol.no_gateway)."""
        if not gateways:
            raise SidelinkError(Code.ENROL_NO_GATEWAY, _NO_GATEWAY)
        return Invitation(self._trust_domain, self._own().identifier, gateways)

    def vouch(self, wishes: Mapping[str, Any], *, unix_s: float) -> tuple[ChainLink, Credential]:
        """A credential for an agent of somebody else. Raises SidelinkError (local.bad_request)."""
        subject, name, attributes, seconds = read_voucher_wishes(self._trust_domain, wishes)
        own = self._own()
        try:
            signed = issue_credential(
                own.signing_key,
                own.history,
                subject,
                name=name,
                trust_domain=self._trust_domain,
                kind="agent",
                role_of_node=None,
                attributes=attributes,
                delegable=None,
                not_before_unix_s=int(unix_s),
                expires_unix_s=int(unix_s) + seconds,
            )
        except IdentityError as exc:
            raise bad_wish(exc.detail) from exc
        return ChainLink(signed.encoded, own.history.encode()), signed.credential

    def enrol(
        self,
        request: EnrolRequest,
        node: Identifier,
        gateways: tuple[GatewayAddress, ...],
        *,
        unix_s: float,
    ) -> tuple[EnrolGrant, Terms]:
        """Redeem a ticket for the node that the channel proved. Raises SidelinkError."""

        def terms() -> tuple[Terms, bool]:
            offer = self.tickets.redeem(request.code, node, unix_s, wish=request.name)
            return offer.terms, offer.replaces

        return self._admit(node, request.history, terms, gateways, unix_s)

    def enrol_workload(
        self,
        workload: Workload,
        history: bytes,
        node: Identifier,
        gateways: tuple[GatewayAddress, ...],
        *,
        unix_s: float,
    ) -> tuple[EnrolGrant, Terms]:
        """Use a token, which the caller has verified, for the node that the channel proved."""

        def terms() -> tuple[Terms, bool]:
            self.members.use_token(
                workload.token_hash, node, unix_s=unix_s, until_unix_s=workload.until_unix_s
            )
            return workload.terms, workload.replaces

        return self._admit(node, history, terms, gateways, unix_s)

    def renew(
        self,
        request: RenewRequest,
        peer: VerifiedPeer,
        gateways: tuple[GatewayAddress, ...],
        *,
        unix_s: float,
    ) -> tuple[EnrolGrant, Terms]:
        """A new credential on the same terms, for a node that has shown one that still counts.

        Raises SidelinkError: enrol.not_a_member for whoever has none of ours, or whose name was
        given to another node since; enrol.revoked.
        """
        if peer.identity.kind != "node" or peer.identity.issuer != self._own().identifier:
            raise SidelinkError(Code.ENROL_NOT_A_MEMBER, "it has shown no credential of ours")
        node = peer.identifier
        return self._admit(
            node,
            request.history,
            lambda: (self.members.terms_of(node), False),
            gateways,
            unix_s,
        )

    def _admit(
        self,
        node: Identifier,
        encoded_history: bytes,
        terms_of: Callable[[], tuple[Terms, bool]],
        gateways: tuple[GatewayAddress, ...],
        unix_s: float,
    ) -> tuple[EnrolGrant, Terms]:
        """All or nothing: what is refused has used no ticket up and changed no book."""
        own = self._own()
        issued_unix_s = int(unix_s)
        try:
            history = ChangeHistory.decode_untrusted(encoded_history)
            if history.identifier != node:
                raise SidelinkError(Code.ENROL_BAD_REQUEST, "the history is of somebody else")
            with self._tables.together():
                self.members.check_not_revoked(node)
                # A history may be long: its signatures are checked for nobody without a ticket, a
                # token or a place in the book.
                terms, replaces = terms_of()
                history.verify_signatures(
                    SignatureBudget(2 * len(history.changes)),
                    trusted_prefix=self.members.pin_of(node),
                )
                self.members.admit(
                    node,
                    terms,
                    history.pin,
                    unix_s=issued_unix_s,
                    expires_unix_s=issued_unix_s + self._ttl_s,
                    replaces=replaces,
                )
                signed = self._issue(own, terms, history, issued_unix_s)
        except IdentityError as exc:
            raise SidelinkError(Code.ENROL_BAD_REQUEST, exc.detail) from exc
        return EnrolGrant(signed.encoded, own.history.encode(), gateways), terms

    def _issue(
        self, own: OwnIdentity, terms: Terms, subject: ChangeHistory, issued_unix_s: int
    ) -> SignedCredential:
        return issue_credential(
            own.signing_key,
            own.history,
            subject,
            name=terms.name,
            trust_domain=self._trust_domain,
            kind="node",
            role_of_node="gateway" if terms.role == "gateway" else "sidecar",
            attributes=terms.attributes,
            delegable=terms.delegable,
            not_before_unix_s=issued_unix_s,
            expires_unix_s=issued_unix_s + self._ttl_s,
        )

    def _rehearse(self, terms: Terms, unix_s: int, *, names_below: bool) -> None:
        """Issue for nobody: what no credential can hold is refused to whoever asks for a ticket,
        not to the node that comes with it."""
        nobody = create_history(
            SigningKey.generate(), created_unix_s=unix_s, expires_unix_s=unix_s + self._ttl_s
        )
        try:
            named = terms.below(segment_of(nobody.identifier)) if names_below else terms
            self._issue(self._own(), named, nobody, unix_s)
        except IdentityError as exc:
            raise bad_wish(exc.detail) from exc
