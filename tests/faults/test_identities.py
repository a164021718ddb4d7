"""Faults of identity that others shipped; the sentence before each is what went wrong there.

Each test goes the way of the fault at the most real level that costs little. The other five of the
twelve stand in test_sessions_and_relays.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from sidelink import wire

from channel import ChannelDenied
from identity import (
    ChainLink,
    Code,
    Keystore,
    MasterKey,
    Proof,
    ProofVerifier,
    Purpose,
    SidelinkError,
    TrustAnchor,
    decode_credential_untrusted,
)
from identity.cbor import decode_untrusted, encode
from identity.purpose import decode_attestation_untrusted
from node.clocks import ManualClock
from node.enrolment import adopt_grant
from node.enrolment_wire import EnrolGrant
from node.own_node import OwnNode
from node.rotation import Rotation
from node.store import Store
from policy import PolicyEngine
from sidecar.envelope import Ask, Reject, Tell
from sidecar.local_session import LocalLimits
from tests.authority.test_workloads import Gate
from tests.authority.tokens import AUDIENCE, claims, token
from tests.conformance.vector_wrong_objects import respelled
from tests.identity.helpers import NARROW, NOW, PLANNER, Person, World, refused
from tests.identity.test_revocation import Revoking
from tests.node.test_own_node import enrolled_node
from tests.sdk.fakes import FakeRouter, local_api
from tests.sidecar.local_clients import Clients
from tests.sidecar.mcp_helpers import call_of
from tests.sidecar.router_helpers import Lonely, Puppet
from tests.sidecar.test_mcp_ingress import FarSide, ingress_to

WAIT_S: Final = 20.0

# 6. Identity was taken from a leaf when only another certificate of the chain was trusted.


def _stranger_below_a_trusted_link(world: World) -> bytes:
    """A leaf of nobody's, and behind it the honest link of a node that is trusted."""
    stranger, mallory = Person(), Person()
    return mallory.proof(stranger.link(mallory, PLANNER), world.node_link())


def _own_word_beside_the_authoritys_history(world: World) -> bytes:
    mallory = Person()
    forged = Person(mallory.key, history=world.authority.history)
    forged.key = mallory.key
    claim = Person().issue(mallory, PLANNER)
    link = replace(world.node_link(), credential=claim.encoded)
    return mallory.proof(link)


def _trusted_only_beside_the_chain(world: World) -> bytes:
    """A further chain that is trusted, behind one of an authority that is not."""
    other, mallory = World(), world.planner
    links = (other.node.link(mallory, PLANNER), other.node_link())
    further = ((world.planner_link(name="agent://acme/finance/x"), world.node_link()),)
    return Proof(mallory.history.encode(), mallory.attestation(), links, further).encode()


LEAVES: dict[str, tuple[Callable[[World], bytes], Code]] = {
    "behind which stands a link that is trusted": (
        _stranger_below_a_trusted_link,
        Code.CHANNEL_PROOF_INVALID,
    ),
    "beside the history of an authority that did not sign it": (
        _own_word_beside_the_authoritys_history,
        Code.CHANNEL_PROOF_INVALID,
    ),
    "beside a further chain that is trusted": (
        _trusted_only_beside_the_chain,
        Code.CHANNEL_WRONG_AUTHORITY,
    ),
}


@pytest.mark.parametrize(("make", "code"), LEAVES.values(), ids=LEAVES)
def test_no_leaf_is_believed(make: Callable[[World], bytes], code: Code) -> None:
    world = World()
    proof = make(world)
    key = decode_attestation_untrusted(Proof.decode_untrusted(proof).attestation).noise_public
    verify = world.new_verifier().verify

    assert (
        refused(lambda: verify(proof, purpose=Purpose.CHANNEL, noise_key=key.raw, unix_s=NOW))
        is code
    )


# 7. A header that the peer supplied skipped verification.


async def test_a_header_that_names_somebody_does_not_cross_the_mesh() -> None:
    far_side = FarSide()
    forged = {"sidelink_identity": "agent://acme/boss", "Sidelink_Verified": "true"}
    async with ingress_to(far_side.open) as client:
        asking = asyncio.create_task(client.ask(*call_of("t"), **forged))
        far, head, _ = await far_side.request()
        far.reset(Code.STREAM_RESET)
        await asking

    assert not [name for name, _ in head.headers if name.startswith("sidelink-")]
    assert far_side.asked[0][0] == "alice", "somebody else asked than the one the ingress acts as"


