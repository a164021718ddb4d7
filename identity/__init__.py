"""Who somebody is: keys, names, histories, credentials, proofs, and the registry of codes."""

from identity.cards import (
    encode_card,
    encode_voucher,
    parse_card_untrusted,
    parse_voucher_untrusted,
)
from identity.checkpoint import Checkpoint
from identity.codes import Code
from identity.cose import SIGNATURE_CHECKS_MAX, SignatureBudget
from identity.credential import (
    RESERVED_ATTRIBUTES,
    AttributeValue,
    Credential,
    Delegable,
    SignedCredential,
    decode_credential_untrusted,
    issue_credential,
)
from identity.delegation import check_delegation
from identity.errors import CborError, IdentityError, SidelinkError
from identity.history import ChangeHistory, Pin, create_history, rotate_history
from identity.identifier import Identifier
from identity.interop import did_key, parse_did_key, spiffe_id
from identity.keys import NoiseKey, NoisePublicKey, SigningKey, VerifyKey
from identity.keystore import Keystore, Resealed
from identity.master_key import (
    MasterKey,
    environment_master_key,
    load_master_key,
    new_environment_master_key,
    write_master_key,
)
from identity.own import OwnIdentity, new_identity
from identity.proof import PROOF_BYTES_MAX, ChainLink, Proof
from identity.purpose import Purpose, PurposeKey, attest
from identity.revocation import (
    REVOCATIONS_WITH_HISTORY_BYTES_MAX,
    RevocationList,
    RevocationLists,
    SignedRevocations,
    decode_revocations_untrusted,
    issue_revocations,
)
from identity.seen import SeenHistories, SeenInMemory
from identity.signed_policy import (
    SIGNED_POLICY_BYTES_MAX,
    Mandate,
    PolicyBundle,
    PolicyFile,
    SignedPolicy,
    decode_signed_policy_untrusted,
    issue_policy,
    issue_policy_under,
)
from identity.ticket import GatewayAddress, Invitation, Ticket
from identity.uri import AgentUri, NamePrefix, validate_trust_domain
from identity.verified import TrustAnchor, VerifiedIdentity, VerifiedPeer
from identity.verifier import ProofVerifier

__all__ = [
    "PROOF_BYTES_MAX",
    "RESERVED_ATTRIBUTES",
    "REVOCATIONS_WITH_HISTORY_BYTES_MAX",
    "SIGNATURE_CHECKS_MAX",
    "SIGNED_POLICY_BYTES_MAX",
    "AgentUri",
    "AttributeValue",
    "CborError",
    "ChainLink",
    "ChangeHistory",
    "Checkpoint",
    "Code",
    "Credential",
    "Delegable",
    "GatewayAddress",
    "Identifier",
    "IdentityError",
    "Invitation",
    "Keystore",
    "Mandate",
    "MasterKey",
    "NamePrefix",
    "NoiseKey",
    "NoisePublicKey",
    "OwnIdentity",
    "Pin",
    "PolicyBundle",
    "PolicyFile",
    "Proof",
    "ProofVerifier",
    "Purpose",
    "PurposeKey",
    "Resealed",
    "RevocationList",
    "RevocationLists",
    "SeenHistories",
    "SeenInMemory",
    "SidelinkError",
    "SignatureBudget",
    "SignedCredential",
    "SignedPolicy",
    "SignedRevocations",
    "SigningKey",
    "Ticket",
    "TrustAnchor",
    "VerifiedIdentity",
    "VerifiedPeer",
    "VerifyKey",
    "attest",
    "check_delegation",
    "create_history",
    "decode_credential_untrusted",
    "decode_revocations_untrusted",
    "decode_signed_policy_untrusted",
    "did_key",
    "encode_card",
    "encode_voucher",
    "environment_master_key",
    "issue_credential",
    "issue_policy",
    "issue_policy_under",
    "issue_revocations",
    "load_master_key",
    "new_environment_master_key",
    "new_identity",
    "parse_card_untrusted",
    "parse_did_key",
    "parse_voucher_untrusted",
    "rotate_history",
    "spiffe_id",
    "validate_trust_domain",
    "write_master_key",
]
