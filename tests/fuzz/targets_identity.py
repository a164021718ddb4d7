"""Targets of identity/: canonical CBOR, names, histories, credentials, proofs, lists, tickets."""

import base64
import hashlib
from typing import Any, Final

from identity import (
    AgentUri,
    CborError,
    ChangeHistory,
    Code,
    GatewayAddress,
    Identifier,
    IdentityError,
    Invitation,
    NamePrefix,
    Proof,
    Purpose,
    RevocationLists,
    Ticket,
    cbor,
    decode_credential_untrusted,
    decode_revocations_untrusted,
    encode_card,
    encode_voucher,
    parse_card_untrusted,
    parse_voucher_untrusted,
    validate_trust_domain,
)
from identity.cose import SignedType
from identity.cose import decode_untrusted as decode_cose_untrusted
from identity.purpose import decode_attestation_untrusted
from identity.ticket import INVITATION_PREFIX, TICKET_PREFIX
from tests.fuzz.decoders import decoder, tree_of
from tests.fuzz.program import Program, text_of
from tests.fuzz.target import Target, check_same
from tests.fuzz.trees import new_tree
from tests.fuzz.world import person, proofs, signed, world
from tests.identity.helpers import NOW
from tests.identity.test_revocation import issue

TREE_BYTES_MAX: Final = 1 << 20


def run_cbor(data: bytes) -> None:
    check_same(cbor.encode(cbor.decode_untrusted(data, bytes_max=1 << 16)), data)


def run_cbor_values(data: bytes) -> None:
    """Values of our own: what we encode, we read, and it is the same."""
    value = new_tree(Program(data))
    encoded = cbor.encode(value)
    assert cbor.decode_untrusted(encoded, bytes_max=TREE_BYTES_MAX) == value


def run_cose(data: bytes) -> None:
    """The first byte says which type is expected."""
    kind = tuple(SignedType)[data[0] % len(SignedType)] if data else SignedType.CHANGE
    body = data[1:]
    message = decode_cose_untrusted(body, kind, bytes_max=4_096, code=Code.CHANNEL_PROOF_INVALID)
    check_same(message.encode(), body)


def _cose_seeds() -> list[bytes]:
    credential = world().node_link().credential
    attestation = world().node.attestation()
    number = list(SignedType).index(SignedType.CREDENTIAL)
    return [bytes([number]) + credential, bytes([number]) + attestation]


def _encode_credential(read: Any) -> bytes:
    encoded: bytes = read.message.encode()
    assert read.encoded == encoded
    return encoded


def _histories() -> list[bytes]:
    return [person(1).history.encode(), world().node.history.encode(), _long_history().encode()]


def _long_history() -> ChangeHistory:
    """Three changes, with keys that are the same in every process."""
    from identity import rotate_history

    first = person(20)
    history = first.history
    key = first.key
    for number in (21, 22):
        new_key = person(number).key
        history = rotate_history(
            history,
            key,
            new_key,
            created_unix_s=NOW + number,
            expires_unix_s=NOW + 10_000_000,
            overlap_s=86_400,
        )
        key = new_key
    return history


def _wrapped_history(tree: Any) -> bytes:
    """A tree of changes whose payloads are trees too."""
    if not isinstance(tree, list):
        return cbor.encode(tree)
    return cbor.encode(
        [
            [cbor.encode(item[0]), *item[1:]] if isinstance(item, list) and item else item
            for item in tree
        ]
    )


def _history_trees() -> list[Any]:
    trees = [cbor.decode_untrusted(data, bytes_max=4_096) for data in _histories()]
    for tree in trees:
        for item in tree:
            item[0] = cbor.decode_untrusted(item[0], bytes_max=4_096)
    return trees


def _payload_of(encoded: bytes) -> Any:
    return cbor.decode_untrusted(
        cbor.decode_untrusted(encoded, bytes_max=16_384)[2], bytes_max=16_384
    )


def _credentials() -> list[bytes]:
    links = world().node_link(), world().planner_link(attributes={"role": "planner", "n": 1})
    return [link.credential for link in links]


def run_verify(data: bytes) -> None:
    """A whole proof, for the key of the helper, the planner or the authority."""
    here = world()
    who = (here.helper, here.planner, here.authority, person(9))[data[0] % 4 if data else 0]
    peer = here.new_verifier(issuers_kept_max=4).verify(
        data[1:], purpose=Purpose.CHANNEL, noise_key=who.noise.public.raw, unix_s=NOW
    )
    assert peer.identifier == who.history.identifier, "somebody passes for another"
    assert peer.noise_key.raw == who.noise.public.raw
    chained = peer.identity.ancestors
    assert all(one.expires_unix_s >= peer.identity.expires_unix_s for one in chained)


