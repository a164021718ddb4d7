"""Who may act as which agent at the local API: by user, by group, by token, and who may not."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sidelink.tokens import token_of
from sidelink.wire import (
    Failed,
    Flush,
    Goodbye,
    Hello,
    OpenAgent,
    Opened,
    Receipt,
    ServerFrame,
    SpawnAgent,
    Welcome,
)

from identity import Code
from node.audit_entry import AuditEntry
from node.clocks import ManualClock
from sidecar import local_access, local_session
from sidecar.attestation import Attestation, ResolvedRule, Scope
from sidecar.local_access import LocalAccess, Refusal
from sidecar.local_api import DEFAULT_LIMITS, LocalApi
from sidecar.local_port import PeerCredentials
from sidecar.tokens import TokenBook
from tests.sdk.fakes import FakeRouter, local_api
from tests.sidecar.local_clients import Client, Clients

pytestmark = pytest.mark.usefixtures("deadline")

OTHER = 12_345
REFUSED = Goodbye("local.unauthorized", 0)
RULES = [
    ResolvedRule(Scope.of(["finance/*"]), OTHER, None, None),
    ResolvedRule(Scope.of(["billing/main"]), None, 777, None),
]


class Door:
    """The local API with rules, tokens and a clock, and processes of any user before it."""

    def __init__(self, api: LocalApi, access: LocalAccess, tokens: TokenBook, clock: ManualClock):
        self.api = api
        self.access = access
        self.tokens = tokens
        self.clock = clock
        self.lines: list[AuditEntry] = []
        self.peer = PeerCredentials(7, OTHER, 99)
        self.port = 0
        self._clients: list[Client] = []

    def token(self, *agents: str, lifetime_s: int = 1000) -> str:
        text, _ = self.tokens.create(agents, unix_s=int(self.clock.unix), lifetime_s=lifetime_s)
        return text

    async def by_tcp(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self._clients.append(client)
        return client

    async def by_token(self, token: str) -> Client:
        return await greeted(await self.by_tcp(), token)

    async def by_socket(self, path: Path, user_id: int, *groups: int) -> Client:
        self.peer = PeerCredentials(7, user_id, 99, groups=frozenset(groups))
        client = Client(*await asyncio.open_unix_connection(path))
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenBook]:
    book = TokenBook(tmp_path / "state.db")
    yield book
    book.close()


@pytest.fixture
async def door(path: Path, router: FakeRouter, tokens: TokenBook) -> AsyncIterator[Door]:
    clock = ManualClock()
    lines: list[AuditEntry] = []
    access = LocalAccess(Attestation(RULES), tokens, clock=clock, audit=lines.append)
    async with local_api(path, router, access=access, peer_credentials=lambda _: door.peer) as api:
        door = Door(api, access, tokens, clock)
        door.lines = lines
        door.port = await api.start_tcp("127.0.0.1", 0)
        yield door
        await door.close()


async def opened(client: Client, name: str, request: int = 1) -> ServerFrame | None:
    client.send(OpenAgent(request, name, {}))
    return await client.next()


async def greeted(client: Client, token: str | None = None) -> Client:
    client.send(Hello(1, token))
    assert isinstance(await client.next(), Welcome)
    return client


# By what the kernel says.


NAMES_BY_PEER = {
    "a rule for its user": (OTHER, (), "finance/planner", True),
    "a name of another rule": (OTHER, (), "billing/main", False),
    "a name below what the rule says": (OTHER, (), "finance/planner/child", False),
    "a name above it": (OTHER, (), "finance", False),
    "a rule for its group": (4, (777,), "billing/main", True),
    "both rules": (OTHER, (777,), "billing/main", True),
    "no name at all": (OTHER, (), "finance/../planner", False),
    "any name, by the sidecar's own user": (os.geteuid(), (), "hr/main", True),
}


@pytest.mark.parametrize(
    ("user_id", "groups", "name", "may"), NAMES_BY_PEER.values(), ids=NAMES_BY_PEER.keys()
)
async def test_a_process_may_act_as_what_its_rules_grant(
    user_id: int, groups: tuple[int, ...], name: str, may: bool, door: Door, path: Path
) -> None:
    client = await greeted(await door.by_socket(path, user_id, *groups))

    answer = await opened(client, name)

    if may:
        assert isinstance(answer, Opened)
    else:
        assert isinstance(answer, Failed)
        assert (answer.code, answer.message) == (
            "local.unauthorized",
            f"user {user_id} may not act as {name}",
        )
        assert answer.remedy


async def test_a_refused_opening_leaves_the_rest_of_the_connection_as_it_was(
    door: Door, path: Path, router: FakeRouter
) -> None:
    client = await greeted(await door.by_socket(path, OTHER))

    await opened(client, "billing/main", 1)
    answer = await opened(client, "finance/a", 2)

    assert isinstance(answer, Opened)
    assert [agent.name for agent in router.agents.values()] == ["finance/a"]
    client.send(Flush(3, answer.agent))
    assert await client.next() == Receipt(3)


async def test_a_user_for_whom_there_is_no_rule_is_turned_away_unread(
    door: Door, path: Path
) -> None:
    client = await door.by_socket(path, 4)

    assert await client.last() == REFUSED
    assert door.access.refused == {Refusal.USER: 1}


async def test_what_is_refused_is_counted_and_leaves_a_line_that_names_both(
    door: Door, path: Path
) -> None:
    client = await greeted(await door.by_socket(path, OTHER))

    await opened(client, "billing/main")

    assert door.access.refused == {Refusal.AGENT: 1}
    (line,) = door.lines
    assert (line.action, line.effect) == ("agent.open", "deny")
    assert (line.subject, line.object) == (f"user {OTHER}", "billing/main")


async def test_lines_about_refusals_have_a_rate_and_the_count_goes_on(
    door: Door, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await greeted(await door.by_socket(path, OTHER))
    count = 2 * local_access.AUDIT_LINES_AT_ONCE

    client.send(*(OpenAgent(i, "billing/main", {}) for i in range(1, count + 1)))
    for _ in range(count):
        assert isinstance(await client.next(), Failed)

    assert len(door.lines) == local_access.AUDIT_LINES_AT_ONCE
    assert door.access.refused[Refusal.AGENT] == count


# By a token.


async def test_a_token_acts_as_its_agents_and_their_children_and_as_no_other(
    door: Door, router: FakeRouter
) -> None:
    router.children.add("finance/planner/child")
    client = await door.by_token(door.token("finance/planner"))

    names = ("finance/planner", "finance/planner/child", "finance/other", "finance", "billing/main")
    answers = [await opened(client, name, i) for i, name in enumerate(names, start=1)]

    assert [type(answer) for answer in answers] == [Opened, Opened, Failed, Failed, Failed]
    assert isinstance(answers[2], Failed)
    assert answers[2].message == "token 1 may not act as finance/other"


async def test_a_token_narrows_what_the_kernel_would_have_granted(door: Door, path: Path) -> None:
    client = await door.by_socket(path, os.geteuid())
    await greeted(client, door.token("billing/main"))

    assert isinstance(await opened(client, "billing/main", 1), Opened)
    assert isinstance(await opened(client, "finance/planner", 2), Failed)


async def test_a_user_without_a_rule_is_let_in_by_a_token(door: Door, path: Path) -> None:
    token = door.token("billing/main")

    client = await greeted(await door.by_socket(path, 4), token)

    assert isinstance(await opened(client, "billing/main"), Opened)


HELLOS_REFUSED = {
    "no token": lambda _: None,
    "an empty token": lambda _: "",
    "a token that was never made": lambda _: token_of(bytes(32)),
    "a part of a token": lambda token: token[:-1],
    "a word": lambda _: "secret",
    "an agent's name": lambda _: "finance/planner",
    "a long text": lambda _: "x" * 4096,
}


@pytest.mark.parametrize("case", HELLOS_REFUSED)
@pytest.mark.parametrize("by_tcp", [True, False])
async def test_whatever_is_wrong_with_a_token_the_answer_is_the_same(
    case: str, by_tcp: bool, door: Door, path: Path
) -> None:
    token = HELLOS_REFUSED[case](door.token("finance/planner"))
    client = await door.by_tcp() if by_tcp else await door.by_socket(path, 4)

    client.send(Hello(1, token), OpenAgent(1, "finance/planner", {}))

    assert await client.next() == REFUSED
    assert await client.next() is None


async def test_a_wrong_token_is_refused_even_to_whom_the_kernel_vouches_for(
    door: Door, path: Path
) -> None:
    client = await door.by_socket(path, os.geteuid())

    client.send(Hello(1, token_of(bytes(32))))

    assert await client.last() == REFUSED
    assert door.access.refused == {Refusal.TOKEN: 1}


async def test_an_expired_and_a_revoked_token_are_told_apart_from_nothing(door: Door) -> None:
    expired, revoked = door.token("a", lifetime_s=1), door.token("a")
    door.clock.advance(1)
    door.tokens.revoke(2)

    for token in (expired, revoked):
        client = await door.by_tcp()
        client.send(Hello(1, token))
        assert await client.last() == REFUSED


async def test_by_tcp_nobody_is_let_in_before_there_is_a_token(door: Door) -> None:
    client = await door.by_tcp()

    assert await client.last() == REFUSED


async def test_the_own_user_needs_a_token_by_tcp_too(door: Door) -> None:
    door.token("a")
    client = await door.by_tcp()

    client.send(Hello(1))

    assert await client.last() == REFUSED


async def test_a_token_spawns_below_its_agents_and_mints_nothing_there(
    door: Door, router: FakeRouter
) -> None:
    client = await door.by_token(door.token("finance/planner"))
    child = SpawnAgent(1, "finance/planner", "child", {}, 60)
    grandchild = SpawnAgent(2, "finance/planner/child", "x", {}, 0)

    minted = await opened(client, "finance/planner/child", 9)
    client.send(child, grandchild)
    answers = [await client.next(), await client.next()]

    assert isinstance(minted, Failed)
    assert minted.code == "local.unauthorized"
    assert [type(answer) for answer in answers] == [Opened, Opened]
    assert router.spawned == [("finance/planner", "child", 60), ("finance/planner/child", "x", 0)]


SPAWNS_REFUSED = {
    "below an agent of another": ("finance/other", "child"),
    "below the agent above": ("finance", "planner"),
    "below an agent that is nobody's child": ("finance/planner/stranger", "child"),
    "below nothing": ("", "finance"),
}


@pytest.mark.parametrize(("parent", "name"), SPAWNS_REFUSED.values(), ids=SPAWNS_REFUSED.keys())
async def test_a_token_spawns_nothing(
    parent: str, name: str, door: Door, router: FakeRouter
) -> None:
    client = await door.by_token(door.token("finance/planner"))

    client.send(SpawnAgent(1, parent, name, {}, 0))
    answer = await client.next()

    assert isinstance(answer, Failed)
    assert answer.code == "local.unauthorized"
    assert router.spawned == []


async def test_a_process_spawns_below_the_agents_of_its_rule(
    door: Door, path: Path, router: FakeRouter
) -> None:
    client = await greeted(await door.by_socket(path, OTHER))

    client.send(SpawnAgent(1, "finance/a", "b", {}, 0), SpawnAgent(2, "billing/main", "b", {}, 0))
    answers = [await client.next(), await client.next()]

    assert [type(answer) for answer in answers] == [Opened, Failed]
    assert router.spawned == [("finance/a", "b", 0)]


# When a token ends.


async def test_a_revoked_token_ends_the_sessions_that_came_with_it_and_no_others(
    door: Door, path: Path
) -> None:
    lost = await door.by_token(door.token("a"))
    kept = await door.by_token(door.token("a"))
    own = await greeted(await door.by_socket(path, os.geteuid()))

    door.tokens.revoke(1)
    door.api.look_at_tokens()

    assert await lost.last() == REFUSED
    assert isinstance(await opened(kept, "a"), Opened)
    assert isinstance(await opened(own, "b"), Opened)


async def test_a_session_ends_with_its_token(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    token = door.token("a", lifetime_s=1)
    door.clock.unix += 0.98
    client = await door.by_token(token)

    door.clock.unix += 0.02

    # Its timer rings by itself, after the rest of the token's time.
    async with asyncio.timeout(1):
        assert await client.last() == REFUSED


async def test_a_clock_that_was_put_forward_is_noticed(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.local_api.TOKEN_LOOK_SECONDS_MAX", 0.02)
    client = await door.by_token(door.token("a"))

    door.clock.unix += 2000

    async with asyncio.timeout(1):
        assert await client.last() == REFUSED


async def test_the_use_of_a_token_is_remembered(door: Door) -> None:
    await door.by_token(door.token("a"))

    (token,) = door.tokens.entries()
    assert token.last_used_unix_s is not None


# Strangers: processes that nobody vouches for and that have shown nothing.


async def test_strangers_take_no_place_of_those_who_may_be_here(
    path: Path, router: FakeRouter, tokens: TokenBook, clients: Clients
) -> None:
    tokens.create(["a"], unix_s=0, lifetime_s=1)
    limits = replace(DEFAULT_LIMITS, connections_max=1, strangers_max=2)
    async with local_api(path, router, limits=limits, access=LocalAccess(tokens=tokens)) as api:
        port = await api.start_tcp("127.0.0.1", 0)
        strangers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]

        client = await clients.greeted()

        assert isinstance(await opened(client, "a"), Opened)
        assert len(api.sessions) <= 3
        await clients.close()
        for _, writer in strangers:
            writer.close()


async def test_a_token_is_let_in_however_many_strangers_hold_their_connections(
    path: Path, router: FakeRouter, tokens: TokenBook
) -> None:
    token, _ = tokens.create(["a"], unix_s=0, lifetime_s=1000)
    access = LocalAccess(tokens=tokens, clock=ManualClock(unix=1))
    limits = replace(DEFAULT_LIMITS, strangers_max=4)
    async with local_api(path, router, limits=limits, access=access) as api:
        port = await api.start_tcp("127.0.0.1", 0)
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]

        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        await greeted(client, token)

        assert isinstance(await opened(client, "a"), Opened)
        assert api.goodbyes[Code.LOCAL_LIMIT] >= 16
        await client.close()
        for _, writer in silent:
            writer.close()


async def test_a_token_finds_no_room_where_all_places_are_taken(
    path: Path, router: FakeRouter, tokens: TokenBook, clients: Clients
) -> None:
    token, _ = tokens.create(["a"], unix_s=0, lifetime_s=1000)
    access = LocalAccess(tokens=tokens, clock=ManualClock(unix=1))
    limits = replace(DEFAULT_LIMITS, connections_max=1)
    async with local_api(path, router, limits=limits, access=access) as api:
        port = await api.start_tcp("127.0.0.1", 0)
        await clients.greeted()

        late = Client(*await asyncio.open_connection("127.0.0.1", port))
        late.send(Hello(1, token))

        assert await late.last() == Goodbye("local.limit", 0)
        await late.close()
        await clients.close()


async def test_a_silent_stranger_is_closed(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_session, "HELLO_WAIT_S", 0.01)
    door.token("a")

    client = await door.by_tcp()

    assert await client.last() == Goodbye("local.bad_request", 0)


async def test_a_browser_that_posts_to_the_port_is_refused_at_its_first_word(door: Door) -> None:
    door.token("a")
    client = await door.by_tcp()

    client.writer.write(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")

    assert await client.last() == Goodbye("local.limit", 0)


async def test_the_tcp_port_closes_with_the_rest(
    path: Path, router: FakeRouter, tokens: TokenBook
) -> None:
    async with local_api(path, router, access=LocalAccess(tokens=tokens)) as api:
        port = await api.start_tcp("127.0.0.1", 0)

    with contextlib.closing(socket.socket()) as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
