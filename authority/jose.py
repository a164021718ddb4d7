"""Tokens and the keys of their issuers: JWT (RFC 7519) and JWK sets (RFC 7517), read strictly.

The only importer of PyJWT, which checks signatures. What surrounds them is checked here, before:
structure, duplicate keys, which algorithm a key is for. Times are judged by the caller's clock.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.utils import base64url_decode

from identity import Code, SidelinkError
from node.enrolment_wire import TOKEN_CHARACTERS_MAX

KEYS_BYTES_MAX: Final = 256 << 10
KEYS_MAX: Final = 64
RSA_BITS_MIN: Final = 2048
RSA_BITS_MAX: Final = 8192
KEY_ID_CHARACTERS_MAX: Final = 256

# They would have the token say which key it is to be judged by, or what we do not understand.
_HEADERS_REFUSED: Final = frozenset(("jwk", "jku", "x5u", "x5c", "crit", "b64", "cty", "zip"))
_TOKEN: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_RSA: Final = frozenset(("RS256", "RS384", "RS512"))
_CURVES: Final[Mapping[type, str]] = {
    SECP256R1: "ES256",
    SECP384R1: "ES384",
    SECP521R1: "ES512",
}


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A public key, and the algorithms that it may verify."""

    key_id: str | None
    algorithms: frozenset[str]
    key: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """A token taken apart. Nothing is verified. ``digest`` is the same however the signature is
    written: of some schemes everybody can make a second one that holds."""

    text: str = field(repr=False)
    algorithm: str
    key_id: str | None
    claims: Mapping[str, Any] = field(repr=False)
    digest: bytes

    @classmethod
    def parse_untrusted(cls, text: str) -> "Token":
        """Raises SidelinkError (enrol.token_invalid)."""
        if len(text) > TOKEN_CHARACTERS_MAX:
            raise _invalid("it is too long")
        found = _TOKEN.fullmatch(text)
        if found is None:
            raise _invalid("it is not three parts of base64url")
        try:
            header = _object_untrusted(base64url_decode(found[1]))
            claims = _object_untrusted(base64url_decode(found[2]))
        except (ValueError, RecursionError) as error:
            raise _invalid(f"it is not what a token is made of: {error}") from None
        refused = sorted(_HEADERS_REFUSED & header.keys())
        if refused:
            raise _invalid(f"its header has {refused[0]}")
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str):
            raise _invalid("its header has no alg")
        if key_id is not None and not _is_key_id(key_id):
            raise _invalid("its kid is no short text")
        signed, _, _ = text.rpartition(".")
        return cls(text, algorithm, key_id, claims, hashlib.sha256(signed.encode()).digest())

    def verify(self, key: IssuerKey, *, issuer: str, audience: str) -> None:
        """Check the signature, and whose and for whom the token is. Raises SidelinkError."""
        if self.algorithm not in key.algorithms:
            raise _invalid("its key is for another algorithm")
        try:
            jwt.decode(
                self.text,
                key.key,
                algorithms=[self.algorithm],
                issuer=issuer,
                audience=audience,
                options={
                    "require": ["iss", "aud", "exp", "iat"],
                    # By our own clock, and more strictly.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise _invalid(str(error)) from None


def read_keys_untrusted(data: bytes) -> tuple[IssuerKey, ...]:
    """The keys of a JWK set that can verify a token here; others are passed over.

    Raises SidelinkError (enrol.keys_unavailable) for what is no such set, or has no such key.
    """
    if len(data) > KEYS_BYTES_MAX:
        raise keys_unavailable(f"more than {KEYS_BYTES_MAX} bytes")
    try:
        members = _object_untrusted(data).get("keys")
    except (ValueError, RecursionError) as error:
        raise keys_unavailable(f"no JWK set: {error}") from None
    if not isinstance(members, list) or len(members) > KEYS_MAX:
        raise keys_unavailable(f"no JWK set of at most {KEYS_MAX} keys")
    keys = tuple(key for member in members if (key := _read_key_untrusted(member)) is not None)
    if not keys:
        raise keys_unavailable("no key in it can verify a token")
    return keys


def find_key(keys: Iterable[IssuerKey], token: Token) -> IssuerKey | None:
    """The key that the token names. One that names none is of an issuer with a single key."""
    fitting = [key for key in keys if token.algorithm in key.algorithms]
    if token.key_id is not None:
        fitting = [key for key in fitting if key.key_id == token.key_id]
    return fitting[0] if len(fitting) == 1 else None


def keys_unavailable(detail: str) -> SidelinkError:
    return SidelinkError(Code.ENROL_KEYS_UNAVAILABLE, detail)


def _read_key_untrusted(member: object) -> IssuerKey | None:
    # A symmetric key (oct) is never taken: whoever publishes one publishes a secret.
    if not isinstance(member, dict) or member.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    key_id, use = member.get("kid"), member.get("use", "sig")
    if use != "sig" or (key_id is not None and not _is_key_id(key_id)):
        return None
    try:
        # Only what is public, and what says which key it is: its alg is judged below.
        public = {
            name: member[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in member
        }
        key = jwt.PyJWK.from_dict(public).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    algorithms = _algorithms_of(key)
    if "alg" in member:
        algorithms &= {str(member["alg"])}
    return IssuerKey(key_id, algorithms, key) if algorithms else None


def _algorithms_of(key: object) -> frozenset[str]:
    match key:
        case RSAPublicKey() if RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
            return _RSA
        case EllipticCurvePublicKey() if type(key.curve) in _CURVES:
            return frozenset((_CURVES[type(key.curve)],))
        case Ed25519PublicKey():
            return frozenset(("EdDSA",))
        case _:
            return frozenset()


def _is_key_id(value: object) -> bool:
    return isinstance(value, str) and len(value) <= KEY_ID_CHARACTERS_MAX


def _object_untrusted(data: bytes) -> dict[str, Any]:
    """JSON with one meaning. Raises ValueError or RecursionError."""
    value = json.loads(
        data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
    )
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key that comes twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _invalid(detail: str) -> SidelinkError:
    return SidelinkError(Code.ENROL_TOKEN_INVALID, detail)
