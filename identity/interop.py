"""How others write what we call an identity's current key and an agent's name.

A `did:key` (W3C CCG, did:key method) names one Ed25519 key: multibase base58btc over the multicodec
prefix ed25519-pub. It changes with each rotation, so it is no identifier here, only a spelling of
the current key. A SPIFFE ID names a workload by trust domain and path, as an agent URI does.
"""

from typing import Final

from identity.codes import Code
from identity.errors import IdentityError
from identity.keys import KEY_BYTES, VerifyKey
from identity.uri import AgentUri

DID_KEY_PREFIX: Final = "did:key:z"
DID_KEY_CHARS_MAX: Final = 64
SPIFFE_SCHEME: Final = "spiffe://"

_ED25519_PUB: Final = b"\xed\x01"
_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}


def did_key(key: VerifyKey) -> str:
    """`did:key:z6Mk…`"""
    return DID_KEY_PREFIX + _to_base58(_ED25519_PUB + key.raw)


def parse_did_key(text: str) -> VerifyKey:
    """Read `did:key:z6Mk…`; the same text with a fragment is refused. Raises IdentityError."""
    if type(text) is not str or len(text) > DID_KEY_CHARS_MAX:
        raise _malformed("not a did:key")
    if not text.startswith(DID_KEY_PREFIX):
        raise _malformed(f"a did:key starts with {DID_KEY_PREFIX}")
    data = _from_base58(text[len(DID_KEY_PREFIX) :])
    if len(data) != len(_ED25519_PUB) + KEY_BYTES or not data.startswith(_ED25519_PUB):
        raise _malformed("a did:key that is not of an Ed25519 key")
    return VerifyKey(data[len(_ED25519_PUB) :])


def spiffe_id(name: AgentUri) -> str:
    """`spiffe://acme/finance/planner` for `agent://acme/finance/planner`.

    Every agent URI has one: its trust domain and its segments are legal in a SPIFFE ID.
    """
    return f"{SPIFFE_SCHEME}{name.trust_domain}/{'/'.join(name.path)}"


def _to_base58(data: bytes) -> str:
    # The first byte is never zero here, so that leading ones need no thought.
    number = int.from_bytes(data, "big")
    characters = []
    while number:
        number, digit = divmod(number, 58)
        characters.append(_ALPHABET[digit])
    return "".join(reversed(characters))


def _from_base58(text: str) -> bytes:
    number = 0
    for character in text:
        if character not in _VALUES:
            raise _malformed("a did:key holds a character that is not in base58btc")
        number = number * 58 + _VALUES[character]
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    if _to_base58(data) != text:
        raise _malformed("a did:key that is not spelled in the one way")
    return data


def _malformed(detail: str) -> IdentityError:
    return IdentityError(Code.CHANNEL_PROOF_INVALID, detail)
