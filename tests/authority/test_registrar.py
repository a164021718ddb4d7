"""The registrar on real parts: requests of proved nodes, and what an operator asks of it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authority import registrar as registrar_module
from authority.registrar import Registrar
from identity import (
    Code,
    Invitation,
    SidelinkError,
    Ticket,
    VerifiedPeer,
    decode_credential_untrusted,
    issue_revocations,
)
from node.enrolment_wire import (
    EnrolGrant,
    EnrolRefusal,
    EnrolRequest,
    TokenRequest,
    decode_answer_untrusted,
)
from node.parts import Parts, open_parts
from node.settings import AuthoritySettings
from node.settings_load import load_settings
from node.store import RESTORED_UNIX_S
from tests.authority.helpers import GATEWAYS, FakeHop, new_node
from tests.authority.tokens import CLUSTER, ISSUER, claims, jwks, token
from tests.simulation.people import stranger

CONFIG = f"""\
trust_domain: acme
workloads:
  - issuer: {ISSUER}
    jwks_file: KEYS
    match: {{/{CLUSTER}/namespace: [shop, store]}}
    name: k8s/{{/{CLUSTER}/namespace}}/{{/{CLUSTER}/pod/name}}
    attributes: {{tier: gold}}
"""
POLICY = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: authority}
attributes: {tier: text}
rules:
  - name: no workload of the store
    effect: deny
    actions: [node.enrol]
    from: {name: "agent://acme/k8s/store/**", tier: gold}
  - name: something is allowed
    effect: allow
    actions: [node.enrol]
    from: {kind: unenrolled}
"""


class Routes:
    """The admin server's routes, called without a socket."""

    def __init__(self) -> None:
        self.handlers: dict[tuple[str, str], Any] = {}

    def add(self, method: str, path: str, handler: Any) -> None:
        self.handlers[method, path] = handler

    async def ask(self, method: str, path: str, **body: Any) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = await self.handlers[method, path](body)
        return answer


def unenrolled(own: Any) -> VerifiedPeer:
    somebody = stranger()
    return replace(somebody.peer, identity=replace(somebody.identity, identifier=own.identifier))


class Counter:
    """A registrar, who asks it, and how the operator reaches it."""

    def __init__(self, parts: Parts, settings: AuthoritySettings) -> None:
        self.parts = parts
        self.admin = Routes()
        parts.admin = self.admin  # type: ignore[assignment]
        self.told: list[Any] = []
        self.may_publish = True
        self.registrar = Registrar(
            parts,
            settings,
            gateways=lambda: GATEWAYS,
            ticket_given=lambda: self.told.append("ticket"),
            gateway_enrolled=lambda hop, node: self.told.append(node),
            may_publish=lambda: self.may_publish,
        )

    async def ask(self, request: Any, own: Any, *, hop: Any = None) -> Any:
        peer = unenrolled(own)
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.registrar.answer(request, peer, hop or FakeHop(), answered.set_result)
        async with asyncio.timeout(5):
            return decode_answer_untrusted(await answered)

    async def ticket(self, **wishes: Any) -> Ticket:
        answer = await self.admin.ask("POST", "/v1/tickets", **wishes)
        return Ticket.parse_untrusted(answer["ticket"])

    async def enrol(self, own: Any, ticket: Ticket) -> Any:
        return await self.ask(EnrolRequest(ticket.code, own.history.encode()), own)

    def token(self, namespace: str = "shop", **changes: Any) -> str:
        now = int(self.parts.clock.unix_s())
        made = claims(iat=now - 5, nbf=now - 5, exp=now + 600, **changes)
        made["aud"] = f"sidelink:{self.parts.node.identifier}"
        made[CLUSTER] = made[CLUSTER] | {"namespace": namespace}
        return token(made)


@asynccontextmanager
async def counter_in(folder: Path, *, restored: bytes | None = None) -> AsyncIterator[Counter]:
    state = folder / "authority"
    state.mkdir(mode=0o700, exist_ok=True)
    (folder / "keys.json").write_bytes(jwks())
    (state / "config.yaml").write_text(CONFIG.replace("KEYS", str(folder / "keys.json")))
    (state / "policy.yaml").write_text(POLICY)
    settings = load_settings(
        AuthoritySettings, {"state": str(folder), "ops_port": "0"}, variables={}
    )
    async with open_parts(settings, authority_of=settings.trust_domain) as parts:
        if restored is not None:
            parts.store.put(RESTORED_UNIX_S, restored)
        counter = Counter(parts, settings)
        try:
            yield counter
        finally:
            await counter.registrar.close()


