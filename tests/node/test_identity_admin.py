"""What an operator sees of a node's identity and trust, and may change."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from identity import Code, Identifier, SidelinkError, did_key
from node.clocks import ManualClock
from node.identity_admin import IdentityAdmin
from node.own_node import OwnNode
from node.rotation import NODE_ANNOUNCE_SECONDS, Rotation
from node.store import TRUST_ANCHORS_MAX
from tests.node.members import DAY_S, HOUR_S, START_UNIX_S, Authority, hop_proof, started

SOMEBODY = Identifier(b"s" * 32)


class Desk:
    """The admin routes of a node, called without a socket."""

    def __init__(self, node: OwnNode, store: Any, clock: ManualClock) -> None:
        self.node = node
        self.handlers: dict[tuple[str, str], Any] = {}
        server: Any = self
        IdentityAdmin(server, node, Rotation(node, store, clock), clock)

    def add(self, method: str, path: str, handler: Any) -> None:
        self.handlers[method, path] = handler

    async def ask(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self.handlers[method, path](body)
        return answer


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def acme() -> Authority:
    return Authority()


@pytest.fixture
def desk(tmp_path: Path, clock: ManualClock, acme: Authority) -> Iterator[Desk]:
    with started(tmp_path, clock) as (node, store):
        acme.enrol(node, clock.unix_s(), ttl_s=DAY_S)
        yield Desk(node, store, clock)


async def refused(desk: Desk, path: str, body: Mapping[str, Any]) -> tuple[Code, str]:
    with pytest.raises(SidelinkError) as caught:
        await desk.ask("POST", path, **body)
    return caught.value.code, caught.value.detail


async def test_an_identity_is_shown_with_its_key_and_when_each_key_ends(
    desk: Desk, clock: ManualClock, acme: Authority
) -> None:
    desk.node.announce_key(overlap_s=HOUR_S)
    shown = await desk.ask("GET", "/v1/identity")

    own = desk.node.own
    assert shown["identifier"] == str(own.identifier)
    assert shown["name"] == "agent://acme/node/a"
    assert shown["spiffe_id"] == "spiffe://acme/node/a"
    assert shown["kind"] == "node"
    assert shown["issuer"] == str(acme.identifier)
    assert shown["key"] == did_key(own.signing_key.verify_key)
    assert own.next_key is not None
    assert shown["announced_key"] == did_key(own.next_key.verify_key)
    first, second = shown["changes"]
    assert first["key"] == shown["key"]
    assert first["ends_unix_s"] == START_UNIX_S + HOUR_S
    assert second["key"] == shown["announced_key"]
    assert shown["expires_unix_s"] == START_UNIX_S + DAY_S


async def test_a_node_without_a_credential_is_shown_without_a_name(
    tmp_path: Path, clock: ManualClock
) -> None:
    with started(tmp_path, clock) as (node, store):
        shown = await Desk(node, store, clock).ask("GET", "/v1/identity")

    assert (shown["name"], shown["spiffe_id"], shown["issuer"]) == (None, None, None)
    assert shown["kind"] == "unenrolled"
    assert shown["expires_unix_s"] is None


async def test_nothing_that_is_shown_is_secret(desk: Desk) -> None:
    desk.node.announce_key(overlap_s=HOUR_S)
    own = desk.node.own
    told = repr(await desk.ask("GET", "/v1/identity"))

    assert own.next_key is not None
    for key in (own.signing_key, own.next_key):
        assert key.private_bytes().hex() not in told
        assert repr(key.private_bytes()) not in told


async def test_a_rotation_is_begun_as_it_is_wished_for(desk: Desk) -> None:
    answer = await desk.ask("POST", "/v1/identity/rotate", overlap_s=HOUR_S)

    assert answer["change_number"] == 1
    assert answer["used_from_unix_s"] == START_UNIX_S + NODE_ANNOUNCE_SECONDS
    assert answer["old_key_ends_unix_s"] == START_UNIX_S + HOUR_S
    code, detail = await refused(desk, "/v1/identity/rotate", {})
    assert code is Code.LOCAL_BAD_REQUEST
    assert "under way" in detail


async def test_who_is_trusted_is_listed_with_what_is_known_of_each(
    desk: Desk, clock: ManualClock, acme: Authority
) -> None:
    globex = Authority("globex")
    added = await desk.ask(
        "POST", "/v1/trust", authority=str(globex.identifier), trust_domain="globex"
    )
    desk.node.trust.offer_untrusted(acme.revocations(clock.unix_s(), SOMEBODY))
    listed = {
        one["trust_domain"]: one for one in (await desk.ask("GET", "/v1/trust"))["authorities"]
    }

    assert added == {"authority": str(globex.identifier), "trust_domain": "globex"}
    assert listed["acme"]["own"] is True
    assert listed["globex"]["own"] is False
    assert listed["globex"]["revocations"] is None
    assert listed["acme"]["revocations"] == {
        "number": START_UNIX_S,
        "revoked": 1,
        "issued_unix_s": START_UNIX_S,
        "next_update_unix_s": START_UNIX_S + DAY_S,
    }


async def test_who_is_trusted_is_let_in_until_it_is_removed(desk: Desk, clock: ManualClock) -> None:
    globex = Authority("globex")
    guest = globex.member(clock.unix_s())
    wish = {"authority": str(globex.identifier), "trust_domain": "globex"}
    await desk.ask("POST", "/v1/trust", **wish)
    await desk.ask("POST", "/v1/trust", **wish)
    let_in = desk.node.verify_hop(*hop_proof(guest)).identity.trust_domain
    removed = await desk.ask("POST", "/v1/trust/remove", authority=wish["authority"])
    with pytest.raises(SidelinkError) as out:
        desk.node.verify_hop(*hop_proof(guest))

    assert let_in == "globex"
    assert removed == {"removed": wish["authority"]}
    assert out.value.code is Code.CHANNEL_WRONG_AUTHORITY


GLOBEX = str(Authority("globex").identifier)
BAD: Mapping[str, tuple[str, Mapping[str, Any], str]] = {
    "a field that is not known": ("/v1/trust", {"authority": GLOBEX, "domain": "x"}, "'domain'"),
    "no authority": ("/v1/trust", {"trust_domain": "globex"}, "characters"),
    "an authority with a slip": (
        "/v1/trust",
        {"authority": GLOBEX[:-1] + ("q" if GLOBEX[-1] != "q" else "p"), "trust_domain": "globex"},
        "checksum",
    ),
    "an authority that is a number": ("/v1/trust", {"authority": 7, "trust_domain": "g"}, "text"),
    "no trust domain": ("/v1/trust", {"authority": GLOBEX}, "trust domain"),
    "a trust domain that is none": (
        "/v1/trust",
        {"authority": GLOBEX, "trust_domain": "Globex/Sales"},
        "trust domain",
    ),
    "a trust domain that is a list": (
        "/v1/trust",
        {"authority": GLOBEX, "trust_domain": ["globex"]},
        "trust domain",
    ),
    "our own domain under another authority": (
        "/v1/trust",
        {"authority": GLOBEX, "trust_domain": "acme"},
        "the domain of sl1",
    ),
    "whom nobody trusts": ("/v1/trust/remove", {"authority": GLOBEX}, "not trusted"),
    "nobody to be removed": ("/v1/trust/remove", {}, "characters"),
    "a rotation in another unit": ("/v1/identity/rotate", {"announce": "30s"}, "'announce'"),
}


@pytest.mark.parametrize("case", BAD)
async def test_nothing_changes_for(case: str, desk: Desk) -> None:
    path, body, why = BAD[case]
    before = desk.node.trust.anchors, desk.node.own
    code, detail = await refused(desk, path, body)

    assert code is Code.LOCAL_BAD_REQUEST
    assert why in detail
    assert (desk.node.trust.anchors, desk.node.own) == before


async def test_an_authority_has_one_domain_and_a_domain_one_authority(desk: Desk) -> None:
    await desk.ask("POST", "/v1/trust", authority=GLOBEX, trust_domain="globex")
    other = str(Authority("globex").identifier)
    twice = await refused(desk, "/v1/trust", {"authority": GLOBEX, "trust_domain": "initech"})
    again = await refused(desk, "/v1/trust", {"authority": other, "trust_domain": "globex"})

    assert "is trusted for globex" in twice[1]
    assert f"the domain of {GLOBEX}" in again[1]
    assert len(desk.node.trust.anchors) == 2


async def test_a_nodes_own_authority_stays(desk: Desk, acme: Authority) -> None:
    _, detail = await refused(desk, "/v1/trust/remove", {"authority": str(acme.identifier)})

    assert "own authority" in detail
    assert desk.node.enrolled


async def test_so_many_authorities_are_trusted_and_no_more(desk: Desk) -> None:
    for number in range(TRUST_ANCHORS_MAX - 1):
        authority = Identifier(number.to_bytes(32, "big"))
        await desk.ask(
            "POST", "/v1/trust", authority=str(authority), trust_domain=f"company-{number}"
        )
    code, detail = await refused(desk, "/v1/trust", {"authority": GLOBEX, "trust_domain": "globex"})

    assert code is Code.CONFIG_INVALID
    assert str(TRUST_ANCHORS_MAX) in detail
    assert len(desk.node.trust.anchors) == TRUST_ANCHORS_MAX