async def test_policy_reads_what_will_be_done_and_not_what_a_header_says() -> None:
    far_side = FarSide()
    body, _ = call_of("forbidden")
    _, innocent = call_of("harmless")
    async with ingress_to(far_side.open) as client:
        response = await client.ask(body, innocent)

    assert response.status == 400
    assert far_side.asked == []


# 8. Audience and issuer were not always checked.


def _crossed(world: World, other: World) -> dict[str, tuple[ChainLink, ...]]:
    """Chains of one who is trusted for acme only, and of one who is trusted for globex only."""
    planner = world.planner
    return {
        "an authority of globex speaks for acme": (
            other.node.link(planner, PLANNER),
            other.node_link(),
        ),
        "an authority of acme speaks for globex": (
            world.authority.link(planner, "agent://globex/planner", trust_domain="globex"),
        ),
        "the last issuer is nobody's anchor": (Person().link(planner, PLANNER),),
    }


CROSSINGS: Final = tuple(_crossed(World(), World()))


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize("crossing", CROSSINGS)
def test_no_hop_and_no_channel_opens_on_a_word_for_another_domain(
    crossing: str, purpose: Purpose
) -> None:
    world, other = World(), World()
    verifier = ProofVerifier(_anchors(world, other), own=world.own.history.identifier)
    planner = world.planner
    chain = _crossed(world, other)[crossing]
    proof = planner.proof(*chain, attestation=planner.attestation(purpose))
    key = planner.noise.public.raw

    code = refused(lambda: verifier.verify(proof, purpose=purpose, noise_key=key, unix_s=NOW))

    assert code is Code.CHANNEL_WRONG_AUTHORITY


@pytest.mark.parametrize("crossing", CROSSINGS[:2])
def test_a_further_word_for_another_domain_spoils_the_proof(crossing: str) -> None:
    world, other = World(), World()
    verifier = ProofVerifier(_anchors(world, other), own=world.own.history.identifier)
    planner = world.planner
    chain = world.planner_link(), world.node_link()
    further = (_crossed(world, other)[crossing],)
    proof = Proof(planner.history.encode(), planner.attestation(), chain, further).encode()

    code = refused(
        lambda: verifier.verify(
            proof, purpose=Purpose.CHANNEL, noise_key=planner.noise.public.raw, unix_s=NOW
        )
    )

    assert code is Code.CHANNEL_WRONG_AUTHORITY


def _anchors(world: World, other: World) -> list[TrustAnchor]:
    return [
        TrustAnchor(world.authority.history.identifier, "acme"),
        TrustAnchor(other.authority.history.identifier, "globex"),
    ]


def test_no_authority_revokes_in_the_domain_of_another() -> None:
    world, other = Revoking(), Revoking()
    verifier = ProofVerifier(
        _anchors(world, other), own=world.own.history.identifier, lists=world.lists
    )
    foreign = other.issue(world.planner, trust_domain="acme")

    code = refused(lambda: verifier.learn_revocations_untrusted(foreign, unix_s=NOW))

    assert code is Code.CHANNEL_WRONG_AUTHORITY


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "state.db") as opened:
        yield opened


@pytest.fixture
def own_node(tmp_path: Path, store: Store, clock: ManualClock) -> Iterator[OwnNode]:
    """A node of acme that has enrolled."""
    key = MasterKey.generate()
    with contextlib.closing(Keystore.open(tmp_path / "state.db", key)) as keystore:
        yield enrolled_node(keystore, store, clock)


def test_a_node_adopts_no_grant_for_another_domain_or_of_another_issuer(
    own_node: OwnNode, store: Store, clock: ManualClock
) -> None:
    before = own_node.own.chain
    [link] = before
    issuer = own_node.identity.issuer
    assert issuer is not None
    ticket: Any = SimpleNamespace(authority=issuer, gateways=())
    stranger = Person()
    unix_s = int(clock.unix_s())
    foreign = stranger.issue(
        Person(history=own_node.own.history),
        "agent://acme/node/a",
        kind="node",
        not_before_unix_s=unix_s,
        expires_unix_s=unix_s + 60,
    ).encoded
    grants = {
        EnrolGrant(foreign, stranger.history.encode(), ()): Code.ENROL_WRONG_AUTHORITY,
        EnrolGrant(foreign, link.issuer_history, ()): Code.CHANNEL_PROOF_INVALID,
    }
    for grant, code in grants.items():
        with pytest.raises(SidelinkError) as caught:
            adopt_grant(own_node, store, ticket, grant, clock)
        assert caught.value.code is code

    assert own_node.own.chain == before


