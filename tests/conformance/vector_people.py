"""Who appears in identity's vectors, with keys that follow from their names; what they sign.

Objects are put together here field by field, not by the code that issues them: that code refuses
to make what a verifier refuses, and draws random numbers.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from identity import ChangeHistory, Identifier, NoiseKey, SigningKey
from identity.cbor import encode
from identity.cose import SignedType, sign, sign_detached

NOW: Final = 1_900_000_000
DAY_S: Final = 86_400
YEAR_S: Final = 365 * DAY_S
ALWAYS: Final = {"purpose": "channel", "unix_s": NOW}


def _seed(*words: object) -> bytes:
    return hashlib.sha256(" ".join(map(str, ("sidelink vectors 1", *words))).encode()).digest()


@dataclass(frozen=True)
class Somebody:
    """An identity with as many keys as it has changes, a day apart, the last of them a day ago."""

    name: str
    changes: int = 1
    overlap_s: int = 30 * DAY_S

    @cached_property
    def keys(self) -> tuple[SigningKey, ...]:
        return tuple(
            SigningKey.from_private_bytes(_seed(self.name, "signing", number))
            for number in range(self.changes)
        )

    @cached_property
    def noise(self) -> NoiseKey:
        return NoiseKey.from_private_bytes(_seed(self.name, "noise"))

    @cached_property
    def history(self) -> bytes:
        return self.history_with(self.keys)

    def history_with(self, keys: Sequence[SigningKey]) -> bytes:
        """The same beginning, and other keys behind it: a fork, or a longer or shorter history."""
        encoded: list[Any] = []
        for number, key in enumerate(keys):
            created = NOW - (self.changes - number) * DAY_S
            fields = {1: number, 2: key.verify_key.raw, 4: created, 5: created + YEAR_S}
            signers = [key]
            if number:
                fields |= {3: hashlib.sha256(encoded[-1][0]).digest(), 6: self.overlap_s}
                signers.append(keys[number - 1])
            payload = encode(fields)
            signatures = [sign_detached(one, SignedType.CHANGE, payload) for one in signers]
            encoded.append([payload, *signatures])
        return encode(encoded)

    @cached_property
    def decoded(self) -> ChangeHistory:
        return ChangeHistory.decode_untrusted(self.history)

    @property
    def identifier(self) -> Identifier:
        return self.decoded.identifier

    def pin(self, number: int = -1) -> list[Any]:
        change = self.decoded.changes[number]
        return [change.number, change.payload_hash]

    def attestation(self, *, purpose: str = "channel", by: int = -1) -> bytes:
        payload = {
            1: purpose,
            2: self.noise.public.raw,
            3: self.identifier.digest,
            4: self.decoded.changes[by].number,
            5: NOW - DAY_S // 2,
            6: NOW + 29 * DAY_S,
        }
        return sign(self.keys[by], SignedType.ATTESTATION, encode(payload)).encode()

    def credential(self, subject: "Somebody", name: str, *, by: int = -1, **claims: Any) -> bytes:
        """A credential that this one issues. ``claims`` are added, by their names below."""
        fields: dict[int, Any] = {
            1: str(self.identifier),
            2: str(subject.identifier),
            3: "acme",
            4: NOW + 7 * DAY_S,
            5: NOW - 60,
            6: NOW - 60,
            7: _seed(self.name, subject.name, "cti")[:16],
            NAME: name,
            KIND: "agent",
            ATTRIBUTES: {},
            PIN: subject.pin(0),
            ISSUER_CHANGE: self.decoded.changes[by].number,
        }
        added = {CLAIMS[claim]: value for claim, value in claims.items() if value is not None}
        fields |= added
        return sign(self.keys[by], SignedType.CREDENTIAL, encode(fields)).encode()

    def link(self, subject: "Somebody", name: str, **claims: Any) -> list[bytes]:
        return [self.credential(subject, name, **claims), self.history]

    def revocations(self, *revoked: "Somebody", by: int = -1, **fields: Any) -> bytes:
        digests = sorted(one.identifier.digest for one in revoked)
        payload = {
            1: self.identifier.digest,
            2: "acme",
            3: self.decoded.changes[by].number,
            4: NOW,
            5: NOW,
            6: NOW + DAY_S,
            7: b"".join(digests),
        } | {int(key[1:]): value for key, value in fields.items()}
        message = sign(self.keys[by], SignedType.REVOCATIONS, encode(payload)).encode()
        return encode([message, self.history])

    def mandate(self, *signers: "Somebody", by: int = -1, **fields: Any) -> bytes:
        """Of an authority, for those who may publish policies beside it."""
        digests = sorted(one.identifier.digest for one in signers)
        payload = {
            1: self.identifier.digest,
            2: "acme",
            3: NOW,
            4: NOW,
            5: self.decoded.changes[by].number,
            6: b"".join(digests),
        } | {int(key[1:]): value for key, value in fields.items()}
        return sign(self.keys[by], SignedType.POLICY_MANDATE, encode(payload)).encode()

    def bundle(
        self, authority: "Somebody", *files: list[str], by: int = -1, **fields: Any
    ) -> bytes:
        """The texts of a policy that this one signs for an authority, or as one."""
        payload = {
            1: authority.identifier.digest,
            2: "acme",
            3: NOW,
            4: NOW,
            5: self.decoded.changes[by].number,
            6: self.identifier.digest,
            7: list(files),
        } | {int(key[1:]): value for key, value in fields.items()}
        return sign(self.keys[by], SignedType.POLICY_BUNDLE, encode(payload)).encode()


NAME, KIND, ROLE, ATTRIBUTES, DELEGABLE, PIN, ISSUER_CHANGE = range(-65537, -65544, -1)
CLAIMS: Final = {
    "aud": 3,
    "exp": 4,
    "nbf": 5,
    "kind": KIND,
    "role": ROLE,
    "attributes": ATTRIBUTES,
    "delegable": DELEGABLE,
    "pin": PIN,
}

AUTHORITY: Final = Somebody("authority", changes=2)
GLOBEX: Final = Somebody("globex")
"""Another authority, of another trust domain."""
NODE: Final = Somebody("node")
PLANNER: Final = Somebody("planner", changes=2)
HELPER: Final = Somebody("helper")
CHILD: Final = Somebody("child")
SEVENTH: Final = Somebody("of many keys", changes=8)
STRANGER: Final = Somebody("stranger")
VERIFIER: Final = Somebody("verifier")
ROTATED: Final = Somebody("rotated often", changes=33)
"""Its history is as long as a policy's signer's may be."""
PEOPLE: Final = (AUTHORITY, GLOBEX, NODE, PLANNER, HELPER, CHILD, SEVENTH, STRANGER, VERIFIER)
PUBLISHING: Final = (AUTHORITY, GLOBEX, NODE, PLANNER, HELPER, STRANGER, ROTATED)
"""Who appears where policies are published."""

FINANCE: Final = "agent://acme/finance"
WIDE: Final = {
    1: [FINANCE],
    2: {"role": ["planner", "auditor"], "clearance": [1, 2], "team": None},
    3: ["message.ask", "message.tell"],
    4: 3,
    5: 30 * DAY_S,
}
NARROW: Final = {
    1: [f"{FINANCE}/planner"],
    2: {"role": ["planner"]},
    3: ["message.ask"],
    4: 2,
    5: 8 * DAY_S,
}
LEAST: Final = {1: [f"{FINANCE}/planner/helper"], 2: {}, 3: [], 4: 1, 5: 8 * DAY_S}


def node_link(**claims: Any) -> list[bytes]:
    """The first link below the authority."""
    known = {"kind": "node", "role": "sidecar", "exp": NOW + 10 * DAY_S, "delegable": WIDE}
    return AUTHORITY.link(NODE, FINANCE, **known | claims)


def planner_link() -> list[bytes]:
    return NODE.link(
        PLANNER,
        f"{FINANCE}/planner",
        attributes={"role": "planner", "clearance": 2},
        delegable=NARROW,
    )


def helper_link() -> list[bytes]:
    return PLANNER.link(
        HELPER, f"{FINANCE}/planner/helper", attributes={"role": "planner"}, delegable=LEAST
    )


def child_link() -> list[bytes]:
    return HELPER.link(CHILD, f"{FINANCE}/planner/helper/child")


def proof(of: Somebody, *chain: list[bytes], further: Any = None, **options: Any) -> bytes:
    parts: list[Any] = [1, of.history, of.attestation(**options), list(chain)]
    return encode(parts if further is None else [*parts, further])
