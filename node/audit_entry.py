"""What a line of the audit log says of one decision: enough to decide it again, never a payload.

A body, a token and an argument that no rule names for the log have no field here to stand in.
"""

import os
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from identity import AgentUri, AttributeValue, Identifier, IdentityError, NamePrefix
from identity import VerifiedIdentity as Verified
from policy import Action, Denial, Party, Permit, Request

TEXT_CHARACTERS_MAX: Final = 512
ENTRY_BYTES_MAX: Final = 32 << 10
"""A request that would make a line longer is left out of it."""
DECISION_ID_BYTES: Final = 12

_encode: Final = msgspec.json.Encoder().encode


class PartyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody in a request, as policy saw them. What is at its default is not written."""

    kind: str
    name: str | None = None
    identifier: str | None = None
    role_of_node: str | None = None
    trust_domain: str | None = None
    issuer: str | None = None
    attributes: Mapping[str, Any] = {}
    ancestors: tuple["PartyRecord", ...] = ()
    verified: bool = True
    allowed_actions: tuple[str, ...] | None = None
    further: Mapping[str, Mapping[str, Any]] = {}


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked. ``args_left_out`` says that there were arguments, which stand nowhere.

    A ``uri`` with a query is left out too, for it may hold a secret.
    """

    subject: PartyRecord
    object: PartyRecord
    size: int | None = None
    tool: str | None = None
    prefix: str | None = None
    method: str | None = None
    uri: str | None = None
    args: Mapping[str, Any] | None = None
    args_left_out: bool = False
    again: bool = False
    expires_unix_s: float | None = None


class AuditedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A rule in audit mode that applied, and what it would have done."""

    rule: str
    effect: str


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One decision. Texts longer than ``TEXT_CHARACTERS_MAX`` are cut when it is written."""

    decision_id: str
    action: str
    effect: str
    """allow, deny, or cut: something live that was ended for who its peer is."""
    rule: str | None
    policy_version: str
    subject: str
    subject_identifier: str | None
    object: str
    service: str | None
    reason: str
    code: str | None = None
    audited: tuple[AuditedRecord, ...] = ()
    request: RequestRecord | None = None


_TEXTS: Final = tuple(
    name for name in AuditEntry.__struct_fields__ if name not in ("audited", "request")
)


def entry_of(
    request: Request, decision: Permit | Denial, *, expires_unix_s: float | None = None
) -> AuditEntry:
    """The line for one decision of the policy engine."""
    identifier = request.subject.identifier
    denial = decision if isinstance(decision, Denial) else None
    named = () if isinstance(decision, Denial) else decision.obligations.audit_args
    return AuditEntry(
        decision_id=decision.decision_id,
        action=str(request.action),
        effect="allow" if denial is None else "deny",
        rule=decision.rule,
        policy_version=decision.policy_version,
        subject=str(request.subject),
        subject_identifier=None if identifier is None else str(identifier),
        object=str(request.object),
        service=request.service,
        reason="" if denial is None else denial.reason,
        code=None if denial is None else denial.code.text,
        audited=tuple(AuditedRecord(rule=one.name, effect=one.effect) for one in decision.audited),
        request=record_of(request, audit_args=named, expires_unix_s=expires_unix_s),
    )


def cut_entry(
    identity: Verified, own: Party, what: str, why: IdentityError, policy_version: str
) -> AuditEntry:
    """The line for something live that ends because of who its peer is. No rule said so."""
    return AuditEntry(
        decision_id=os.urandom(DECISION_ID_BYTES).hex(),
        action=f"{what}.cut",
        effect="cut",
        rule=None,
        policy_version=policy_version,
        subject=str(identity.name or identity.identifier),
        subject_identifier=str(identity.identifier),
        object=str(own),
        service=None,
        reason=f"{why.code.text}: {why.detail}",
        code=why.code.text,
    )


