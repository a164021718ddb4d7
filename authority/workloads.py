"""Judges workload tokens: whose they are, for whom, how old, and what their node becomes.

Settings choose by claims before a signature is checked, which costs nothing and settles nothing:
the same bytes are verified afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from authority.issuer import Workload
from authority.jose import Token
from authority.keysets import KeySet, key_set_of
from authority.terms import Terms, sidecar_delegable
from identity import AgentUri, AttributeValue, Code, IdentityError, NamePrefix, SidelinkError
from identity.credential import ATTRIBUTE_INTEGER_MAX, ATTRIBUTE_INTEGER_MIN
from identity.fields import UNIX_S_MAX
from node.clocks import Clock
from node.workload_settings import (
    Claim,
    WorkloadSettings,
    parse_claim,
    parse_claim_value,
    parse_template,
)

CLOCK_SKEW_SECONDS: Final = 60
ATTRIBUTE_CHARACTERS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class _Kind:
    """One entry of the settings, made ready."""

    settings: WorkloadSettings
    audience: str
    match: tuple[tuple[Claim, tuple[object, ...]], ...]
    name: tuple[str | Claim, ...]
    keys: KeySet


class Workloads:
    """All kinds of workloads that this authority lets in."""

    def __init__(
        self,
        kinds: Sequence[WorkloadSettings],
        *,
        trust_domain: str,
        audience: str,
        clock: Clock,
        issued_after_unix_s: float = 0.0,
    ) -> None:
        """``audience`` is of those that name none. Tokens from before ``issued_after_unix_s`` may
        have been used when this authority's book was another."""
        self._trust_domain = trust_domain
        self._clock = clock
        self._issued_after_unix_s = issued_after_unix_s
        self._kinds = [
            _Kind(
                settings=one,
                audience=one.audience or audience,
                match=tuple(
                    (parse_claim(pointer), wanted if isinstance(wanted, tuple) else (wanted,))
                    for pointer, wanted in one.match.items()
                ),
                name=parse_template(one.name),
                keys=key_set_of(one, clock),
            )
            for one in kinds
        ]

    async def close(self) -> None:
        for kind in self._kinds:
            await kind.keys.close()

    async def verify_untrusted(self, text: str) -> Workload:
        """What the token's node becomes. Raises SidelinkError: enrol.token_invalid,
        enrol.keys_unavailable."""
        token = Token.parse_untrusted(text)
        kind = self._choose_untrusted(token)
        until_unix_s = self._check_times_untrusted(token.claims, kind.settings.token_age_s_max)
        if token.algorithm not in kind.settings.algorithms:
            raise _invalid(f"it is signed by {token.algorithm}")
        key = await kind.keys.key_for_untrusted(token)
        token.verify(key, issuer=kind.settings.issuer, audience=kind.audience)
        return Workload(
            self._terms(kind, token.claims), kind.settings.replace, token.digest, until_unix_s
        )

    def _choose_untrusted(self, token: Token) -> _Kind:
        claims = token.claims
        refusal = "it is of an unknown issuer"
        for kind in self._kinds:
            if claims.get("iss") != kind.settings.issuer:
                continue
            # Of several audiences each could show the token to the others.
            if claims.get("aud") not in (kind.audience, [kind.audience]):
                refusal = "it is for another audience, or for several"
                continue
            if all(_is_one_of(_find(claims, claim), wanted) for claim, wanted in kind.match):
                return kind
            refusal = "its claims match no workload of this authority"
        raise _invalid(refusal)

    def _check_times_untrusted(self, claims: Mapping[str, Any], age_s_max: int) -> int:
        """Returns when nobody would take the token any more."""
        unix_s = self._clock.unix_s()
        issued, expires = _time(claims, "iat"), _time(claims, "exp")
        begins = _time(claims, "nbf") if "nbf" in claims else issued
        if unix_s >= expires + CLOCK_SKEW_SECONDS:
            raise _invalid("its time is over")
        if max(issued, begins) > unix_s + CLOCK_SKEW_SECONDS:
            raise _invalid("its time has not begun")
        if unix_s >= issued + age_s_max + CLOCK_SKEW_SECONDS:
            raise _invalid(f"it was issued more than {age_s_max} s ago")
        if issued <= self._issued_after_unix_s:
            raise _invalid("it was issued before this authority was restored")
        return int(min(expires, issued + age_s_max)) + CLOCK_SKEW_SECONDS + 1

    def _terms(self, kind: _Kind, claims: Mapping[str, Any]) -> Terms:
        path = tuple(
            part if isinstance(part, str) else _segment(claims, part) for part in kind.name
        )
        try:
            name = AgentUri(self._trust_domain, path)
        except IdentityError as error:
            raise _invalid(error.detail) from error
        return Terms(
            name=name,
            role="sidecar",
            attributes={
                key: _attribute(claims, value) for key, value in kind.settings.attributes.items()
            },
            delegable=sidecar_delegable(
                (NamePrefix(self._trust_domain, name.path),), kind.settings.allowed_attributes
            ),
        )


def _find(claims: Mapping[str, Any], claim: Claim) -> Any:
    """The value of a claim, or None: a claim that is null is as good as none."""
    value: Any = claims
    for key in claim:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _is_one_of(value: object, wanted: Sequence[object]) -> bool:
    # True is no 1 here, though Python would have it so.
    return any(type(value) is type(one) and value == one for one in wanted)


def _segment(claims: Mapping[str, Any], claim: Claim) -> str:
    value = _find(claims, claim)
    if not isinstance(value, str):
        raise _invalid(f"/{'/'.join(claim)} is no text, and the name needs it")
    return value


def _attribute(claims: Mapping[str, Any], value: AttributeValue) -> AttributeValue:
    claim = parse_claim_value(value)
    if claim is None:
        return value
    found = _find(claims, claim)
    match found:
        case bool() | str() | int() if _is_value(found):
            return found
        case list() if all(isinstance(item, str) and _is_value(item) for item in found):
            return tuple(found)
    raise _invalid(f"/{'/'.join(claim)} can be no attribute, and one is made of it")


def _is_value(value: str | int) -> bool:
    if isinstance(value, str):
        return value.isprintable() and len(value) <= ATTRIBUTE_CHARACTERS_MAX
    return ATTRIBUTE_INTEGER_MIN <= value <= ATTRIBUTE_INTEGER_MAX


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(f"its {name} is no number")
    if not 0 <= value <= UNIX_S_MAX:
        raise _invalid(f"its {name} is no time")
    return float(value)


def _invalid(detail: str) -> SidelinkError:
    return SidelinkError(Code.ENROL_TOKEN_INVALID, detail)
