"""Holds an object of the vectors against our own verifiers: what it gives, or why it is refused."""

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from identity import (
    ChangeHistory,
    Code,
    Identifier,
    Invitation,
    Pin,
    ProofVerifier,
    Purpose,
    RevocationLists,
    SeenInMemory,
    SignatureBudget,
    Ticket,
    TrustAnchor,
    VerifiedIdentity,
    decode_credential_untrusted,
    decode_revocations_untrusted,
    decode_signed_policy_untrusted,
)
from identity.purpose import decode_attestation_untrusted
from identity.seen import check_seen

Inputs = Mapping[str, Any]


def judge_history(data: bytes, inputs: Inputs) -> dict[str, Any]:
    history = ChangeHistory.decode_untrusted(data)
    if inputs["pin"] is not None:
        number, head = inputs["pin"]
        history.check_pin(Pin(number, bytes.fromhex(head)))
    check_seen(_seen(inputs), history)
    history.verify_all()
    key, until_unix_s = history.key_for(inputs["change"], inputs["unix_s"])
    return {
        "identifier": str(history.identifier),
        "changes": len(history.changes),
        "head": history.head_hash.hex(),
        "key": key.raw.hex(),
        "key_until_unix_s": until_unix_s,
    }


def judge_attestation(data: bytes, inputs: Inputs) -> dict[str, Any]:
    attestation = decode_attestation_untrusted(data)
    attestation.check_times(inputs["unix_s"])
    history = ChangeHistory.decode_untrusted(bytes.fromhex(inputs["history"]))
    key, _ = history.key_for(attestation.change_number, inputs["unix_s"])
    attestation.message.verify(key, SignatureBudget(), Code.CHANNEL_ATTESTATION_INVALID)
    return {
        "purpose": str(attestation.purpose),
        "noise_key": attestation.noise_public.raw.hex(),
        "identifier": str(attestation.identifier),
        "change": attestation.change_number,
        "not_before_unix_s": attestation.not_before_unix_s,
        "expires_unix_s": attestation.expires_unix_s,
    }


def judge_credential(data: bytes, inputs: Inputs) -> dict[str, Any]:
    signed = decode_credential_untrusted(data)
    credential = signed.credential
    credential.check_times(inputs["unix_s"])
    history = ChangeHistory.decode_untrusted(bytes.fromhex(inputs["issuer_history"]))
    key, _ = history.key_for(credential.issuer_change_number, inputs["unix_s"])
    signed.message.verify(key, SignatureBudget(), Code.CHANNEL_CREDENTIAL_INVALID)
    return {
        "issuer": str(credential.issuer),
        "subject": str(credential.subject),
        "name": str(credential.name),
        "trust_domain": credential.trust_domain,
        "kind": credential.kind,
        "role_of_node": credential.role_of_node,
        "attributes": _plain(credential.attributes),
        "delegable_depth": None if credential.delegable is None else credential.delegable.depth,
        "pin": [credential.pin.change_number, credential.pin.head_hash.hex()],
        "expires_unix_s": credential.expires_unix_s,
    }


def judge_proof(data: bytes, inputs: Inputs) -> dict[str, Any]:
    verifier = _verifier(inputs, own=Identifier.parse(inputs["own"]))
    for encoded in inputs["lists"]:
        verifier.learn_revocations_untrusted(bytes.fromhex(encoded), unix_s=inputs["lists_unix_s"])
    peer = verifier.verify(
        data,
        purpose=Purpose(inputs["purpose"]),
        noise_key=bytes.fromhex(inputs["noise_key"]),
        unix_s=inputs["unix_s"],
    )
    return _identity(peer.identity)


def judge_revocations(data: bytes, inputs: Inputs) -> dict[str, Any]:
    verifier = _verifier(inputs)
    if inputs["known"] is not None:
        verifier.learn_revocations_untrusted(
            bytes.fromhex(inputs["known"]), unix_s=inputs["unix_s"]
        )
    taken = verifier.learn_revocations_untrusted(data, unix_s=inputs["unix_s"])
    content = decode_revocations_untrusted(data).content if taken is None else taken
    return {
        "is_news": taken is not None,
        "issuer": str(content.issuer),
        "number": content.number,
        "next_update_unix_s": content.next_update_unix_s,
        "revoked": sorted(digest.hex() for digest in content.revoked),
    }


