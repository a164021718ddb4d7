"""Tokens and key sets: read strictly, and judged by keys that fit."""

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed448
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from hypothesis import given
from hypothesis import strategies as st
from jwt.utils import der_to_raw_signature, raw_to_der_signature

from authority.jose import KEYS_BYTES_MAX, KEYS_MAX, Token, find_key, read_keys_untrusted
from identity import Code, SidelinkError
from node.enrolment_wire import TOKEN_CHARACTERS_MAX
from tests.authority.tokens import (
    AUDIENCE,
    EC_KEY,
    ED_KEY,
    FORGER_KEY,
    ISSUER,
    KEYS,
    P384_KEY,
    RSA_KEY,
    SMALL_RSA_KEY,
    claims,
    from_base64,
    jwk,
    jwks,
    raw_token,
    to_base64,
    token,
)

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def verified(text: str, keys: bytes) -> Token:
    parsed = Token.parse_untrusted(text)
    key = find_key(read_keys_untrusted(keys), parsed)
    if key is None:
        raise SidelinkError(Code.ENROL_TOKEN_INVALID, "no key")
    parsed.verify(key, issuer=ISSUER, audience=AUDIENCE)
    return parsed


@pytest.mark.parametrize("by", KEYS)
def test_a_token_of_each_kind_of_key_is_verified(by: str) -> None:
    assert verified(token(by=by), jwks()).claims == claims()


def test_a_token_without_a_kid_is_of_the_only_key_that_fits() -> None:
    assert verified(token(key_id=None), jwks(jwk(EC_KEY, None), jwk(ED_KEY, None)))
    with pytest.raises(SidelinkError):
        verified(token(key_id=None), jwks(jwk(EC_KEY, "a"), jwk(FORGER_KEY, "b")))


def rsa_public_pem() -> bytes:
    return RSA_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def hmac_token(secret: bytes) -> str:
    """HS256 by hand: the library refuses to use a public key as a secret."""
    import hashlib
    import hmac

    header = to_base64(b'{"alg":"HS256","kid":"rsa"}')
    signing_input = f"{header}.{to_base64(json.dumps(claims()).encode())}"
    return (
        f"{signing_input}."
        f"{to_base64(hmac.new(secret, signing_input.encode(), hashlib.sha256).digest())}"
    )


def payload() -> bytes:
    return json.dumps(claims()).encode()


GOOD = token()
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")
ES256 = b'{"alg":"ES256","kid":"ec"}'

