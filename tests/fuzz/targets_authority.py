"""Targets of authority/: workload tokens, key sets, and lists of its own that others have kept."""

import asyncio
import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Final

from authority.jose import IssuerKey, read_keys_untrusted
from authority.keysets import KeySet
from authority.revocations import RevocationBook
from authority.tables import Tables
from authority.workloads import Workloads
from identity import Identifier, SidelinkError, issue_revocations
from node.clocks import ManualClock
from tests.authority.tokens import AUDIENCE, NOW, claims, jwks, kind, raw_token, token
from tests.fuzz.program import text_of
from tests.fuzz.target import Target
from tests.simulation.people import authority

DAY_S: Final = 86_400
SOMEBODY: Final = Identifier(bytes(32))


@functools.cache
def _workloads() -> Workloads:
    """Keys that are loaded once: the clock stands still."""
    clock = ManualClock()

    async def load() -> bytes:
        return jwks()

    made = Workloads(
        [kind(attributes={"subject": "{/sub}"})],
        trust_domain="acme",
        audience=AUDIENCE,
        clock=clock,
    )
    made._kinds = [replace(one, keys=KeySet("issuer", load, clock)) for one in made._kinds]
    return made


def run_token(data: bytes) -> None:
    """Nobody is let in under a name that the claims do not give, whoever signed them."""
    workload = asyncio.run(_workloads().verify_untrusted(text_of(data)))
    assert workload.terms.name.path[:2] in (("k8s", "shop"), ("k8s", "store"))
    assert workload.until_unix_s <= NOW + 2 * DAY_S


def run_signed_claims(data: bytes) -> None:
    """An issuer that is trusted, and says whatever it likes."""
    run_token(raw_token(b'{"alg":"ES256","kid":"ec"}', data).encode())


def run_keys(data: bytes) -> None:
    keys = read_keys_untrusted(data)
    assert all(isinstance(key, IssuerKey) and key.algorithms for key in keys)
    assert not any(name.startswith("HS") for key in keys for name in key.algorithms)


def _list_of(number: int) -> bytes:
    return issue_revocations(
        authority(),
        "acme",
        number=number,
        issued_unix_s=NOW,
        next_update_unix_s=NOW + DAY_S,
        revoked=[SOMEBODY],
    )


def run_own_list(data: bytes) -> None:
    """A list that a gateway shows to its authority: what is learned, the authority has signed."""
    tables = Tables(Path(":memory:"))
    try:
        book = RevocationBook(tables, authority, "acme", next_update_s=DAY_S)
        if book.merge_untrusted(data, unix_s=NOW):
            assert [one.identifier for one in book.revocations()] == [SOMEBODY]
    finally:
        tables.close()


TARGETS: Final[list[Target]] = [
    Target(
        "authority.token",
        "a workload token, as text",
        run_token,
        lambda: [token().encode(), token(by="ed").encode(), token(key_id="nobody").encode()],
        SidelinkError,
    ),
    Target(
        "authority.claims",
        "claims that an issuer has signed",
        run_signed_claims,
        lambda: [json.dumps(claims()).encode(), b'{"iss":1}'],
        SidelinkError,
    ),
    Target("authority.keys", "a JWK set", run_keys, lambda: [jwks()], SidelinkError),
    Target(
        "authority.own_list",
        "a revocation list of the authority's own, shown by a gateway",
        run_own_list,
        lambda: [_list_of(NOW)],
        SidelinkError,
    ),
]