def record_of(
    request: Request, *, audit_args: tuple[str, ...] = (), expires_unix_s: float | None = None
) -> RequestRecord:
    """Of a call's arguments only those named in ``audit_args``."""
    args = request.args
    kept = None if args is None else {name: args[name] for name in audit_args if name in args}
    return RequestRecord(
        subject=_party_record(request.subject),
        object=_party_record(request.object),
        size=request.message_bytes,
        tool=request.tool,
        prefix=None if request.prefix is None else str(request.prefix),
        method=request.mcp_method,
        uri=request.uri if request.uri == request.shown_uri else None,
        args=kept or None,
        args_left_out=bool(args) and len(kept or ()) < len(args or ()),
        again=request.again,
        expires_unix_s=expires_unix_s,
    )


def request_of(action: str, service: str | None, record: RequestRecord) -> Request:
    """The question that a line records. Raises ValueError for what is no record of a question.

    Arguments that were left out are None, which policy takes as not known.
    """
    try:
        return Request(
            Action(action),
            _party_of(record.subject),
            _party_of(record.object),
            service=service,
            message_bytes=record.size,
            prefix=None if record.prefix is None else NamePrefix.parse(record.prefix),
            mcp_method=record.method,
            tool=record.tool,
            uri=record.uri,
            args=None if record.args_left_out else _arguments(action, record),
            again=record.again,
        )
    except IdentityError as error:
        raise ValueError(error.detail) from None


def encode_entry(entry: AuditEntry) -> bytes:
    """The entry as a JSON object of at most ``ENTRY_BYTES_MAX``. Never raises for its contents."""
    long = [
        name
        for name in _TEXTS
        if (text := getattr(entry, name)) is not None and len(text) > TEXT_CHARACTERS_MAX
    ]
    if long:
        cut = {name: getattr(entry, name)[:TEXT_CHARACTERS_MAX] for name in long}
        entry = msgspec.structs.replace(entry, **cut)
    try:
        encoded = _encode(entry)
    except (ValueError, TypeError, OverflowError, RecursionError):
        # Half a character (a surrogate) in a tool's name, say: a peer's text that no JSON carries.
        plain = {name: _plain(getattr(entry, name)) for name in _TEXTS}
        encoded = _encode(msgspec.structs.replace(entry, request=None, audited=(), **plain))
    if len(encoded) > ENTRY_BYTES_MAX:
        encoded = _encode(msgspec.structs.replace(entry, request=None, audited=()))
    return encoded


def _arguments(action: str, record: RequestRecord) -> Mapping[str, Any] | None:
    """A call without arguments is recorded like one whose action has none."""
    if record.args is None and action in (Action.MCP_CALL, Action.MCP_PROMPT, Action.MCP_RESULT):
        return {}
    return record.args


def _party_record(party: Party) -> PartyRecord:
    return PartyRecord(
        kind=party.kind,
        name=None if party.name is None else str(party.name),
        identifier=None if party.identifier is None else str(party.identifier),
        role_of_node=party.role_of_node,
        trust_domain=party.trust_domain,
        issuer=None if party.issuer is None else str(party.issuer),
        attributes=dict(party.attributes),
        ancestors=tuple(map(_party_record, party.ancestors)),
        verified=party.verified,
        allowed_actions=party.allowed_actions,
        # Most have nothing further, and to go through nothing takes a quarter of a microsecond.
        further=(
            {issuer: dict(said) for issuer, said in party.further.items()} if party.further else {}
        ),
    )


def _party_of(record: PartyRecord) -> Party:
    return Party(
        identifier=None if record.identifier is None else Identifier.parse(record.identifier),
        name=None if record.name is None else AgentUri.parse(record.name),
        kind=record.kind,  # type: ignore[arg-type]  # A rule that asks for a kind compares texts.
        role_of_node=record.role_of_node,
        trust_domain=record.trust_domain,
        issuer=None if record.issuer is None else Identifier.parse(record.issuer),
        attributes=_attributes(record.attributes),
        ancestors=tuple(_party_of(one) for one in record.ancestors),
        verified=record.verified,
        allowed_actions=record.allowed_actions,
        further={issuer: _attributes(said) for issuer, said in record.further.items()},
    )


def _attributes(said: Mapping[str, Any]) -> dict[str, AttributeValue]:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in said.items()
    }


def _plain(text: str | None) -> str | None:
    return text if text is None else text.encode("utf-8", "replace").decode()
