"""How a node gets its credential: one question to the authority, sealed past the gateway between.

The exchange runs over any hop that leads to the authority. A sidecar dials a gateway for it; a
gateway that has no credential yet waits until its authority dials. Whoever renews has such a hop
open already, with other links on it.
"""

import asyncio
import os
from typing import Final

from channel import Channel, ChannelClosed, ChannelDenied, DataReceived, PeerVerified, Prologue
from identity import (
    ChainLink,
    ChangeHistory,
    Code,
    GatewayAddress,
    Identifier,
    IdentityError,
    Invitation,
    Purpose,
    SidelinkError,
    Ticket,
    TrustAnchor,
    VerifiedIdentity,
)
from identity.proof import Proof
from link import Frame, FrameKind, HopPort, LinkError, LinkIds
from link.limits import LINK_NONCE_BYTES
from link.messages import decode_credit_untrusted
from node.clocks import Clock
from node.enrolment_wire import (
    AnyRequest,
    EnrolGrant,
    EnrolRefusal,
    EnrolRequest,
    RenewRequest,
    TokenRequest,
    decode_answer_untrusted,
    encode_request,
)
from node.link_channel import LinkChannel
from node.own_node import OwnNode
from node.store import Store

ANSWER_SECONDS_MAX: Final = 20.0

# What an unsealed ending may mean before a word has been exchanged: nobody is there to answer.
_UNREACHABLE: Final = frozenset(
    {Code.ROUTE_UNKNOWN, Code.ROUTE_UNREACHABLE, Code.CHANNEL_TIMEOUT, Code.CHANNEL_UNSEALED_END}
)