async def test_a_workload_enrols_by_its_token_once(tmp_path: Path) -> None:
    async with counter_in(tmp_path) as at:
        own, other, text = new_node(), new_node(), at.token()
        answers = [
            await at.ask(TokenRequest(text, who.history.encode()), who) for who in (own, own, other)
        ]

    assert isinstance(answers[0], EnrolGrant)
    assert isinstance(answers[1], EnrolGrant), "an answer that was lost is asked for again"
    assert answers[2] == EnrolRefusal(Code.ENROL_TOKEN_USED)
    held = decode_credential_untrusted(answers[0].credential).credential
    assert str(held.name) == "agent://acme/k8s/shop/billing-7f9c"
    assert held.attributes == {"tier": "gold"}


async def test_policy_judges_the_name_and_attributes_that_the_claims_gave(tmp_path: Path) -> None:
    async with counter_in(tmp_path) as at:
        own = new_node()
        answer = await at.ask(TokenRequest(at.token("store"), own.history.encode()), own)

    assert answer == EnrolRefusal(Code.ENROL_DENIED)


async def test_a_denied_token_is_not_used_up(tmp_path: Path) -> None:
    async with counter_in(tmp_path) as at:
        own, other, text = new_node(), new_node(), at.token()
        at.registrar.revocations.revoke(own.identifier, "", unix_s=at.parts.clock.unix_s())
        refused = await at.ask(TokenRequest(text, own.history.encode()), own)
        granted = await at.ask(TokenRequest(text, other.history.encode()), other)

    assert refused == EnrolRefusal(Code.ENROL_REVOKED)
    assert isinstance(granted, EnrolGrant)


async def test_a_second_workload_is_not_given_the_name_of_the_first(tmp_path: Path) -> None:
    async with counter_in(tmp_path) as at:
        first, second = new_node(), new_node()
        await at.ask(TokenRequest(at.token(), first.history.encode()), first)
        again = at.token(jti="another")
        answer = await at.ask(TokenRequest(again, second.history.encode()), second)

    assert answer == EnrolRefusal(Code.ENROL_NAME_DENIED)


async def test_a_token_that_is_being_judged_ends_with_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = asyncio.Event()

    async def judge(*_: Any) -> Any:
        judged.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(registrar_module.Workloads, "verify_untrusted", judge)
    async with asyncio.timeout(5), counter_in(tmp_path) as at:
        own = new_node()
        asking = asyncio.create_task(at.ask(TokenRequest("x", own.history.encode()), own))
        await judged.wait()
        await at.registrar.close()
        asking.cancel()

    assert at.registrar._tasks == set()


async def test_a_gateway_that_enrols_over_its_own_hop_is_made_known(tmp_path: Path) -> None:
    async with counter_in(tmp_path) as at:
        ticket = await at.ticket(role="gateway")
        own = new_node()
        hop = FakeHop()
        hop.peer = unenrolled(own)
        await at.ask(EnrolRequest(ticket.code, own.history.encode()), own, hop=hop)

    assert at.told == ["ticket", own.identifier]


async def test_a_restored_authority_voids_once_what_was_open(tmp_path: Path) -> None:
    async with counter_in(tmp_path) as at:
        before = await at.ticket(name="before")
    async with counter_in(tmp_path, restored=b"1800000000") as at:
        refused = await at.enrol(new_node(), before)
        after = await at.ticket(name="after")
    async with counter_in(tmp_path) as at:
        granted = await at.enrol(new_node(), after)
    async with counter_in(tmp_path, restored=b"1800000001") as at:
        listed = (await at.admin.ask("GET", "/v1/tickets"))["tickets"]

    assert refused == EnrolRefusal(Code.ENROL_TICKET_REVOKED)
    assert isinstance(granted, EnrolGrant)
    assert sorted((one["name"], one["state"]) for one in listed) == [
        ("agent://acme/after", "used"),
        ("agent://acme/before", "void"),
    ]


