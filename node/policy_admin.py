"""What an operator may see and change of the mandatory policy, over the admin socket."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from identity import (
    AgentUri,
    Code,
    Identifier,
    IdentityError,
    PolicyFile,
    SidelinkError,
    SignedPolicy,
)
from identity.signed_policy import FILE_NAME
from node.clocks import Clock
from node.http_servers import AdminServer
from node.mandatory import MandatoryPolicy
from node.mandatory_live import sources_of
from policy import Action, Denial, Party, PolicyEngine, Request

FAILED_SHOWN_MAX: Final = 5
"""Of the tests of a policy that fail, so many are named."""
_ROLES: Final = ("authority", "gateway", "sidecar")


class PolicyAdmin:
    """The routes that every program has."""

    def __init__(
        self,
        admin: AdminServer,
        mandatory: MandatoryPolicy,
        own: Callable[[], Party],
        clock: Clock,
    ) -> None:
        self._mandatory = mandatory
        self._own = own
        self._clock = clock
        admin.add("GET", "/v1/policies", self._list)
        admin.add("POST", "/v1/policies", self._publish)
        admin.add("POST", "/v1/policies/show", self._show)
        admin.add("POST", "/v1/policies/rollback", self._roll_back)
        admin.add("POST", "/v1/policies/signers", self._set_signers)

    async def _list(self, _: Mapping[str, Any]) -> object:
        """Without the texts, which would make one answer of all."""
        held = self._mandatory.held
        kept = [_named(one) for one in self._mandatory.kept()]
        signers = [] if held is None else sorted(map(str, held.mandate.signers))
        return {"policies": kept, "signers": signers, "may_publish": self._mandatory.may_publish}

    async def _show(self, wishes: Mapping[str, Any]) -> object:
        return _shown(self._kept(wishes))

    async def _publish(self, wishes: Mapping[str, Any]) -> object:
        files = _files(wishes.get("files"))
        if set(wishes) != {"files"}:
            raise _bad("one field is known, and needed: files")
        return await self._publish_checked(files)

    async def _roll_back(self, wishes: Mapping[str, Any]) -> object:
        """An earlier one, under a new number: nobody takes an old number any more."""
        return await self._publish_checked(self._kept(wishes).bundle.files)

    async def _publish_checked(self, files: Sequence[PolicyFile]) -> object:
        if files and self._mandatory.may_publish:
            unix_s = self._clock.unix_s()
            await asyncio.to_thread(check_policy, files, self._own(), unix_s)
        return _shown(self._mandatory.publish(files))

    def _kept(self, wishes: Mapping[str, Any]) -> SignedPolicy:
        number = wishes.get("number")
        if set(wishes) != {"number"} or type(number) is not int:
            raise _bad("one field is known, and needed: number, an integer")
        for kept in self._mandatory.kept():
            if kept.number == number:
                return kept
        raise _bad(f"no policy {number} is kept here: `sidelink policy published` lists them")

    async def _set_signers(self, wishes: Mapping[str, Any]) -> object:
        if not set(wishes) <= {"add", "remove"}:
            raise _bad("two fields are known: add and remove, identifiers")
        held = self._mandatory.held
        signers = frozenset[Identifier]() if held is None else held.mandate.signers
        added, removed = (_identifiers(wishes.get(key)) for key in ("add", "remove"))
        for identifier in sorted(removed - signers, key=str):
            raise _bad(f"{identifier} is no signer")
        signed = self._mandatory.set_signers((signers | added) - removed)
        return _shown(signed) | {"signers": sorted(map(str, signed.mandate.signers))}


def check_policy(files: Sequence[PolicyFile], own: Party, unix_s: float) -> None:
    """What must hold of a policy that a whole domain obeys, ``own`` among it.

    Raises PolicyError for files that are none; SidelinkError (POLICY_INVALID) where their own tests
    fail, and where nodes could not reach each other any more, and so no other policy them.
    """
    engine = PolicyEngine.load_bundle(sources_of(files))
    failed = [outcome.name for outcome in engine.run_tests() if not outcome.passed]
    if failed:
        named = ", ".join(repr(name) for name in failed[:FAILED_SHOWN_MAX])
        more = f" and {len(failed) - FAILED_SHOWN_MAX} more" if failed[FAILED_SHOWN_MAX:] else ""
        raise SidelinkError(Code.POLICY_INVALID, f"tests of the policy fail: {named}{more}")
    authority, gateway, sidecar = (
        own if own.role_of_node == role else _some_node(own, role) for role in _ROLES
    )
    # Both ends of a hop decide about it.
    hops = (authority, gateway), (gateway, authority), (gateway, sidecar), (sidecar, gateway)
    for subject, target in hops:
        answer = engine.decide(Request(Action.HOP_ADMIT, subject, target), unix_s)
        if isinstance(answer, Denial) and not engine.only_audits:
            raise SidelinkError(
                Code.POLICY_INVALID,
                f"no later policy would reach the nodes that obey this one: {answer.reason}",
            )


def _some_node(own: Party, role: str) -> Party:
    """A node of this one's domain as it would be without attributes; or the authority."""
    assert own.trust_domain is not None  # Who may publish has one.
    is_authority = role == "authority"
    authority = own.issuer or own.identifier
    return Party(
        identifier=authority
        if is_authority
        else Identifier(hashlib.sha256(role.encode()).digest()),
        name=None if is_authority else AgentUri.in_domain(own.trust_domain, f"node/{role}"),
        kind="authority" if is_authority else "node",
        role_of_node=role,
        trust_domain=own.trust_domain,
        issuer=None if is_authority else authority,
        attributes={},
        ancestors=(),
    )


def _named(signed: SignedPolicy) -> dict[str, Any]:
    return {
        "number": signed.number,
        "issued_unix_s": signed.bundle.issued_unix_s,
        "signer": str(signed.bundle.signer),
        "by_authority": signed.is_by_authority,
        "files": [{"name": file.name} for file in signed.bundle.files],
    }


def _shown(signed: SignedPolicy) -> dict[str, Any]:
    files = [{"name": file.name, "text": file.text} for file in signed.bundle.files]
    return _named(signed) | {"files": files}


def _files(value: object) -> list[PolicyFile]:
    if not isinstance(value, list):
        raise _bad("files is a list of objects with name and text")
    files = []
    for item in value:
        if not isinstance(item, dict) or set(item) != {"name", "text"}:
            raise _bad("a file has a name and a text")
        if not all(isinstance(text, str) for text in item.values()):
            raise _bad("the name and the text of a file are texts")
        if not FILE_NAME.fullmatch(item["name"]):
            raise _bad(
                f"a file's name is of letters, digits, ., _ and -, and does not begin with . or -: "
                f"{item['name']!r}"
            )
        try:
            "".join(item.values()).encode()
        except UnicodeEncodeError:
            raise _bad("a text that is no Unicode") from None
        files.append(PolicyFile(item["name"], item["text"]))
    return files


def _identifiers(value: object) -> frozenset[Identifier]:
    if value is None:
        return frozenset()
    if not isinstance(value, list):
        raise _bad("add and remove are lists of identifiers")
    try:
        return frozenset(Identifier.parse(item) for item in value)
    except IdentityError as exc:
        raise _bad(exc.detail) from exc


def _bad(detail: str) -> SidelinkError:
    return SidelinkError(Code.LOCAL_BAD_REQUEST, detail)