HOSTILE: dict[str, str] = {
    "nothing": "",
    "one part": "e30",
    "two parts": f"{HEADER}.{PAYLOAD}",
    "four parts": f"{GOOD}.{SIGNATURE}",
    "five parts, as of an encrypted one": f"{GOOD}.{SIGNATURE}.{SIGNATURE}",
    "a signature of nothing": f"{HEADER}.{PAYLOAD}.",
    "alg none": jwt.encode(claims(), None, "none", headers={"kid": "ec"}) + "AA",
    "alg none, and no signature": jwt.encode(claims(), None, "none", headers={"kid": "ec"}),
    "alg None with capitals": raw_token(b'{"alg":"nOnE","kid":"ec"}', payload()),
    "no alg": raw_token(b'{"kid":"ec"}', payload()),
    "an alg that is a list": raw_token(b'{"alg":["ES256"],"kid":"ec"}', payload()),
    "an alg of another key": raw_token(b'{"alg":"RS256","kid":"ec"}', payload()),
    "the public key as a shared secret": hmac_token(rsa_public_pem()),
    "the modulus as a shared secret": hmac_token(jwk(RSA_KEY, "rsa")["n"].encode()),
    "the signature of a forger": token(key=FORGER_KEY),
    "a forger's key in the header": token(key=FORGER_KEY, headers={"jwk": jwk(FORGER_KEY, "ec")}),
    "a key in the header, though it is ours": token(headers={"jwk": jwk(EC_KEY, "ec")}),
    "a URL for keys in the header": token(headers={"jku": "https://forger.example/jwks"}),
    "a URL for certificates in the header": token(headers={"x5u": "https://forger.example/"}),
    "certificates in the header": token(headers={"x5c": ["MIIB"]}),
    "a critical header": token(headers={"crit": ["exp"], "exp": 1}),
    "a payload that is not encoded": token(headers={"b64": False}),
    "a token within a token": token(headers={"cty": "JWT"}),
    "a compressed payload": token(headers={"zip": "DEF"}),
    "a kid of nobody": token(key_id="nobody"),
    "a kid of another key": token(key_id="rsa"),
    "a kid that is a path": token(key_id="../../etc/passwd"),
    "a kid that is a number": raw_token(b'{"alg":"ES256","kid":1}', payload()),
    "a kid that is far too long": token(key_id="k" * 5_000),
    "a header of another issuer's token": f"{token(by='rsa').split('.')[0]}.{PAYLOAD}.{SIGNATURE}",
    "claims of another token": f"{HEADER}.{token(claims(sub='x')).split('.')[1]}.{SIGNATURE}",
    "another issuer": token(claims(iss="https://forger.example")),
    "an issuer with a slash more": token(claims(iss=ISSUER + "/")),
    "issuers in a list": raw_token(ES256, json.dumps(claims(iss=[ISSUER])).encode()),
    "no issuer": token(claims(iss=...)),
    "another audience": token(claims(aud="sidelink:sl1other")),
    "an audience with more behind it": token(claims(aud=AUDIENCE + "x")),
    "an audience that is a map": token(claims(aud={AUDIENCE: 1})),
    "no audience": token(claims(aud=...)),
    "no expiry": token(claims(exp=...)),
    "no time of issue": token(claims(iat=...)),
    "a subject that is a number": raw_token(ES256, json.dumps(claims(sub=1)).encode()),
    "a claim twice": raw_token(ES256, payload()[:-1] + b',"sub":"system:admin"}'),
    "a claim twice, deep inside": raw_token(ES256, payload()[:-1] + b',"x":{"a":1,"a":2}}'),
    "a header twice": raw_token(b'{"alg":"none","alg":"ES256","kid":"ec"}', payload()),
    "claims that are a list": raw_token(ES256, b"[]"),
    "claims that are a text": raw_token(ES256, b'"x"'),
    "claims that are no JSON": raw_token(ES256, b"{"),
    "claims that are not UTF-8": raw_token(ES256, b'{"a":"\xff"}'),
    "claims with a number that is none": raw_token(ES256, b'{"exp":NaN}'),
    "claims without end": raw_token(ES256, b'{"a":' + b"[" * 6_000),
    "a number of ten thousand digits": raw_token(ES256, b'{"exp":' + b"9" * 10_000 + b"}"),
    "a character that is no base64url": f"{HEADER}.{PAYLOAD}+.{SIGNATURE}",
    "padding": f"{HEADER}.{PAYLOAD}=.{SIGNATURE}",
    "a line break at the end": GOOD + "\n",
    "letters of another script": "\u0430" + GOOD[1:],
    "more than fits": f"{HEADER}.{'A' * TOKEN_CHARACTERS_MAX}.{SIGNATURE}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_token_is_refused_that_is(text: str) -> None:
    with pytest.raises(SidelinkError) as caught:
        verified(text, jwks())

    assert caught.value.code is Code.ENROL_TOKEN_INVALID


def test_the_table_above_starts_from_tokens_that_are_verified() -> None:
    assert verified(GOOD, jwks())
    assert verified(raw_token(ES256, payload()), jwks())
    assert verified(token(headers={"typ": "JWT", "x5t": "abc"}), jwks())


def test_another_signature_of_the_same_claims_is_the_same_token() -> None:
    """Of a signature of ECDSA everybody can make a second one that holds as well."""
    r, s = decode_dss_signature(raw_to_der_signature(from_base64(SIGNATURE), EC_KEY.curve))
    other = der_to_raw_signature(encode_dss_signature(r, P256_ORDER - s), EC_KEY.curve)
    twin = verified(f"{HEADER}.{PAYLOAD}.{to_base64(other)}", jwks())

    assert twin.text != GOOD
    assert twin.digest == verified(GOOD, jwks()).digest


def test_a_key_verifies_only_by_an_algorithm_that_is_its_own() -> None:
    """Whatever algorithm its issuer's set restricts it to."""
    restricted = jwk(RSA_KEY, "rsa", alg="RS512")
    [key] = read_keys_untrusted(jwks(restricted))

    with pytest.raises(SidelinkError) as caught:
        Token.parse_untrusted(token(by="rsa")).verify(key, issuer=ISSUER, audience=AUDIENCE)
    assert caught.value.code is Code.ENROL_TOKEN_INVALID


SECRET = {"kty": "oct", "k": to_base64(b"s" * 32), "kid": "ec", "alg": "HS256"}
PASSED_OVER: dict[str, Any] = {
    "a shared secret": SECRET,
    "an RSA key that is too short": jwk(SMALL_RSA_KEY, "x"),
    "a key for encryption": jwk(EC_KEY, "x", use="enc"),
    "a key for an algorithm that its type has not": jwk(EC_KEY, "x", alg="RS256"),
    "a key for a shared secret's algorithm": jwk(RSA_KEY, "x", alg="HS256"),
    "a key of a curve that nobody asked for": jwk(ed448.Ed448PrivateKey.generate(), "x"),
    "a point that is not on its curve": jwk(EC_KEY, "x", y=jwk(P384_KEY, "x")["x"]),
    "a key without its parts": {"kty": "EC", "crv": "P-256", "kid": "x"},
    "a key of an unknown type": {"kty": "PQ", "kid": "x"},
    "a key that is a number": 7,
    "a kid that is a number": jwk(EC_KEY, None, kid=7),
}


@pytest.mark.parametrize("member", PASSED_OVER.values(), ids=PASSED_OVER)
def test_of_a_key_set_is_passed_over(member: Any) -> None:
    keys = read_keys_untrusted(jwks(member, jwk(ED_KEY, "good")))

    assert [key.key_id for key in keys] == ["good"]


def test_a_private_key_that_was_published_is_a_public_key_here() -> None:
    private = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC_KEY)) | {"kid": "ec"}
    [key] = read_keys_untrusted(jwks(private))

    assert not hasattr(key.key, "sign")