async def test_an_operator_lists_and_revokes_tickets(tmp_path: Path) -> None:
    async with counter_in(tmp_path) as at:
        made = await at.admin.ask("POST", "/v1/tickets", name_prefix="workers", uses=3)
        ticket = Ticket.parse_untrusted(made["ticket"])
        await at.enrol(new_node(), ticket)
        [before] = (await at.admin.ask("GET", "/v1/tickets"))["tickets"]
        revoked = await at.admin.ask("POST", "/v1/tickets/revoke", id=made["id"])
        refused = await at.enrol(new_node(), ticket)
        [after] = (await at.admin.ask("GET", "/v1/tickets"))["tickets"]

    assert (before["name"], before["uses_left"], before["state"]) == (
        "agent://acme/workers/*",
        2,
        "open",
    )
    assert revoked == {"id": made["id"], "used": 1}
    assert refused == EnrolRefusal(Code.ENROL_TICKET_REVOKED)
    assert after["state"] == "revoked"
    assert ticket.code.hex() not in str(after)


async def test_an_invitation_leads_to_this_authority(tmp_path: Path) -> None:
    async with counter_in(tmp_path) as at:
        answer = await at.admin.ask("GET", "/v1/invitation")
        own = at.parts.node.identifier

    assert Invitation.parse_untrusted(answer["invitation"]) == Invitation("acme", own, GATEWAYS)


WAYS_TO_NAME_A_NODE = {
    "its path": "laptop",
    "its name": "agent://acme/laptop",
    "its identifier": None,
}


@pytest.mark.parametrize("who", WAYS_TO_NAME_A_NODE.values(), ids=WAYS_TO_NAME_A_NODE)
async def test_a_node_is_revoked_by(tmp_path: Path, who: str | None) -> None:
    async with counter_in(tmp_path) as at:
        own = new_node()
        await at.enrol(own, await at.ticket(name="laptop"))
        named = who or str(own.identifier)
        first = await at.admin.ask("POST", "/v1/revocations", who=named, reason="lost")
        again = await at.admin.ask("POST", "/v1/revocations", who=named)
        listed = await at.admin.ask("GET", "/v1/revocations")
        refused = await at.enrol(own, await at.ticket(name="laptop"))

    assert first == {"identifier": str(own.identifier), "revoked_before": False}
    assert again["revoked_before"]
    assert [(one["identifier"], one["reason"]) for one in listed["revocations"]] == [
        (str(own.identifier), "lost")
    ]
    assert refused == EnrolRefusal(Code.ENROL_REVOKED)


BAD_REVOCATIONS: dict[str, dict[str, Any]] = {
    "nobody": {},
    "a name that no node has": {"who": "nobody"},
    "a name that is none": {"who": "a//b"},
    "a node of another trust domain": {"who": "agent://globex/laptop"},
    "an identifier with a slip in it": {"who": "sl1" + "q" * 58},
    "a number": {"who": 7},
    "a reason that is a list": {"who": "sl1", "reason": ["lost"]},
    "an unknown field": {"who": "laptop", "until": 1},
}


@pytest.mark.parametrize("body", BAD_REVOCATIONS.values(), ids=BAD_REVOCATIONS)
async def test_a_revocation_is_refused_of(tmp_path: Path, body: dict[str, Any]) -> None:
    async with counter_in(tmp_path) as at:
        with pytest.raises(SidelinkError) as caught:
            await at.admin.ask("POST", "/v1/revocations", **body)
        count = at.registrar.revocations.count

    assert caught.value.code is Code.LOCAL_BAD_REQUEST
    assert count == 0


async def test_a_restored_authority_publishes_nothing_before_it_knows_what_others_hold(
    tmp_path: Path,
) -> None:
    """Its own list would be newer by the clock, and take the place of one that names more."""
    gone, later = new_node().identifier, new_node().identifier
    async with counter_in(tmp_path) as at:
        trust, own = at.parts.node.trust, at.parts.node.identifier
        lost = issue_revocations(
            at.parts.node.own,
            "acme",
            number=int(at.parts.clock.unix_s()) - 5,
            issued_unix_s=int(at.parts.clock.unix_s()) - 5,
            next_update_unix_s=int(at.parts.clock.unix_s()) + 3_600,
            revoked=[gone],
        )
        at.may_publish = False
        await at.admin.ask("GET", "/v1/revocations")
        await at.admin.ask("POST", "/v1/revocations", who=str(later), reason="")
        published_before = trust.encoded(own)
        trust.offer_untrusted(lost)
        at.may_publish = True
        at.registrar.publish()
        newest = trust.lists.newest(own)
        listed = (await at.admin.ask("GET", "/v1/revocations"))["revocations"]

    assert published_before is None
    assert newest is not None
    assert gone in newest
    assert later in newest
    assert {one["identifier"] for one in listed} == {str(gone), str(later)}
