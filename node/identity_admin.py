"""What an operator may see and change of a node's identity and trust, over the admin socket."""

from collections.abc import Mapping
from typing import Any

from identity import (
    Code,
    Identifier,
    IdentityError,
    OwnIdentity,
    SidelinkError,
    TrustAnchor,
    VerifiedIdentity,
    decode_credential_untrusted,
    did_key,
    encode_card,
    spiffe_id,
    validate_trust_domain,
)
from node.clocks import Clock
from node.http_servers import AdminServer
from node.own_node import OwnNode
from node.rotation import Rotation


def show_identity(own: OwnIdentity, identity: VerifiedIdentity) -> dict[str, Any]:
    """One identity of this node, as ``sidelink identity show`` prints it. No secret."""
    history = own.history
    return {
        "identifier": str(own.identifier),
        "name": None if identity.name is None else str(identity.name),
        "spiffe_id": None if identity.name is None else spiffe_id(identity.name),
        "kind": identity.kind,
        "key": did_key(own.signing_key.verify_key),
        "announced_key": None if own.next_key is None else did_key(own.next_key.verify_key),
        "card": encode_card(history),
        "pinned_change": _pinned_change(own),
        "changes": [
            {
                "number": change.number,
                "key": did_key(change.key),
                "created_unix_s": change.created_unix_s,
                "ends_unix_s": history.key_until_unix_s(change.number),
            }
            for change in history.changes
        ],
        "issuer": None if identity.issuer is None else str(identity.issuer),
        "expires_unix_s": identity.expires_unix_s or None,
        "attributes": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in identity.attributes.items()
        },
    }


def _pinned_change(own: OwnIdentity) -> int | None:
    """The newest change of its history that its issuer has vouched for."""
    if not own.chain:
        return None
    return decode_credential_untrusted(own.chain[0].credential).credential.pin.change_number


class IdentityAdmin:
    """The routes that every program has."""

    def __init__(self, admin: AdminServer, node: OwnNode, rotation: Rotation, clock: Clock) -> None:
        self._node = node
        self._rotation = rotation
        self._clock = clock
        admin.add("GET", "/v1/identity", self._show)
        admin.add("POST", "/v1/identity/rotate", self._rotate)
        admin.add("GET", "/v1/trust", self._list)
        admin.add("POST", "/v1/trust", self._add)
        admin.add("POST", "/v1/trust/remove", self._remove)

    async def _show(self, _: Mapping[str, Any]) -> object:
        return show_identity(self._node.own, self._node.identity)

    async def _rotate(self, wishes: Mapping[str, Any]) -> object:
        _refuse_unknown(wishes, {"announce_s", "overlap_s"})
        return self._rotation.begin(wishes)

    async def _list(self, _: Mapping[str, Any]) -> object:
        trust = self._node.trust
        anchors = []
        for anchor in trust.anchors:
            newest = trust.lists.newest(anchor.identifier)
            anchors.append(
                {
                    "authority": str(anchor.identifier),
                    "trust_domain": anchor.trust_domain,
                    "own": anchor.identifier == self._own_authority,
                    "revocations": None
                    if newest is None
                    else {
                        "number": newest.number,
                        "revoked": len(newest.revoked),
                        "issued_unix_s": newest.issued_unix_s,
                        "next_update_unix_s": newest.next_update_unix_s,
                    },
                    "new_channels_until_unix_s": trust.lists.good_until_unix_s(anchor.identifier),
                }
            )
        return {"authorities": anchors}

    async def _add(self, wishes: Mapping[str, Any]) -> object:
        _refuse_unknown(wishes, {"authority", "trust_domain"})
        try:
            anchor = TrustAnchor(
                Identifier.parse(wishes.get("authority", "")),
                validate_trust_domain(wishes.get("trust_domain", "")),
            )
        except IdentityError as exc:
            raise SidelinkError(Code.LOCAL_BAD_REQUEST, exc.detail) from exc
        for known in self._node.trust.anchors:
            if known == anchor:
                break
            if known.identifier == anchor.identifier:
                raise SidelinkError(
                    Code.LOCAL_BAD_REQUEST,
                    f"this authority is trusted for {known.trust_domain}; remove it first",
                )
            if known.trust_domain == anchor.trust_domain:
                # It could name anybody of that domain, and no rule would tell the two apart.
                raise SidelinkError(
                    Code.LOCAL_BAD_REQUEST,
                    f"{anchor.trust_domain} is the domain of {known.identifier} here; "
                    "remove that authority first",
                )
        else:
            self._node.trust.add(anchor)
        return {"authority": str(anchor.identifier), "trust_domain": anchor.trust_domain}

    async def _remove(self, wishes: Mapping[str, Any]) -> object:
        _refuse_unknown(wishes, {"authority"})
        try:
            authority = Identifier.parse(wishes.get("authority", ""))
        except IdentityError as exc:
            raise SidelinkError(Code.LOCAL_BAD_REQUEST, exc.detail) from exc
        if authority == self._own_authority:
            raise SidelinkError(
                Code.LOCAL_BAD_REQUEST, "this node's own authority cannot be removed"
            )
        if not self._node.trust.remove(authority):
            raise SidelinkError(Code.LOCAL_BAD_REQUEST, f"{authority} is not trusted here")
        return {"removed": str(authority)}

    @property
    def _own_authority(self) -> Identifier | None:
        return self._node.identity.authority


def _refuse_unknown(wishes: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(wishes) - known)
    if unknown:
        raise SidelinkError(Code.LOCAL_BAD_REQUEST, f"unknown field {unknown[0]!r}")