def _verify_trees() -> list[Any]:
    return [cbor.decode_untrusted(proof, bytes_max=1 << 16) for proof in proofs()]


def _lists() -> list[bytes]:
    here = world()
    revoked = here.node.history.identifier, here.helper.history.identifier
    return [issue(here.authority, *revoked), issue(here.authority, number=NOW - 1)]


def _encode_list(read: Any) -> bytes:
    encoded = cbor.encode([read.message.encode(), read.issuer_history.encode()])
    assert read.encoded == encoded
    return encoded


def _signed_list(tree: Any) -> bytes:
    """A list of the tree's own, signed by nobody, beside the authority's history."""
    message = signed(SignedType.REVOCATIONS)(tree)
    return cbor.encode([message, world().authority.history.encode()])


def _list_trees() -> list[Any]:
    parts = [cbor.decode_untrusted(encoded, bytes_max=4_096) for encoded in _lists()]
    return [_payload_of(message) for message, _ in parts]


def run_learn(data: bytes) -> None:
    """What one list makes of what was learned from another. The first byte says how many bytes of
    the newer one are taken before the rest of the input."""
    lists = RevocationLists()
    verifier = world().new_verifier(lists=lists)
    newer, older = _lists()
    keep = data[0] if data else 0
    try:
        taken = verifier.learn_revocations_untrusted(newer[:keep] + data[1:], unix_s=NOW)
    except IdentityError:
        assert lists.number(world().authority.history.identifier) == 0
        raise
    assert taken is not None
    assert lists.newest(taken.issuer) == taken
    assert verifier.learn_revocations_untrusted(newer[:keep] + data[1:], unix_s=NOW) is None
    for encoded in (newer, older):
        number = lists.number(taken.issuer)
        try:
            verifier.learn_revocations_untrusted(encoded, unix_s=NOW)
        except IdentityError as error:
            assert error.code is Code.CHANNEL_REVOCATIONS_OUTDATED  # noqa: PT017
        assert lists.number(taken.issuer) >= number, "a list made way for an older one"


def _ticket() -> Ticket:
    gateways = (GatewayAddress("gw.acme.example", 7440, Identifier(bytes(32))),)
    return Ticket("acme", Identifier(bytes(range(32))), gateways, bytes(16), NOW)


def _invitation() -> Invitation:
    ticket = _ticket()
    return Invitation(ticket.trust_domain, ticket.authority, ticket.gateways)


def run_ticket(data: bytes) -> None:
    text = text_of(data)
    is_invitation = text.strip(" \t\r\n").startswith(INVITATION_PREFIX)
    read = Invitation.parse_untrusted if is_invitation else Ticket.parse_untrusted
    assert read(text).encode() == text.strip(" \t\r\n")


def _sealed_ticket(tree: Any) -> bytes:
    """A body of the tree's own, with a checksum that is right."""
    body = cbor.encode(tree)
    whole = body + hashlib.sha256(body).digest()[:4]
    return TICKET_PREFIX.encode() + base64.urlsafe_b64encode(whole).rstrip(b"=")


def _ticket_trees() -> list[Any]:
    text = _ticket().encode()
    whole = base64.urlsafe_b64decode(text[len(TICKET_PREFIX) :] + "==")
    return [cbor.decode_untrusted(whole[:-4], bytes_max=4_096)]


def run_names(data: bytes) -> None:
    """A trust domain and a path apart, as they come from settings and from agents."""
    domain, _, path = text_of(data).partition("|")
    name = AgentUri.in_domain(domain, path)
    assert AgentUri.parse(str(name)) == name
    assert NamePrefix(validate_trust_domain(domain)).covers(name)


def run_identifier_bytes(data: bytes) -> None:
    found = Identifier.from_bytes_untrusted(data)
    assert Identifier.parse(str(found)) == found


def run_code(data: bytes) -> None:
    number = int.from_bytes(data, "big")
    code = Code.from_number_untrusted(number)
    assert code in (number, Code.PEER_ERROR_UNKNOWN)
    assert code.text
    assert code.remedy
    assert Code.from_number_untrusted(text_of(data)) is Code.PEER_ERROR_UNKNOWN


