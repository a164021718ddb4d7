"""What an operator may ask of the mandatory policy, and what is refused before it is signed."""

from collections.abc import Callable
from typing import Any

import pytest

from identity import Code, Identifier, PolicyFile, SidelinkError
from node.policy_admin import FAILED_SHOWN_MAX, PolicyAdmin
from tests.node.test_mandatory import Node, enrolled
from tests.node.test_mandatory import acme as acme
from tests.node.test_mandatory import clock as clock
from tests.node.test_mandatory import make as make

TOP = "apiVersion: sidelink/v1\nkind: Policy\nmetadata: {name: domain}\nrules:\n"
ASKS = f"{TOP}  - {{name: asks, effect: allow, actions: [message.ask]}}\n"
NOBODY_IN = f"{ASKS}  - {{name: nobody in, effect: deny, actions: [hop.admit]}}\n"
ONLY_RED = ASKS.replace("rules:", "attributes: {team: text}\nrules:") + (
    "  - {name: teams, effect: deny, actions: [hop.admit], when: subject.team != 'red'}\n"
)
AUDITED = NOBODY_IN.replace("{name: domain}", "{name: domain, mode: audit}")
SOMEBODY = str(Identifier(b"s" * 32))


class Desk:
    """The routes, called without a socket."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.handlers: dict[tuple[str, str], Any] = {}
        server: Any = self
        PolicyAdmin(server, node.mandatory, node.node.party, node.clock)

    def add(self, method: str, path: str, handler: Any) -> None:
        self.handlers[method, path] = handler

    async def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await self.handlers["POST", f"/v1/policies{path}"](body)
        return answer

    async def listed(self) -> dict[str, Any]:
        answer: dict[str, Any] = await self.handlers["GET", "/v1/policies"]({})
        return answer

    async def refused(self, path: str, body: dict[str, Any]) -> tuple[Code, str]:
        held = self.node.number
        with pytest.raises(SidelinkError) as caught:
            await self.ask(path, body)
        assert self.node.number == held
        return caught.value.code, caught.value.detail


def files(*texts: str) -> dict[str, Any]:
    return {"files": [{"name": f"{at}.yaml", "text": text} for at, text in enumerate(texts)]}


@pytest.fixture
def desk(acme: Node) -> Desk:
    return Desk(acme)


async def test_what_was_published_is_listed_the_newest_first(desk: Desk) -> None:
    first = await desk.ask("", files(ASKS))
    second = await desk.ask("", files())
    listed = await desk.listed()

    assert [one["number"] for one in listed["policies"]] == [second["number"], first["number"]]
    assert listed["policies"][1]["files"] == [{"name": "0.yaml"}], "without its text"
    assert (await desk.ask("/show", {"number": first["number"]}))["files"] == files(ASKS)["files"]
    assert (listed["may_publish"], listed["signers"]) == (True, [])


async def test_an_earlier_one_comes_back_under_a_new_number(desk: Desk) -> None:
    first = await desk.ask("", files(ASKS))
    second = await desk.ask("", files())
    third = await desk.ask("/rollback", {"number": first["number"]})

    assert third["number"] > second["number"]
    assert third["files"] == first["files"]


async def test_signers_are_added_and_removed(desk: Desk) -> None:
    added = await desk.ask("/signers", {"add": [SOMEBODY]})
    removed = await desk.ask("/signers", {"remove": [SOMEBODY]})

    assert (added["signers"], removed["signers"]) == ([SOMEBODY], [])


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "no files": ("", {}, "files"),
    "files that are no list": ("", {"files": {"a": "b"}}, "list of objects"),
    "a file without a name": ("", {"files": [{"text": ASKS}]}, "a name and a text"),
    "a text that is a number": ("", {"files": [{"name": "a", "text": 7}]}, "are texts"),
    "half a character": ("", {"files": [{"name": "a", "text": "\ud800"}]}, "no Unicode"),
    "a field that nobody knows": ("", {**files(ASKS), "force": True}, "one field is known"),
    "no number": ("/rollback", {}, "number"),
    "a number that is true": ("/rollback", {"number": True}, "an integer"),
    "a number that nobody gave": ("/rollback", {"number": 5}, "no policy 5"),
    "to show no number": ("/show", {}, "number"),
    "to show one that nobody gave": ("/show", {"number": 5}, "no policy 5"),
    "a number that is text": ("/rollback", {"number": "1"}, "an integer"),
    "signers that are no list": ("/signers", {"add": SOMEBODY}, "lists of identifiers"),
    "a signer that is no identifier": ("/signers", {"add": ["sl1x"]}, "identifier"),
    "a signer that is a number": ("/signers", {"add": [7]}, "an identifier is text"),
    "to remove who is no signer": ("/signers", {"remove": [SOMEBODY]}, "is no signer"),
    "signers and something else": ("/signers", {"set": []}, "two fields"),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_wish_is_refused_and_said_why(desk: Desk, case: str) -> None:
    path, body, why = BAD[case]

    code, detail = await desk.refused(path, body)

    assert code is Code.LOCAL_BAD_REQUEST
    assert why in detail


@pytest.mark.parametrize("text", [NOBODY_IN, ONLY_RED], ids=["nobody in", "only red"])
async def test_a_policy_after_which_none_could_come_is_not_published(desk: Desk, text: str) -> None:
    code, detail = await desk.refused("", files(text))

    assert code is Code.POLICY_INVALID
    assert "no later policy would reach" in detail


@pytest.mark.parametrize("whom", ["from: {kind: authority}", "to: {kind: authority}"])
async def test_nor_is_one_by_which_the_authority_would_be_left_out(desk: Desk, whom: str) -> None:
    text = NOBODY_IN.replace("[hop.admit]", f"[hop.admit], {whom}")

    assert (await desk.refused("", files(text)))[0] is Code.POLICY_INVALID


async def test_the_authority_and_who_publishes_are_asked_about_by_their_own_identifiers(
    desk: Desk, acme: Node, make: Callable[..., Node]
) -> None:
    member = enrolled(make("a"), acme)
    named = acme.mandatory.set_signers(frozenset({member.node.identifier}))
    member.mandatory.offer_untrusted(named.encoded)
    for publisher in (desk, Desk(member)):
        for node in (acme, publisher.node):
            whom = f"[hop.admit], from: {{identifier: {node.node.identifier}}}"
            text = NOBODY_IN.replace("[hop.admit]", whom)
            assert (await publisher.refused("", files(text)))[0] is Code.POLICY_INVALID


async def test_what_may_not_be_published_may_not_be_gone_back_to(desk: Desk) -> None:
    # As a signer publishes whose program does not ask.
    cuts_its_way = desk.node.mandatory.publish([PolicyFile("0.yaml", NOBODY_IN)]).number
    await desk.ask("", files(ASKS))

    code, _ = await desk.refused("/rollback", {"number": cuts_its_way})

    assert code is Code.POLICY_INVALID


async def test_one_that_only_audits_may_say_so(desk: Desk) -> None:
    assert (await desk.ask("", files(AUDITED)))["number"] == desk.node.number


async def test_a_policy_whose_tests_fail_is_not_published_and_some_are_named(desk: Desk) -> None:
    tests = "".join(
        f"  - {{name: test {at}, action: message.ask, expect: deny}}\n"
        for at in range(FAILED_SHOWN_MAX + 2)
    )

    code, detail = await desk.refused("", files(f"{ASKS}tests:\n{tests}"))

    assert code is Code.POLICY_INVALID
    assert "'test 0'" in detail
    assert detail.endswith("and 2 more")


async def test_a_member_is_told_that_it_may_not_before_anything_is_compiled(
    acme: Node, make: Callable[..., Node]
) -> None:
    desk = Desk(enrolled(make("a"), acme))

    code, _ = await desk.refused("", files("no policy at all"))
    of_signers, _ = await desk.refused("/signers", {"add": [SOMEBODY]})

    assert code is of_signers is Code.POLICY_SIGNER_DENIED
