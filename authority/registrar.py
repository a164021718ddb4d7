"""The authority's business: answers what nodes ask at the desk, and what its operator wants."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, assert_never

import structlog

from authority.desk import Reply
from authority.issuer import Issuer, Workload
from authority.revocations import RevocationBook
from authority.tables import Tables
from authority.terms import Terms
from authority.tickets import IssuedTicket
from authority.workloads import Workloads
from identity import (
    AgentUri,
    Code,
    GatewayAddress,
    Identifier,
    IdentityError,
    SidelinkError,
    VerifiedPeer,
    decode_revocations_untrusted,
    encode_voucher,
)
from link import HopPort
from node.enrolment_wire import (
    AnyRequest,
    EnrolGrant,
    EnrolRefusal,
    EnrolRequest,
    RenewRequest,
    TokenRequest,
    encode_grant,
    encode_refusal,
)
from node.errors import ConfigError
from node.parts import Parts
from node.settings import AuthoritySettings
from node.store import RESTORED_UNIX_S
from policy import Action, Denial, Party, Request

# What this program has done about what `sidelink restore` wrote.
_RESTORED_SEEN: Final = "authority_restored_seen"

_log = structlog.get_logger("authority")


class Registrar:
    """One for the program. ``gateways`` is asked for each grant; ``ticket_given`` is told that a
    node will come, ``gateway_enrolled`` of a gateway that got its credential over its own hop.
    ``may_publish`` says no until it is known which of this authority's lists others hold."""

    def __init__(
        self,
        parts: Parts,
        settings: AuthoritySettings,
        *,
        gateways: Callable[[], tuple[GatewayAddress, ...]],
        ticket_given: Callable[[], None],
        gateway_enrolled: Callable[[HopPort, Identifier], None],
        may_publish: Callable[[], bool] = lambda: True,
    ) -> None:
        self._parts = parts
        self._gateways = gateways
        self._ticket_given = ticket_given
        self._gateway_enrolled = gateway_enrolled
        self._may_publish = may_publish
        self._tables = Tables(parts.folder.database)
        self._issuer = Issuer(
            lambda: parts.node.own,
            settings.trust_domain,
            self._tables,
            node_credential_ttl_s=settings.node_credential_ttl_s,
        )
        self.members = self._issuer.members
        self.revocations = RevocationBook(
            self._tables,
            lambda: parts.node.own,
            settings.trust_domain,
            next_update_s=settings.revocation_next_update_s,
        )
        restored = parts.store.get(RESTORED_UNIX_S)
        self._void_after_restore(restored)
        self._workloads = Workloads(
            settings.workloads,
            trust_domain=settings.trust_domain,
            audience=f"sidelink:{parts.node.identifier}",
            clock=parts.clock,
            issued_after_unix_s=0.0 if restored is None else float(restored),
        )
        self._published: bytes | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._count()
        self._serve()
        parts.node.on_change.append(self.publish)
        parts.rotation.on_used.append(self.publish)
        parts.awaiting["the newest state of this authority: its key was rotated since this one"] = (
            lambda: not self._is_outdated()
        )

    def publish(self) -> None:
        """Give the newest list to this node's own trust, which keeps it and passes it on.

        Called when somebody was revoked, when the key changed, and now and then: a list is signed
        anew at half of its time. Not before it is known what others hold: a list that is newer by
        the clock would take the place of one that names whom a restored backup has forgotten.
        """
        if not self._may_publish():
            return
        trust, own = self._parts.node.trust, self._parts.node.identifier
        known = trust.encoded(own)
        unix_s = self._parts.clock.unix_s()
        try:
            # A gateway may have kept what a restored backup has forgotten.
            is_foreign = known is not None and known != self._published
            if is_foreign and self.revocations.merge_untrusted(known or b"", unix_s=unix_s):
                _log.warning("revocations_learned", number=trust.lists.number(own))
            self._published = self.revocations.current(unix_s)
            trust.offer_untrusted(self._published)
        except SidelinkError as exc:
            _log.error("revocations_not_published", code=exc.code.text, why=exc.detail)

    def _is_outdated(self) -> bool:
        """Whether others have seen more of this authority's history than it has itself."""
        own = self._parts.node.own
        seen = self._parts.node.trust.verifier.anchor_history(own.identifier)
        return seen is not None and seen.change_number > own.history.change_number

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._workloads.close()
        self._tables.close()

    def answer(self, request: AnyRequest, peer: VerifiedPeer, hop: HopPort, reply: Reply) -> None:
        """Judge the request of a proved node; a token's answer may come later."""
        match request:
            case EnrolRequest() | RenewRequest():
                reply(self._judge(lambda: self._grant(request, peer), peer, hop))
            case TokenRequest():
                task = asyncio.create_task(self._answer_token(request, peer, hop, reply))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case _:
                assert_never(request)

    def _grant(
        self, request: EnrolRequest | RenewRequest, peer: VerifiedPeer
    ) -> tuple[EnrolGrant, Terms]:
        unix_s = self._parts.clock.unix_s()
        if isinstance(request, RenewRequest):
            return self._issuer.renew(request, peer, self._gateways(), unix_s=unix_s)
        return self._issuer.enrol(request, peer.identifier, self._gateways(), unix_s=unix_s)

    async def _answer_token(
        self, request: TokenRequest, peer: VerifiedPeer, hop: HopPort, reply: Reply
    ) -> None:
        workload: Workload | SidelinkError
        try:
            workload = await self._workloads.verify_untrusted(request.token)
        except SidelinkError as exc:
            workload = exc

        def grant() -> tuple[EnrolGrant, Terms]:
            if isinstance(workload, SidelinkError):
                raise workload
            self._ask_policy(workload.terms, peer.identifier)
            return self._issuer.enrol_workload(
                workload,
                request.history,
                peer.identifier,
                self._gateways(),
                unix_s=self._parts.clock.unix_s(),
            )

        reply(self._judge(grant, peer, hop))

    def _ask_policy(self, terms: Terms, node: Identifier) -> None:
        """A token's claims gave name and attributes; policy may know better than they do."""
        own = self._parts.node.party()
        subject = Party(
            identifier=node,
            name=terms.name,
            kind="node",
            role_of_node=terms.role,
            trust_domain=own.trust_domain,
            issuer=own.identifier,
            attributes=terms.attributes,
        )
        decision = self._parts.admission.decide(Request(Action.NODE_ENROL, subject, own))
        if isinstance(decision, Denial):
            raise SidelinkError(Code.ENROL_DENIED, decision.reason)

    def _judge(
        self, grant: Callable[[], tuple[EnrolGrant, Terms]], peer: VerifiedPeer, hop: HopPort
    ) -> bytes:
        """The encoded answer, counted and written down."""
        node = peer.identifier
        try:
            granted, terms = grant()
        except ConfigError as exc:
            # Our own trouble, with a full disk for example: it is none of the node's, which asks
            # again.
            _log.error("enrolment_failed", node=str(node), code=exc.code.text, why=exc.detail)
            self._refused.increment(code=Code.ENROL_AUTHORITY_UNREACHABLE.text)
            return encode_refusal(EnrolRefusal(Code.ENROL_AUTHORITY_UNREACHABLE))
        except SidelinkError as exc:
            self._refused.increment(code=exc.code.text)
            _log.warning("enrolment_refused", node=str(node), code=exc.code.text, why=exc.detail)
            return encode_refusal(EnrolRefusal(exc.code))
        self._issued.increment(role=terms.role)
        _log.info("enrolled", node=str(node), name=str(terms.name), role=terms.role)
        if terms.role == "gateway" and hop.peer.identifier == node:
            self._gateway_enrolled(hop, node)
        return encode_grant(granted)

    def _void_after_restore(self, restored: bytes | None) -> None:
        """A backup knows nothing of what was redeemed behind it: its open tickets are void."""
        store = self._parts.store
        if restored is None or restored == store.get(_RESTORED_SEEN):
            return
        count = self._issuer.tickets.void_open(self._parts.clock.unix_s())
        store.put(_RESTORED_SEEN, restored)
        _log.warning("tickets_voided", count=count, why="this authority was restored from a backup")

    # The operator's side.

    def _serve(self) -> None:
        add = self._parts.admin.add
        add("POST", "/v1/tickets", self._create_ticket)
        add("GET", "/v1/tickets", self._list_tickets)
        add("POST", "/v1/tickets/revoke", self._revoke_ticket)
        add("GET", "/v1/invitation", self._invitation)
        add("POST", "/v1/vouchers", self._vouch)
        add("POST", "/v1/revocations", self._revoke)
        add("GET", "/v1/revocations", self._list_revocations)
        self._parts.status["nodes"] = self._node_status

    def _count(self) -> None:
        metrics = self._parts.metrics
        self._issued = metrics.counter(
            "credentials_issued", "Node credentials issued.", role=("sidecar", "gateway")
        )
        self._refused = metrics.counter(
            "enrolments_refused",
            "Enrolments and renewals refused, by code.",
            code=[code.text for code in Code if code.text.startswith("enrol.")],
        )
        metrics.gauge("revocations", "Identities revoked.", lambda: self.revocations.count)

    async def _create_ticket(self, wishes: Mapping[str, Any]) -> object:
        given = self._issuer.create_ticket(
            wishes, self._gateways(), unix_s=self._parts.clock.unix_s()
        )
        self._ticket_given()
        return {
            "ticket": given.ticket.encode(),
            "id": given.id,
            "expires_unix_s": given.ticket.expires_unix_s,
            "held_by": None if given.held_by is None else str(given.held_by),
        }

    async def _list_tickets(self, _: Mapping[str, Any]) -> object:
        unix_s = self._parts.clock.unix_s()
        tickets = self._issuer.tickets.tickets()
        return {"tickets": [_ticket_fields(ticket, unix_s) for ticket in tickets]}

    async def _revoke_ticket(self, body: Mapping[str, Any]) -> object:
        ticket_id = _only_text(body, "id")
        used = self._issuer.tickets.revoke(ticket_id)
        _log.info("ticket_revoked", ticket=ticket_id, used=used)
        return {"id": ticket_id, "used": used}

    async def _invitation(self, _: Mapping[str, Any]) -> object:
        return {"invitation": self._issuer.invitation(self._gateways()).encode()}

    async def _vouch(self, wishes: Mapping[str, Any]) -> object:
        link, credential = self._issuer.vouch(wishes, unix_s=self._parts.clock.unix_s())
        if self.revocations.is_revoked(credential.subject):
            raise SidelinkError(Code.ENROL_REVOKED, f"{credential.subject} is revoked here")
        _log.warning("vouched", subject=str(credential.subject), name=str(credential.name))
        return {
            "voucher": encode_voucher(link),
            "subject": str(credential.subject),
            "name": str(credential.name),
            "expires_unix_s": credential.expires_unix_s,
        }

    async def _revoke(self, body: Mapping[str, Any]) -> object:
        who = _only_text(body, "who", "reason")
        identifier = self._find(who)
        reason = body.get("reason") or ""
        if not isinstance(reason, str):
            raise _bad("a reason is text")
        is_new = self.revocations.revoke(identifier, reason, unix_s=self._parts.clock.unix_s())
        _log.warning("revoked", identifier=str(identifier), asked=who, is_new=is_new, why=reason)
        self.publish()
        return {"identifier": str(identifier), "revoked_before": not is_new}

    async def _list_revocations(self, _: Mapping[str, Any]) -> object:
        current = self.revocations.current(self._parts.clock.unix_s())
        content = decode_revocations_untrusted(current).content
        return {
            "number": content.number,
            "issued_unix_s": content.issued_unix_s,
            "next_update_unix_s": content.next_update_unix_s,
            "revocations": [
                {
                    "identifier": str(one.identifier),
                    "revoked_unix_s": one.revoked_unix_s,
                    "reason": one.reason,
                }
                for one in self.revocations.revocations()
            ],
        }

    def _find(self, who: str) -> Identifier:
        """An identifier as it is, a node by its name: a path, or the whole URI."""
        try:
            if who.startswith("sl1"):
                return Identifier.parse(who)
            is_uri = who.startswith("agent://")
            domain = self._parts.node.party().trust_domain or ""
            name = AgentUri.parse(who) if is_uri else AgentUri.in_domain(domain, who)
        except IdentityError as exc:
            raise _bad(exc.detail) from exc
        found = self.members.find(name)
        if found is None:
            raise _bad(f"no node here is called {name}; agents are revoked by identifier")
        return found

    def _node_status(self) -> list[dict[str, Any]]:
        return [
            {
                "name": member.name,
                "identifier": str(member.identifier),
                "role": member.role,
                "expires_unix_s": member.expires_unix_s,
            }
            for member in self.members.members()
        ]


def _ticket_fields(ticket: IssuedTicket, unix_s: float) -> dict[str, Any]:
    name = str(ticket.offer.terms.name)
    return {
        "id": ticket.id,
        "role": ticket.offer.terms.role,
        "name": f"{name}/*" if ticket.offer.names_below else name,
        "uses_left": max(0, ticket.offer.uses - ticket.used),
        "created_unix_s": ticket.created_unix_s,
        "expires_unix_s": ticket.expires_unix_s,
        "state": ticket.state(unix_s),
    }


def _only_text(body: Mapping[str, Any], key: str, *others: str) -> str:
    unknown = sorted(set(body) - {key, *others})
    if unknown:
        raise _bad(f"unknown field {unknown[0]!r}")
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise _bad(f"{key} is missing")
    return value


def _bad(detail: str) -> SidelinkError:
    return SidelinkError(Code.LOCAL_BAD_REQUEST, detail)
