"""Who somebody is: keys, names, histories, credentials, proofs, and the registry of codes."""

from identity.codes import Code
from identity.errors import CborError, IdentityError, SidelinkError
from identity.identifier import Identifier
from identity.keys import NoiseKey, NoisePublicKey, SigningKey, VerifyKey
from identity.uri import AgentUri, NamePrefix, validate_trust_domain

__all__ = [
    "AgentUri",
    "CborError",
    "Code",
    "Identifier",
    "IdentityError",
    "NamePrefix",
    "NoiseKey",
    "NoisePublicKey",
    "SidelinkError",
    "SigningKey",
    "VerifyKey",
    "validate_trust_domain",
]