_HISTORY: Final = decoder(
    "identity.history",
    "a change history",
    ChangeHistory.decode_untrusted,
    _histories,
    error=IdentityError,
    encode=ChangeHistory.encode,
)
_CREDENTIAL: Final = decoder(
    "identity.credential",
    "a credential",
    decode_credential_untrusted,
    _credentials,
    error=IdentityError,
    encode=_encode_credential,
)
_ATTESTATION: Final = decoder(
    "identity.attestation",
    "an attestation",
    decode_attestation_untrusted,
    lambda: [world().node.attestation(), world().node.attestation(Purpose.HOP)],
    error=IdentityError,
    encode=lambda attestation: attestation.message.encode(),
    bytes_max=600,
)
_PROOF: Final = decoder(
    "identity.proof",
    "a proof, taken apart",
    Proof.decode_untrusted,
    lambda: list(proofs()),
    error=IdentityError,
    encode=Proof.encode,
)
_VERIFY: Final = Target(
    "identity.verify",
    "a proof, verified down to its signatures",
    run_verify,
    lambda: [bytes([number]) + proof for number, proof in enumerate(proofs())],
    IdentityError,
)
_REVOCATIONS: Final = decoder(
    "identity.revocations",
    "a revocation list, and its authority's history",
    decode_revocations_untrusted,
    _lists,
    error=IdentityError,
    encode=_encode_list,
)
_TICKET: Final = Target(
    "identity.ticket",
    "an enrolment ticket or an invitation, as text",
    run_ticket,
    lambda: [
        _ticket().encode().encode(),
        b" " + _ticket().encode().encode() + b"\r\n",
        _invitation().encode().encode(),
    ],
    IdentityError,
)


TARGETS: Final[list[Target]] = [
    Target("identity.cbor", "canonical CBOR", run_cbor, lambda: [*proofs()], CborError),
    Target(
        "identity.cbor_values",
        "values of our own, encoded and read",
        run_cbor_values,
        lambda: [bytes([10, 3, 0, 7, 9, 2, 2, 1, 0, 4])],
        None,
        bytes_max=256,
        is_program=True,
    ),
    Target("identity.cose", "a COSE_Sign1 message", run_cose, _cose_seeds, IdentityError),
    _HISTORY,
    tree_of(_HISTORY, trees=_history_trees, wrap=_wrapped_history),
    _CREDENTIAL,
    tree_of(
        _CREDENTIAL,
        trees=lambda: [_payload_of(encoded) for encoded in _credentials()],
        wrap=signed(SignedType.CREDENTIAL),
    ),
    _ATTESTATION,
    tree_of(
        _ATTESTATION,
        trees=lambda: [_payload_of(world().node.attestation())],
        wrap=signed(SignedType.ATTESTATION),
    ),
    _PROOF,
    tree_of(_PROOF),
    _VERIFY,
    tree_of(_VERIFY, trees=_verify_trees, wrap=lambda tree: b"\0" + cbor.encode(tree)),
    _REVOCATIONS,
    tree_of(_REVOCATIONS, trees=_list_trees, wrap=_signed_list),
    Target(
        "identity.learn",
        "a revocation list, verified and kept",
        run_learn,
        lambda: [b"\0" + encoded for encoded in _lists()],
        IdentityError,
    ),
    _TICKET,
    tree_of(_TICKET, trees=_ticket_trees, wrap=_sealed_ticket),
    decoder(
        "identity.identifier",
        "an identifier, as text",
        lambda data: Identifier.parse(text_of(data)),
        lambda: [str(Identifier(bytes(range(32)))).encode()],
        error=IdentityError,
        encode=lambda found: str(found).encode(),
        bytes_max=128,
    ),
    Target(
        "identity.identifier_bytes",
        "an identifier, as bytes",
        run_identifier_bytes,
        lambda: [bytes(range(32))],
        IdentityError,
        bytes_max=64,
    ),
    decoder(
        "identity.uri",
        "an agent URI",
        lambda data: AgentUri.parse(text_of(data)),
        lambda: [b"agent://acme/finance/planner"],
        error=IdentityError,
        encode=lambda name: str(name).encode(),
        bytes_max=512,
    ),
    decoder(
        "identity.prefix",
        "a prefix of names",
        lambda data: NamePrefix.parse(text_of(data)),
        lambda: [b"agent://acme", b"agent://acme/finance"],
        error=IdentityError,
        encode=lambda prefix: str(prefix).encode(),
        bytes_max=512,
    ),
    Target(
        "identity.names",
        "a trust domain and a path",
        run_names,
        lambda: [b"acme|finance/planner"],
        IdentityError,
        bytes_max=512,
    ),
    decoder(
        "identity.card",
        "an agent's card",
        lambda data: parse_card_untrusted(text_of(data)),
        lambda: [encode_card(world().planner.history).encode()],
        error=IdentityError,
        bytes_max=2048,
    ),
    decoder(
        "identity.voucher",
        "a voucher for an agent",
        lambda data: parse_voucher_untrusted(text_of(data)),
        lambda: [encode_voucher(world().node_link()).encode()],
        error=IdentityError,
        bytes_max=4096,
    ),
    Target("identity.code", "a number of a code", run_code, lambda: [b"\1\2"], None, bytes_max=8),
]