REFUSED_SETS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"<html>",
    "a list": b"[]",
    "no keys": b"{}",
    "keys that are a map": b'{"keys":{}}',
    "no key at all": b'{"keys":[]}',
    "shared secrets only": jwks(SECRET),
    "too many keys": jwks(*[jwk(EC_KEY, "x")] * (KEYS_MAX + 1)),
    "keys that come twice": jwks()[:-1] + b',"keys":[]}',
    "depth without end": b'{"keys":' + b"[" * 100_000,
    "more than fits": jwks()[:-1] + b" " * KEYS_BYTES_MAX + b"}",
    "what is not UTF-8": b'{"keys":"\xff"}',
}


@pytest.mark.parametrize("data", REFUSED_SETS.values(), ids=REFUSED_SETS)
def test_a_key_set_is_refused_that_is(data: bytes) -> None:
    with pytest.raises(SidelinkError) as caught:
        read_keys_untrusted(data)

    assert caught.value.code is Code.ENROL_KEYS_UNAVAILABLE


@given(st.text(max_size=200))
def test_no_text_raises_anything_else(text: str) -> None:
    with pytest.raises(SidelinkError):
        Token.parse_untrusted(text)


@given(st.integers(0, len(GOOD) - 1), st.sampled_from("AZaz09-_."))
def test_one_wrong_character_is_noticed(place: int, character: str) -> None:
    changed = GOOD[:place] + character + GOOD[place + 1 :]
    # The last character of a part holds bits that mean nothing; of the signature, no matter.
    if changed.rpartition(".")[0] == GOOD.rpartition(".")[0]:
        return

    with pytest.raises(SidelinkError):
        verified(changed, jwks())
