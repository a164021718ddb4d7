"""Workload tokens: which are taken, and what their node becomes."""

import json
from pathlib import Path
from typing import Any

import pytest

from authority.issuer import Workload
from authority.workloads import CLOCK_SKEW_SECONDS, Workloads
from identity import AgentUri, Code, NamePrefix, SidelinkError
from node.clocks import ManualClock
from tests.authority.tokens import (
    AUDIENCE,
    CLUSTER,
    ISSUER,
    NOW,
    claims,
    jwks,
    kind,
    raw_token,
    token,
)

HOUR_S = 3_600
ES256 = b'{"alg":"ES256","kid":"ec"}'


class Gate:
    """Workloads of one kind, on a clock that a test moves."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.keys = folder / "jwks.json"
        self.keys.write_bytes(jwks())

    async def judge(self, text: str, *kinds: Any, **changes: Any) -> Workload:
        made = kinds or (kind(jwks_file=self.keys, **changes),)
        workloads = Workloads(
            made,
            trust_domain="acme",
            audience=AUDIENCE,
            clock=self.clock,
        )
        try:
            return await workloads.verify_untrusted(text)
        finally:
            await workloads.close()

    async def code_of(self, text: str, *kinds: Any, **changes: Any) -> Code | None:
        try:
            await self.judge(text, *kinds, **changes)
        except SidelinkError as error:
            return error.code
        return None


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


async def test_a_projected_token_makes_a_node_with_a_name_of_its_claims(gate: Gate) -> None:
    workload = await gate.judge(
        token(),
        attributes={
            "site": "north",
            "account": f"{{/{CLUSTER}/serviceaccount/name}}",
            "teams": ["a"],
        },
        allowed_attributes={"role": None, "clearance": [1, 2]},
    )

    name = AgentUri.parse("agent://acme/k8s/shop/billing-7f9c")
    terms = workload.terms
    assert (terms.name, terms.role) == (name, "sidecar")
    assert terms.attributes == {"site": "north", "account": "billing", "teams": ("a",)}
    assert terms.delegable is not None
    assert terms.delegable.name_prefixes == (NamePrefix(name.trust_domain, name.path),)
    assert terms.delegable.attributes == {"role": None, "clearance": (1, 2)}
    assert workload.until_unix_s == NOW - 10 + HOUR_S + CLOCK_SKEW_SECONDS + 1


REFUSED: dict[str, str] = {
    "of another issuer": token(claims(iss="https://forger.example")),
    "whose issuer is a list": raw_token(ES256, json.dumps(claims(iss=[ISSUER])).encode()),
    "for another audience": token(claims(aud=["sidelink:sl1other"])),
    "for a second audience as well": token(claims(aud=[AUDIENCE, "https://kubernetes.default"])),
    "for the same audience twice": token(claims(aud=[AUDIENCE, AUDIENCE])),
    "for nobody": token(claims(aud=[])),
    "that is over": token(claims(exp=NOW - CLOCK_SKEW_SECONDS)),
    "that begins later": token(claims(nbf=NOW + CLOCK_SKEW_SECONDS + 1)),
    "of the far future": token(claims(iat=NOW + 10 * HOUR_S, nbf=..., exp=NOW + 20 * HOUR_S)),
    "of long ago, though good for years": token(claims(iat=NOW - 2 * HOUR_S, exp=NOW + 10**8)),
    "whose expiry is text": raw_token(ES256, json.dumps(claims(exp=str(NOW + 9))).encode()),
    "whose expiry is true": raw_token(ES256, json.dumps(claims(exp=True)).encode()),
    "whose expiry is endless": raw_token(
        ES256, json.dumps(claims(exp=0)).replace('"exp": 0', '"exp": 1e400').encode()
    ),
    "whose time of issue is negative": raw_token(ES256, json.dumps(claims(iat=-1)).encode()),
    "without an expiry": token(claims(exp=...)),
    "of another namespace": token(claims() | {CLUSTER: {"namespace": "kube-system"}}),
    "without the claim that must match": token(claims(**{CLUSTER: ...})),
    "whose claim is a list of what must match": token(
        claims() | {CLUSTER: {"namespace": ["shop"]}}
    ),
    "whose claim is flat where it must be deep": token(
        claims(**{CLUSTER: ..., f"{CLUSTER}/namespace": "shop"})
    ),
    "garbage": "x.y.z",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
async def test_a_token_lets_nobody_in(gate: Gate, text: str) -> None:
    assert await gate.code_of(text) is Code.ENROL_TOKEN_INVALID


def pod(name: Any) -> str:
    return token(claims() | {CLUSTER: {"namespace": "shop", "pod": {"name": name}}})


NAMES: dict[str, Any] = {
    "two segments": "a/b",
    "a segment that climbs": "..",
    "a segment in upper case": "Billing",
    "a segment with a colon": "system:serviceaccount",
    "a segment with a space": "a b",
    "nothing": "",
    "a number": 7,
    "a list": ["a"],
    "null": None,
    "a segment that is too long": "a" * 64,
    "letters of another script": "b\u0456lling",
    "a line break": "a\n",
    "a template": "{/sub}",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_a_claim_is_no_segment_of_a_name_that_is(gate: Gate, name: Any) -> None:
    assert await gate.code_of(pod(name)) is Code.ENROL_TOKEN_INVALID


async def test_a_name_of_the_longest_kind_is_one(gate: Gate) -> None:
    assert await gate.code_of(pod("a" * 63)) is None


ATTRIBUTES: dict[str, Any] = {
    "missing": ...,
    "null": None,
    "a map": {"a": 1},
    "a fraction": 1.5,
    "a list of numbers": [1],
    "a number that fits nowhere": 2**63,
    "a text with a line break": "a\nb",
    "a text that a terminal obeys": "\x1b[2J",
    "a text that is too long": "x" * 257,
}


@pytest.mark.parametrize("value", ATTRIBUTES.values(), ids=ATTRIBUTES)
async def test_a_claim_is_no_attribute_that_is(gate: Gate, value: Any) -> None:
    text = token(claims(level=value))

    assert await gate.code_of(text, attributes={"level": "{/level}"}) is Code.ENROL_TOKEN_INVALID


@pytest.mark.parametrize("value", [3, True, "gold", ["a", "b"]])
async def test_a_claim_is_an_attribute_of_its_own_type(gate: Gate, value: Any) -> None:
    workload = await gate.judge(token(claims(level=value)), attributes={"level": "{/level}"})

    wanted = tuple(value) if isinstance(value, list) else value
    assert workload.terms.attributes == {"level": wanted}
    assert type(workload.terms.attributes["level"]) is type(wanted)


async def test_what_must_match_is_compared_with_its_type(gate: Gate) -> None:
    text = token(claims(admin=True, level=1))

    assert await gate.code_of(text, match={"/admin": True, "/level": 1}) is None
    assert await gate.code_of(text, match={"/admin": 1}) is Code.ENROL_TOKEN_INVALID
    assert await gate.code_of(text, match={"/level": True}) is Code.ENROL_TOKEN_INVALID
    assert await gate.code_of(text, match={"/level": "1"}) is Code.ENROL_TOKEN_INVALID


async def test_a_claim_whose_key_holds_a_slash_is_named_by_its_escape(gate: Gate) -> None:
    text = token(claims() | {"a/b": {"c~d": "shop"}})

    workload = await gate.judge(text, match={"/a~1b/c~0d": "shop"}, name="{/a~1b/c~0d}")
    assert workload.terms.name.path == ("shop",)


async def test_only_algorithms_that_are_allowed_are_taken(gate: Gate) -> None:
    assert await gate.code_of(token(by="rsa"), algorithms=["RS256"]) is None
    assert await gate.code_of(token(by="ec"), algorithms=["RS256"]) is Code.ENROL_TOKEN_INVALID


async def test_of_several_kinds_of_one_issuer_the_first_that_fits_is_taken(gate: Gate) -> None:
    kinds = [
        kind(jwks_file=gate.keys, match={f"/{CLUSTER}/namespace": name}, name=name)
        for name in ("store", "shop")
    ]

    assert (await gate.judge(token(), *kinds)).terms.name.path == ("shop",)


async def test_a_token_is_good_to_the_second_with_a_minute_of_skew(gate: Gate) -> None:
    text = token(claims(exp=NOW + 100))
    gate.clock.advance(100 + CLOCK_SKEW_SECONDS - 1)
    assert await gate.code_of(text) is None
    gate.clock.advance(1)

    assert await gate.code_of(text) is Code.ENROL_TOKEN_INVALID


async def test_a_token_from_before_a_restore_may_have_been_used_then(gate: Gate) -> None:
    workloads = Workloads(
        [kind(jwks_file=gate.keys)],
        trust_domain="acme",
        audience=AUDIENCE,
        clock=gate.clock,
        issued_after_unix_s=NOW - 5,
    )
    with pytest.raises(SidelinkError) as caught:
        await workloads.verify_untrusted(token())
    assert caught.value.code is Code.ENROL_TOKEN_INVALID

    assert await workloads.verify_untrusted(token(claims(iat=NOW - 4)))


async def test_without_keys_nobody_can_tell(gate: Gate) -> None:
    gate.keys.unlink()

    assert await gate.code_of(token()) is Code.ENROL_KEYS_UNAVAILABLE


async def test_what_is_certain_to_be_refused_costs_its_issuer_no_question(gate: Gate) -> None:
    gate.keys.unlink()
    for text in REFUSED.values():
        assert await gate.code_of(text) is Code.ENROL_TOKEN_INVALID
