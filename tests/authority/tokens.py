"""A token issuer: real keys, real tokens, and whatever a forger would try with them."""

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from node.clocks import ManualClock
from node.workload_settings import WorkloadSettings

NOW: Final = int(ManualClock().unix_s())
ISSUER: Final = "https://kubernetes.example"
AUDIENCE: Final = "sidelink:sl1authority"
CLUSTER: Final = "kubernetes.io"

# Made once: an RSA key takes a while.
RSA_KEY: Final = rsa.generate_private_key(65_537, 2048)
SMALL_RSA_KEY: Final = rsa.generate_private_key(65_537, 1024)
EC_KEY: Final = ec.generate_private_key(ec.SECP256R1())
P384_KEY: Final = ec.generate_private_key(ec.SECP384R1())
ED_KEY: Final = ed25519.Ed25519PrivateKey.generate()
FORGER_KEY: Final = ec.generate_private_key(ec.SECP256R1())

KEYS: Final[Mapping[str, tuple[str, Any]]] = {
    "rsa": ("RS256", RSA_KEY),
    "ec": ("ES256", EC_KEY),
    "ed": ("EdDSA", ED_KEY),
}


def jwk(key: Any, key_id: str | None, **changes: Any) -> dict[str, Any]:
    public = key.public_key()
    algorithm: Any = OKPAlgorithm
    if isinstance(key, rsa.RSAPrivateKey):
        algorithm = RSAAlgorithm
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = ECAlgorithm
    made = json.loads(algorithm.to_jwk(public))
    made.pop("key_ops", None)
    return made | ({} if key_id is None else {"kid": key_id}) | changes


def jwks(*members: Any) -> bytes:
    listed = members or tuple(jwk(key, name) for name, (_, key) in KEYS.items())
    return json.dumps({"keys": list(listed)}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a projected token of Kubernetes; ``...`` takes one away."""
    made: dict[str, Any] = {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "sub": "system:serviceaccount:shop:billing",
        "iat": NOW - 10,
        "nbf": NOW - 10,
        "exp": NOW + 3_590,
        CLUSTER: {
            "namespace": "shop",
            "pod": {"name": "billing-7f9c", "uid": "6f1c"},
            "serviceaccount": {"name": "billing"},
        },
    } | changes
    return {key: value for key, value in made.items() if value is not ...}


def token(
    given: Mapping[str, Any] | None = None,
    *,
    by: str = "ec",
    key: Any = None,
    key_id: str | None = "",
    headers: Mapping[str, Any] | None = None,
) -> str:
    algorithm, own = KEYS[by]
    named: dict[str, Any] = dict(headers or {})
    if key_id is not None:
        named["kid"] = key_id or by
    return jwt.encode(
        dict(claims() if given is None else given), key or own, algorithm, headers=named
    )


def to_base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def from_base64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def raw_token(header: bytes, payload: bytes, *, key: Any = EC_KEY) -> str:
    """Signed as it is, whatever it says: what no library would make."""
    signing_input = f"{to_base64(header)}.{to_base64(payload)}"
    signature = ECAlgorithm(ECAlgorithm.SHA256).sign(signing_input.encode(), key)
    return f"{signing_input}.{to_base64(signature)}"


def kind(**changes: Any) -> WorkloadSettings:
    """One entry of the settings, as a file would say it."""
    fields: dict[str, Any] = {
        "issuer": ISSUER,
        "jwks_file": "/nowhere",
        "match": {f"/{CLUSTER}/namespace": ("shop", "store")},
        "name": f"k8s/{{/{CLUSTER}/namespace}}/{{/{CLUSTER}/pod/name}}",
    } | changes
    return WorkloadSettings(**{key: value for key, value in fields.items() if value is not ...})