TOKENS: Final[dict[str, dict[str, Any]]] = {
    "another issuer": {"iss": "https://elsewhere.example"},
    "no issuer": {"iss": ...},
    "another audience": {"aud": ["sidelink:sl1other"]},
    "no audience": {"aud": ...},
    "this audience and another": {"aud": [AUDIENCE, "sidelink:sl1other"]},
}


@pytest.mark.parametrize("changes", TOKENS.values(), ids=TOKENS)
async def test_no_token_lets_a_node_in_with(changes: dict[str, Any], tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    async with asyncio.timeout(WAIT_S):
        assert await gate.code_of(token(claims())) is None
        code = await gate.code_of(token(claims(**changes)))

    assert code is Code.ENROL_TOKEN_INVALID


# 9. A missing attribute crashed instead of denying.


CLEARED: Final = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: cleared}
attributes: {role: text, clearance: int}
rules:
  - name: all may talk
    effect: allow
    actions: [channel.open, message.tell]
    from: {kind: agent}
  - name: who is cleared may ask
    effect: allow
    actions: [message.ask]
    when: subject.clearance >= 2
  - name: nobody tells below three
    effect: deny
    actions: [message.tell]
    when: subject.clearance < 3 || subject.role == 'x'
"""


def test_who_lacks_what_a_rule_asks_for_is_denied_and_everybody_else_goes_on() -> None:
    """In an allow rule the missing attribute grants nothing; in a deny rule it denies."""
    lonely = Lonely(policy=PolicyEngine.load(CLEARED, file="policy.yaml"))
    session = lonely.sidecar.new_session("alice")
    session.listen()
    puppet = Puppet(lonely)
    puppet.connect(session.uri)
    puppet.say(Ask(1, b"which", "", 1_000), Tell(2, b"this", ""))

    answers = [(one.in_reply_to, one.code) for one in puppet.heard() if isinstance(one, Reject)]
    assert answers == [(1, Code.POLICY_NO_RULE), (2, Code.POLICY_DENIED)]
    assert session.of(wire.Deliver) == []
    assert puppet.is_open
    assert not puppet.of(ChannelDenied)
    assert lonely.hop.closed is None


# 10. Bodies of who had not shown who they are were buffered whole.


async def test_an_ingress_reads_no_body_of_who_has_no_token() -> None:
    chunk, chunks = bytes(1 << 16), 1_024
    pulled = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal pulled
        for _ in range(chunks):
            pulled += 1
            yield chunk

    far_side = FarSide()
    async with ingress_to(far_side.open) as client:
        _, headers = call_of("t")
        async with client.post(body(), headers, authorization="Bearer wrong") as response:
            status = response.status

    assert status == 401
    assert pulled < chunks // 4, "it was sent most of what nobody may send"
    assert far_side.asked == []


async def test_a_process_is_not_listened_to_before_it_has_said_who_it_is(tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.sock"
    clients = Clients(path)
    async with asyncio.timeout(WAIT_S), local_api(path, FakeRouter()):
        client = await clients.connect()
        client.writer.write((1 << 20).to_bytes(4, "big") + bytes(LocalLimits().hello_bytes_max))
        last = await client.last()
        await clients.close()

    assert isinstance(last, wire.Goodbye)
    assert last.code == "local.limit"


# 11. A revocation by fingerprint was dodged by re-encoding a signature.


def _with_another_signature(world: Revoking) -> Any:
    """S + L: another spelling of the same signature."""
    link = world.node_link()
    message = decode_untrusted(link.credential, bytes_max=1 << 16)
    return replace(link, credential=encode([*message[:3], respelled(message[3])]))


def _with_another_key(world: Revoking) -> Any:
    """The node rotates: another key, another history, the same identifier."""
    world.node = world.node.rotated()
    return world.node_link()


DODGES: dict[str, tuple[Callable[[Revoking], Any], Code]] = {
    "another credential": (lambda world: world.node_link(), Code.CHANNEL_REVOKED),
    "a credential for another name": (
        lambda world: world.authority.link(
            world.node, "agent://acme/fin", kind="node", delegable=NARROW
        ),
        Code.CHANNEL_REVOKED,
    ),
    "another key": (_with_another_key, Code.CHANNEL_REVOKED),
    # Refused before anybody asks who is revoked or not: it is no signature.
    "another spelling of its signature": (_with_another_signature, Code.CHANNEL_REVOKED),
}


@pytest.mark.parametrize(("make", "code"), DODGES.values(), ids=DODGES)
def test_nobody_who_is_revoked_comes_back_with(make: Callable[[Revoking], Any], code: Code) -> None:
    world = Revoking()
    world.learn(world.issue(world.node))
    link = make(world)
    attestations = [world.node.attestation(), world.node.attestation(expires_unix_s=NOW + 99)]
    for attestation in attestations:
        proof = world.node.proof(link, attestation=attestation)
        assert refused(lambda proof=proof: world.verify(proof, world.node)) is code


def test_another_spelling_of_a_signature_is_no_signature() -> None:
    """Else each credential would have two forms, and whoever counts them would be wrong."""
    world = Revoking()
    link = _with_another_signature(world)

    code = refused(lambda: world.verify(world.node.proof(link), world.node))

    assert code is Code.CHANNEL_CREDENTIAL_INVALID


# 12. New keys were used before they were announced.


def _signer(node: OwnNode) -> int:
    """The change whose key signs what this node shows now."""
    shown = Proof.decode_untrusted(node.hop_identity().proof)
    return decode_attestation_untrusted(shown.attestation).change_number


def test_a_new_key_signs_nothing_before_it_was_shown_for_as_long_as_was_said(
    own_node: OwnNode, store: Store, clock: ManualClock
) -> None:
    rotation = Rotation(own_node, store, clock)
    seen: list[tuple[int, int]] = []
    own_node.on_change.append(
        lambda: seen.append((own_node.own.history.change_number, _signer(own_node)))
    )

    told = rotation.begin({"announce_s": 30, "overlap_s": 3_600})
    while clock.unix_s() < told["used_from_unix_s"]:
        assert _signer(own_node) == 0
        assert rotation.use_unix_s is not None
        assert rotation.use_unix_s > clock.unix_s()
        clock.advance(10.0)
    rotation._complete()

    assert seen == [(1, 0), (1, 1)], "neighbours are shown the change before the key signs"
    assert _signer(own_node) == 1


async def test_a_rotation_that_was_announced_waits_for_its_time(
    own_node: OwnNode, store: Store, clock: ManualClock
) -> None:
    rotation = Rotation(own_node, store, clock)
    used = asyncio.Event()
    rotation.on_used.append(used.set)
    rotation.begin({"announce_s": 30, "overlap_s": 3_600})
    clock.advance(29.0)
    async with asyncio.timeout(WAIT_S):
        running = asyncio.create_task(rotation.run())
        await asyncio.sleep(0)
        assert _signer(own_node) == 0
        clock.advance(1.0)
        rotation._asked.set()
        await used.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert _signer(own_node) == 1


def test_a_peer_that_knows_the_old_history_only_verifies_all_that_is_signed_meanwhile() -> None:
    """An authority: what it issues between the two steps must not need news to be believed."""
    world = World()
    verifier = world.new_verifier()
    before = world.node.proof(world.node_link())
    assert verifier.verify(
        before, purpose=Purpose.CHANNEL, noise_key=world.node.noise.public.raw, unix_s=NOW
    )
    announced = Person(world.authority.key, history=world.authority.rotated().history)
    signed = announced.issue(world.node, "agent://acme/finance", kind="node")
    old_history = world.authority.history.encode()
    proof = world.node.proof(ChainLink(signed.encoded, old_history))

    seen = verifier.verify(
        proof, purpose=Purpose.CHANNEL, noise_key=world.node.noise.public.raw, unix_s=NOW
    )

    assert seen.identifier == world.node.history.identifier
    assert decode_credential_untrusted(signed.encoded).credential.issuer_change_number == 0
