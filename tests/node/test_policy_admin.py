"""What an operator may publish as mandatory over the admin socket, and what is shown of it."""

from collections.abc import Callable
from typing import Any

import pytest

from identity import Code, PolicyFile, SidelinkError
from node.policy_admin import PolicyAdmin
from tests.node.test_mandatory import Node, enrolled
from tests.node.test_mandatory import acme as acme
from tests.node.test_mandatory import clock as clock
from tests.node.test_mandatory import make as make

TOP = "apiVersion: sidelink/v1\nkind: Policy\nmetadata: {name: domain}\nrules:\n"
ASKS = f"{TOP}  - {{name: asks, effect: allow, actions: [message.ask]}}\n"


def denies_hops(more: str = "") -> str:
    return f"{ASKS}  - {{name: no hops, effect: deny, actions: [hop.admit]{more}}}\n"


class Desk:
    """The admin routes of a node, called without a socket."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.handlers: dict[tuple[str, str], Any] = {}
        server: Any = self
        PolicyAdmin(server, node.mandatory, node.node.party, node.clock)

    def add(self, method: str, path: str, handler: Any) -> None:
        self.handlers[method, path] = handler

    async def ask(self, method: str, path: str = "", **body: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self.handlers[method, f"/v1/policies{path}"](body)
        return answer

    async def publish(self, text: str) -> dict[str, Any]:
        return await self.ask("POST", files=[{"name": "domain.yaml", "text": text}])

    async def refused(self, path: str = "", **body: Any) -> Code:
        with pytest.raises(SidelinkError) as caught:
            await self.ask("POST", path, **body)
        return caught.value.code


@pytest.fixture
def desk(acme: Node) -> Desk:
    return Desk(acme)


async def test_the_list_names_files_and_one_is_shown_with_its_texts(desk: Desk) -> None:
    number = (await desk.publish(ASKS))["number"]
    listed = (await desk.ask("GET"))["policies"]
    shown = await desk.ask("POST", "/show", number=number)

    assert [(one["number"], one["files"]) for one in listed] == [
        (number, [{"name": "domain.yaml"}])
    ]
    assert shown["files"] == [{"name": "domain.yaml", "text": ASKS}]


async def test_what_may_not_be_published_may_not_be_gone_back_to(desk: Desk) -> None:
    # As a signer publishes whose program does not ask.
    cuts_its_way = desk.node.mandatory.publish([PolicyFile("domain.yaml", denies_hops())]).number
    await desk.publish(ASKS)

    assert await desk.refused("/rollback", number=cuts_its_way) is Code.POLICY_INVALID
    assert desk.node.files == (PolicyFile("domain.yaml", ASKS),)


@pytest.mark.parametrize(
    "more",
    [
        "",
        ", from: {kind: authority}",
        ", to: {kind: authority}",
        ", from: {role_of_node: sidecar}",
    ],
)
async def test_one_that_cuts_its_own_way_is_not_published(desk: Desk, more: str) -> None:
    files = [{"name": "domain.yaml", "text": denies_hops(more)}]

    assert await desk.refused(files=files) is Code.POLICY_INVALID


async def test_the_authority_and_who_publishes_are_asked_about_by_their_own_identifiers(
    desk: Desk, acme: Node, make: Callable[..., Node]
) -> None:
    member = enrolled(make("a"), acme)
    named = acme.mandatory.set_signers(frozenset({member.node.identifier}))
    member.mandatory.offer_untrusted(named.encoded)
    for publisher in (desk, Desk(member)):
        for node in {acme, publisher.node}:
            text = denies_hops(f", from: {{identifier: {node.node.identifier}}}")
            files = [{"name": "domain.yaml", "text": text}]
            assert await publisher.refused(files=files) is Code.POLICY_INVALID


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", {}),
        ("", {"files": "rules: []"}),
        ("", {"files": [], "more": 1}),
        ("", {"files": [{"name": "a"}]}),
        ("", {"files": [{"name": "a", "text": 1}]}),
        ("", {"files": [{"name": "a", "text": "\ud800"}]}),
        ("/show", {}),
        ("/show", {"number": True}),
        ("/show", {"number": 1}),
        ("/rollback", {"number": "1"}),
        ("/rollback", {"number": 1, "more": 1}),
        ("/signers", {"drop": []}),
        ("/signers", {"add": "sl1"}),
        ("/signers", {"add": ["sl1"]}),
        ("/signers", {"add": [1]}),
        ("/signers", {"remove": [{}]}),
    ],
)
async def test_a_wish_that_is_none_is_refused(desk: Desk, path: str, body: dict[str, Any]) -> None:
    assert await desk.refused(path, **body) is Code.LOCAL_BAD_REQUEST