class EnrolmentExchange:
    """One request on one hop. Give it the frames of that hop; await ``answer``.

    On a hop that carries other links, ``link`` is the next number of whoever numbers them; on one
    of its own the exchange takes the first.
    """

    def __init__(
        self,
        node: OwnNode,
        authority: Identifier,
        request: AnyRequest,
        hop: HopPort,
        clock: Clock,
        *,
        link: int | None = None,
    ) -> None:
        self._clock = clock
        self._request = encode_request(request)
        self._answer: asyncio.Future[EnrolGrant] = asyncio.get_running_loop().create_future()
        nonce = os.urandom(LINK_NONCE_BYTES)
        channel = Channel.connect(
            key=node.channel_key,
            proof=node.channel_proof,
            prologue=Prologue(purpose="channel", target=str(authority), nonce=nonce),
            verify=node.verify_channel,
            now_s=clock.now_s(),
        )
        self._authority = authority
        if link is None:
            link = LinkIds(is_dialler=hop.is_dialler).take()
        self._links = LinkChannel(hop, link, channel)
        self._links.send_open(authority, node.identifier, nonce)

    @property
    def link(self) -> int:
        """The frames of this link are the exchange's, and nobody else's."""
        return self._links.link

    async def answer(self) -> EnrolGrant:
        """Raises SidelinkError with what the authority said, or why it could not be asked."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                return await self._answer
        except TimeoutError:
            raise SidelinkError(
                Code.ENROL_AUTHORITY_UNREACHABLE, "the authority did not answer in time"
            ) from None
        finally:
            self._links.channel.close()
            self._links.pump()

    def hop_closed(self, code: Code, detail: str) -> None:
        self._fail(code, detail)

    def frames_received(self, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.link != self._links.link:
                continue
            try:
                self._receive_untrusted(frame)
            except LinkError as exc:
                self._fail(exc.code, exc.detail)

    def _receive_untrusted(self, frame: Frame) -> None:
        if frame.kind == FrameKind.CREDIT:
            self._links.credit(decode_credit_untrusted(frame.body))
            return
        if not FrameKind.LINK_ACCEPT <= frame.kind <= FrameKind.LINK_CLOSE:
            return
        now_s = self._clock.now_s()
        events, owed_bytes = self._links.receive(frame.kind, frame.body, now_s)
        for event in events:
            match event:
                case PeerVerified():
                    self._verified(event.peer.identity, now_s)
                case DataReceived():
                    self._links.consume(owed_bytes)
                    self._answered_untrusted(event.data)
                case ChannelDenied():
                    self._fail(event.code, event.reason)
                case ChannelClosed():
                    code = event.code
                    unreachable = code in _UNREACHABLE and not event.sealed
                    code = Code.ENROL_AUTHORITY_UNREACHABLE if unreachable else code
                    self._fail(code, f"the channel to the authority ended: {event.code.text}")
                case _:
                    pass
        self._links.pump()

    def _verified(self, peer: VerifiedIdentity, now_s: float) -> None:
        """A code or a token is a secret: only the authority that is named may have it."""
        if peer.identifier != self._authority:
            self._links.channel.close(Code.ENROL_WRONG_AUTHORITY)
            self._fail(Code.ENROL_WRONG_AUTHORITY, f"{peer.identifier} answered instead")
            return
        self._links.channel.send(self._request, now_s)

    def _answered_untrusted(self, data: bytes) -> None:
        try:
            answer = decode_answer_untrusted(data)
        except SidelinkError as exc:
            self._fail(exc.code, exc.detail)
            return
        if isinstance(answer, EnrolRefusal):
            self._fail(answer.code, "the authority refused")
        elif not self._answer.done():
            self._answer.set_result(answer)

    def _fail(self, code: Code, detail: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(SidelinkError(code, detail))


def ticket_exchange(
    node: OwnNode, ticket: Ticket, hop: HopPort, clock: Clock, *, name: str | None = None
) -> EnrolmentExchange:
    """Ask with a ticket. ``name`` is the segment to be called, if the ticket leaves a choice."""
    request = EnrolRequest(ticket.code, node.own.history.encode(), name)
    return EnrolmentExchange(node, ticket.authority, request, hop, clock)


def token_exchange(
    node: OwnNode, invitation: Invitation, token: str, hop: HopPort, clock: Clock
) -> EnrolmentExchange:
    """Ask with a workload token."""
    request = TokenRequest(token, node.own.history.encode())
    return EnrolmentExchange(node, invitation.authority, request, hop, clock)


def renewal_exchange(
    node: OwnNode, hop: HopPort, clock: Clock, *, link: int | None = None
) -> EnrolmentExchange:
    """Ask for a new credential on the terms of the one that this node holds, for its history as it
    is now. Raises SidelinkError (enrol.not_a_member) for a node that holds none that counts."""
    authority = node.identity.issuer
    if not node.enrolled or authority is None:
        raise SidelinkError(Code.ENROL_NOT_A_MEMBER, "this node has no credential to renew")
    request = RenewRequest(node.own.history.encode())
    return EnrolmentExchange(node, authority, request, hop, clock, link=link)


def check_role(node: OwnNode, role: str, entry: Ticket | Invitation | None = None) -> None:
    """Raises SidelinkError for a credential, a ticket or an invitation that makes this node
    something else."""
    held = node.identity.role_of_node
    if node.enrolled and held != role:
        raise SidelinkError(
            Code.ENROL_WRONG_ROLE, f"this state folder holds the credential of a {held}"
        )
    if entry is not None and bool(entry.gateways) != (role != "gateway"):
        other = "sidecar" if entry.gateways else "gateway"
        raise SidelinkError(
            Code.ENROL_WRONG_ROLE, f"this ticket is for a {other}, and this is a {role}"
        )


def trust_ticket(node: OwnNode, entry: Ticket | Invitation, unix_s: float) -> None:
    """Begin to trust the authority that is named. Raises for a ticket that is over."""
    if isinstance(entry, Ticket) and unix_s >= entry.expires_unix_s:
        raise SidelinkError(Code.ENROL_TICKET_EXPIRED, "the ticket's time is over")
    node.try_authority(TrustAnchor(entry.authority, entry.trust_domain))


def adopt_grant(
    node: OwnNode, store: Store, entry: Ticket | Invitation, grant: EnrolGrant, clock: Clock
) -> None:
    """Verify what the authority granted as any peer would, then keep it.

    Raises SidelinkError for a credential that peers would refuse: better now than at every hop.
    """
    _adopt(node, store, entry.authority, grant, clock, gateways=grant.gateways or entry.gateways)


def adopt_renewal(node: OwnNode, store: Store, grant: EnrolGrant, clock: Clock) -> None:
    """Likewise, for what the authority of the credential at hand has granted in its place."""
    authority = node.identity.issuer
    assert authority is not None, "who renews has a credential"
    _adopt(node, store, authority, grant, clock, gateways=grant.gateways)


def _adopt(
    node: OwnNode,
    store: Store,
    authority: Identifier,
    grant: EnrolGrant,
    clock: Clock,
    *,
    gateways: tuple[GatewayAddress, ...],
) -> None:
    history = ChangeHistory.decode_untrusted(grant.authority_history)
    if history.identifier != authority:
        raise SidelinkError(Code.ENROL_WRONG_AUTHORITY, "the grant is by another authority")
    chain = (ChainLink(grant.credential, grant.authority_history),)
    hop_key = node.own.purpose_keys[Purpose.HOP]
    proof = Proof(node.own.history.encode(), hop_key.attestation, chain)
    # A verifier refuses its own identifier, so this one is told that it belongs to the authority.
    node.verifier_for(authority).verify(
        proof.encode(),
        purpose=Purpose.HOP,
        noise_key=hop_key.key.public.raw,
        unix_s=clock.unix_s(),
    )
    if gateways:
        with store.together():
            store.replace_gateways(gateways)
    try:
        node.adopt(chain)
    except IdentityError as exc:
        raise SidelinkError(Code.ENROL_BAD_REQUEST, exc.detail) from exc
