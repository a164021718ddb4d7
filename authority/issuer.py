"""What the authority does: turns a ticket into a credential. Pure but for its tables."""

from collections.abc import Mapping
from typing import Any, Final

from authority.tickets import TICKET_SECONDS_MAX, IssuedNode, Terms, TicketBook
from identity import (
    AgentUri,
    AttributeValue,
    ChangeHistory,
    Code,
    Delegable,
    GatewayAddress,
    Identifier,
    IdentityError,
    NamePrefix,
    OwnIdentity,
    SidelinkError,
    SignatureBudget,
    SignedCredential,
    SigningKey,
    Ticket,
    create_history,
    issue_credential,
)
from node.enrolment_wire import EnrolGrant, EnrolRequest
from policy import Action

NODE_DEPTH: Final = 3
"""authority → node → agent → subagent: what a node may pass on reaches two generations."""
AGENT_LIFETIME_SECONDS: Final = 7 * 86_400
ROLES: Final = ("sidecar", "gateway")

# What agents may ever be allowed to do. Whether they are, policy decides each time.
AGENT_ACTIONS: Final = tuple(
    str(action)
    for action in Action
    if action not in (Action.HOP_ADMIT, Action.NODE_ENROL, Action.ROUTE_REGISTER, Action.LINK_RELAY)
)


class Issuer:
    """One trust domain's issuer of node credentials."""

    def __init__(
        self,
        own: OwnIdentity,
        trust_domain: str,
        book: TicketBook,
        *,
        node_credential_ttl_s: int,
    ) -> None:
        self._own = own
        self._trust_domain = trust_domain
        self._book = book
        self._ttl_s = node_credential_ttl_s

    def create_ticket(
        self,
        wishes: Mapping[str, Any],
        gateways: tuple[GatewayAddress, ...],
        *,
        unix_s: float,
    ) -> Ticket:
        """Give out a ticket. ``wishes`` come from the admin socket and are checked here.

        Raises SidelinkError: local.bad_request, enrol.no_gateway, local.limit.
        """
        terms, seconds = self._terms(wishes)
        self._rehearse(terms, int(unix_s))
        if terms.role == "sidecar" and not gateways:
            raise SidelinkError(
                Code.ENROL_NO_GATEWAY, "no gateway of this authority has enrolled yet"
            )
        expires_unix_s = int(unix_s) + seconds
        code = self._book.create(terms, unix_s=int(unix_s), expires_unix_s=expires_unix_s)
        return Ticket(
            trust_domain=self._trust_domain,
            authority=self._own.identifier,
            gateways=gateways if terms.role == "sidecar" else (),
            code=code,
            expires_unix_s=expires_unix_s,
        )

    def enrol(
        self,
        request: EnrolRequest,
        node: Identifier,
        gateways: tuple[GatewayAddress, ...],
        *,
        unix_s: float,
    ) -> tuple[EnrolGrant, Terms]:
        """Redeem a ticket for the node that the channel proved. Raises SidelinkError."""
        try:
            history = ChangeHistory.decode_untrusted(request.history)
            if history.identifier != node:
                raise SidelinkError(Code.ENROL_BAD_REQUEST, "the history is of somebody else")
            # A history may be long: its signatures are checked for nobody without a ticket, and
            # who has one may ask again with a history that is sound.
            terms = self._book.redeem(request.code, node, unix_s)
            history.verify_signatures(SignatureBudget(2 * len(history.changes)))
        except IdentityError as exc:
            raise SidelinkError(Code.ENROL_BAD_REQUEST, exc.detail) from exc
        issued_unix_s = int(unix_s)
        signed = self._issue(terms, history, issued_unix_s)
        self._book.issued(
            IssuedNode(
                str(terms.name), node, terms.role, issued_unix_s, issued_unix_s + self._ttl_s
            )
        )
        grant = EnrolGrant(signed.encoded, self._own.history.encode(), gateways)
        return grant, terms

    def _issue(self, terms: Terms, subject: ChangeHistory, issued_unix_s: int) -> SignedCredential:
        return issue_credential(
            self._own.signing_key,
            self._own.history,
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

    def _rehearse(self, terms: Terms, unix_s: int) -> None:
        """Issue for nobody: what no credential can hold is refused to whoever asks for a ticket,
        not to the node that comes with it."""
        nobody = create_history(
            SigningKey.generate(), created_unix_s=unix_s, expires_unix_s=unix_s + self._ttl_s
        )
        try:
            self._issue(terms, nobody, unix_s)
        except IdentityError as exc:
            raise _bad(exc.detail) from exc

    def _terms(self, wishes: Mapping[str, Any]) -> tuple[Terms, int]:
        known = {"role", "name", "prefixes", "attributes", "allowed_attributes", "expires_in_s"}
        unknown = sorted(set(wishes) - known)
        if unknown:
            raise _bad(f"unknown field {unknown[0]!r}")
        role = wishes.get("role", "sidecar")
        if role not in ROLES:
            raise _bad(f"role must be one of {', '.join(ROLES)}")
        seconds = wishes.get("expires_in_s", 3600)
        if type(seconds) is not int or not 1 <= seconds <= TICKET_SECONDS_MAX:
            raise _bad(f"expires_in_s must be from 1 to {TICKET_SECONDS_MAX}")
        name = self._name(wishes.get("name") or ("gateway" if role == "gateway" else None))
        try:
            return Terms(
                name=name,
                role=role,
                attributes=_attributes(wishes.get("attributes") or {}),
                delegable=self._delegable(role, name, wishes),
            ), seconds
        except IdentityError as exc:
            raise _bad(exc.detail) from exc

    def _name(self, path: Any) -> AgentUri:
        if not isinstance(path, str):
            raise _bad("a node needs a name: its path within the trust domain")
        try:
            return AgentUri.in_domain(self._trust_domain, path)
        except IdentityError as exc:
            raise _bad(exc.detail) from exc

    def _delegable(self, role: str, name: AgentUri, wishes: Mapping[str, Any]) -> Delegable | None:
        if role == "gateway":
            return None
        paths = wishes.get("prefixes") or ["/".join(name.path)]
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise _bad("prefixes must be a list of paths")
        prefixes = tuple(
            NamePrefix(self._trust_domain, AgentUri.in_domain(self._trust_domain, path).path)
            for path in paths
        )
        allowed = wishes.get("allowed_attributes") or {}
        if not isinstance(allowed, Mapping):
            raise _bad("allowed_attributes must be an object")
        return Delegable(
            name_prefixes=prefixes,
            attributes={str(key): _allowed(values) for key, values in allowed.items()},
            actions=AGENT_ACTIONS,
            depth=NODE_DEPTH,
            lifetime_s_max=AGENT_LIFETIME_SECONDS,
        )


def _attributes(given: Any) -> dict[str, AttributeValue]:
    if not isinstance(given, Mapping):
        raise _bad("attributes must be an object")
    return {str(key): _attribute(value) for key, value in given.items()}


def _allowed(values: Any) -> tuple[AttributeValue, ...] | None:
    if values is None:
        return None
    if not isinstance(values, list):
        raise _bad("the allowed values of an attribute are a list, or null for any")
    return tuple(_attribute(item) for item in values)


def _attribute(value: Any) -> AttributeValue:
    if isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise _bad(f"{value!r} is neither text, integer, boolean nor a list of text")


def _bad(detail: str) -> SidelinkError:
    return SidelinkError(Code.LOCAL_BAD_REQUEST, detail)