def judge_policy(data: bytes, inputs: Inputs) -> dict[str, Any]:
    verifier = _verifier(inputs)
    authority, unix_s = Identifier.parse(inputs["authority"]), inputs["unix_s"]
    held = None
    if inputs["held"] is not None:
        held = verifier.verify_policy_untrusted(
            bytes.fromhex(inputs["held"]), authority=authority, held=None, unix_s=unix_s
        )
    if inputs["list"] is not None:
        verifier.learn_revocations_untrusted(bytes.fromhex(inputs["list"]), unix_s=unix_s)
    taken = verifier.verify_policy_untrusted(data, authority=authority, held=held, unix_s=unix_s)
    signed = decode_signed_policy_untrusted(data) if taken is None else taken
    mandate, bundle = signed.mandate, signed.bundle
    return {
        "is_news": taken is not None,
        "authority": str(mandate.authority),
        "trust_domain": mandate.trust_domain,
        "mandate_number": mandate.number,
        "signers": sorted(str(signer) for signer in mandate.signers),
        "number": bundle.number,
        "signer": str(bundle.signer),
        "change": bundle.change_number,
        "files": [[file.name, file.text] for file in bundle.files],
    }


def judge_ticket(text: str, _inputs: Inputs) -> dict[str, Any]:
    ticket = Ticket.parse_untrusted(text)
    return _place(ticket) | {"code": ticket.code.hex(), "expires_unix_s": ticket.expires_unix_s}


def judge_invitation(text: str, _inputs: Inputs) -> dict[str, Any]:
    return _place(Invitation.parse_untrusted(text))


JUDGES: Final[Mapping[str, Callable[[Any, Inputs], dict[str, Any]]]] = {
    "histories": judge_history,
    "attestations": judge_attestation,
    "credentials": judge_credential,
    "proofs": judge_proof,
    "revocations": judge_revocations,
    "tickets": judge_ticket,
    "invitations": judge_invitation,
    "policies": judge_policy,
}
TEXTS: Final = frozenset(("tickets", "invitations"))


def judge(section: str, case: Mapping[str, Any]) -> dict[str, Any]:
    """What the object of a case gives. Raises IdentityError for one that is refused."""
    encoded = case["encoded"]
    data = encoded if section in TEXTS else bytes.fromhex(encoded)
    return JUDGES[section](data, case["inputs"])


def place_of(error: BaseException) -> tuple[str, ...]:
    """Where in identity/ something was refused, and on the way from where; and why that was."""
    here = tuple(
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).parent.name == "identity"
    )
    return here if error.__cause__ is None else here + place_of(error.__cause__)


def _verifier(inputs: Inputs, own: Identifier | None = None) -> ProofVerifier:
    return ProofVerifier(
        [TrustAnchor(Identifier.parse(one), domain) for one, domain in inputs["anchors"]],
        own=own or Identifier(bytes(32)),
        lists=RevocationLists(grace_s=inputs.get("grace_s", 0)),
        seen=_seen(inputs),
        chain_links_max=inputs.get("chain_links_max", 1),
    )


def _seen(inputs: Inputs) -> SeenInMemory:
    seen = SeenInMemory()
    for identifier, number, head in inputs.get("seen", ()):
        seen.saw(Identifier.parse(identifier), Pin(number, bytes.fromhex(head)))
    return seen


def _identity(identity: VerifiedIdentity) -> dict[str, Any]:
    return {
        "identifier": str(identity.identifier),
        "kind": identity.kind,
        "name": None if identity.name is None else str(identity.name),
        "role_of_node": identity.role_of_node,
        "trust_domain": identity.trust_domain,
        "issuer": None if identity.issuer is None else str(identity.issuer),
        "attributes": _plain(identity.attributes),
        "expires_unix_s": identity.expires_unix_s,
        "ancestors": [str(one.identifier) for one in identity.ancestors],
        "authority": None if identity.authority is None else str(identity.authority),
        "further": {str(one): _plain(said) for one, said in sorted(identity.further.items())},
    }


def _place(read: Ticket | Invitation) -> dict[str, Any]:
    return {
        "trust_domain": read.trust_domain,
        "authority": str(read.authority),
        "gateways": [[one.host, one.port, str(one.identifier)] for one in read.gateways],
    }


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has them."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in sorted(attributes.items())
    }
