"""A program that shows a token: where it is found, where it leads, and what it is worth there."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sidelink
from sidelink.address import LoopbackAddress, UnixAddress, parse_address
from sidelink.tokens import CHARACTERS_MAX, check_token, no_token, token_of, token_reader

from node.clocks import ManualClock
from sidecar.local_access import LocalAccess
from sidecar.local_api import LocalApi
from sidecar.tokens import TokenBook
from tests.sdk.fakes import WAIT_S, FakeRouter, answer_all, local_api, uri
from tests.sidecar.local_clients import until

TOKEN, OTHER_TOKEN = token_of(bytes(32)), token_of(bytes(range(32)))


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGENT_TOKEN", "AGENT_TOKEN_FILE", "AGENT_SOCKET"):
        monkeypatch.delenv(f"SIDELINK_{name}", raising=False)


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenBook]:
    book = TokenBook(tmp_path / "state.db")
    yield book
    book.close()


def create(tokens: TokenBook, *agents: str) -> str:
    return tokens.create(agents, unix_s=0, lifetime_s=1000)[0]


class Port:
    def __init__(self, api: LocalApi, number: int) -> None:
        self.api = api
        self.address = f"tcp://127.0.0.1:{number}"


@pytest.fixture
async def port(path: Path, router: FakeRouter, tokens: TokenBook) -> AsyncIterator[Port]:
    access = LocalAccess(tokens=tokens, clock=ManualClock(unix=1))
    async with local_api(path, router, access=access) as api, asyncio.timeout(WAIT_S):
        yield Port(api, await api.start_tcp("127.0.0.1", 0))


# Where it leads.


async def test_a_program_with_a_token_talks_by_tcp(port: Port, tokens: TokenBook) -> None:
    token = create(tokens, "planner", "billing")

    async with sidelink.connect(port.address, token=token) as mesh:
        planner, billing = await mesh.agent("planner"), await mesh.agent("billing")
        serving = asyncio.create_task(answer_all(billing))
        reply = await planner.ask(uri("billing"), {"invoice": 7})

    assert reply.body == {"you said": {"invoice": 7}}
    await serving


async def test_a_token_for_one_agent_cannot_open_another(port: Port, tokens: TokenBook) -> None:
    async with sidelink.connect(port.address, token=create(tokens, "planner")) as mesh:
        with pytest.raises(sidelink.LocalError) as caught:
            await mesh.agent("billing")

        assert caught.value.code == "local.unauthorized"
        assert "billing" in caught.value.message
        assert (await mesh.agent("planner")).uri == uri("planner")


async def test_a_wrong_token_raises_at_once_also_for_a_program_that_waits(port: Port) -> None:
    with pytest.raises(sidelink.LocalError) as caught:
        async with sidelink.connect(port.address, token=TOKEN, wait_s=WAIT_S):
            pass

    assert caught.value.code == "local.unauthorized"


@pytest.mark.usefixtures("soon_back")
async def test_a_revoked_token_is_the_end_of_the_agents_that_were_opened_with_it(
    port: Port, tokens: TokenBook
) -> None:
    async with sidelink.connect(port.address, token=create(tokens, "planner")) as mesh:
        planner = await mesh.agent("planner")

        tokens.revoke(1)
        port.api.look_at_tokens()

        with pytest.raises(sidelink.Unreachable, match=r"local\.unauthorized"):
            await anext(planner.inbox())


@pytest.mark.usefixtures("soon_back")
async def test_a_token_in_a_file_is_replaced_without_a_restart(
    port: Port, tokens: TokenBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    monkeypatch.setenv("SIDELINK_AGENT_TOKEN_FILE", str(file))
    file.write_text(create(tokens, "planner", "sink"))
    async with sidelink.connect(port.address) as mesh:
        planner = await mesh.agent("planner")

        file.write_text(create(tokens, "planner") + "\n")
        tokens.revoke(1)
        port.api.look_at_tokens()

        await until(lambda: not planner.connected)
        await planner.wait_connected()

        await planner.tell(uri("planner"), "still here")


async def test_a_token_narrows_a_program_at_the_socket_too(
    port: Port, path: Path, tokens: TokenBook
) -> None:
    async with sidelink.connect(path, token=create(tokens, "planner")) as mesh:
        await mesh.agent("planner")
        with pytest.raises(sidelink.LocalError):
            await mesh.agent("billing")


async def test_the_variable_for_the_socket_may_name_an_address(
    port: Port, tokens: TokenBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDELINK_AGENT_SOCKET", port.address)
    monkeypatch.setenv("SIDELINK_AGENT_TOKEN", create(tokens, "planner"))

    async with sidelink.connect() as mesh:
        assert (await mesh.agent("planner")).uri == uri("planner")


def test_an_address_without_a_token_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(sidelink.LocalError) as caught:
        sidelink.connect("tcp://127.0.0.1:7450")

    assert caught.value.code == "local.unauthorized"
    assert "sidelink agent token create" in caught.value.remedy


# Where it is found.


def test_the_token_given_wins_over_the_variable_and_the_variable_over_the_file() -> None:
    both = {"SIDELINK_AGENT_TOKEN": OTHER_TOKEN, "SIDELINK_AGENT_TOKEN_FILE": "/no/such/file"}

    assert token_reader(TOKEN, both)() == TOKEN
    assert token_reader(None, both)() == OTHER_TOKEN
    assert token_reader(None, {}) is no_token
    assert (
        token_reader(None, {"SIDELINK_AGENT_TOKEN": "", "SIDELINK_AGENT_TOKEN_FILE": ""})
        is no_token
    )


def test_a_file_may_end_with_a_line_end(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\r\n")

    assert token_reader(None, {"SIDELINK_AGENT_TOKEN_FILE": str(file)})() == TOKEN


NO_TOKENS = {
    "nothing": "",
    "a word": "secret",
    "a ticket": "slt1" + TOKEN[4:],
    "a part": TOKEN[:-1],
    "one character too many": f"{TOKEN}A",
    "two letters changed places": TOKEN[:-2] + TOKEN[-1] + TOKEN[-2],
    "other letters": TOKEN.replace("A", "B"),
    "the other base64": OTHER_TOKEN[:-4] + "+/+/",
    "letters that are none": "slk1" + "\u00e9" * 48,
    "a long text": "slk1" * 100,
}


@pytest.mark.parametrize("case", NO_TOKENS)
def test_what_is_no_token_is_told_without_repeating_it(case: str, tmp_path: Path) -> None:
    text = NO_TOKENS[case]
    file = tmp_path / "token"
    file.write_text(text)

    with pytest.raises(sidelink.LocalError) as given:
        check_token(text, "it")
    with pytest.raises(sidelink.LocalError) as read:
        token_reader(None, {"SIDELINK_AGENT_TOKEN_FILE": str(file)})()

    assert given.value.code == read.value.code == "config.invalid"
    assert not text or text not in str(given.value) + given.value.remedy


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(sidelink.LocalError, match="/no/such/file"):
        token_reader(None, {"SIDELINK_AGENT_TOKEN_FILE": "/no/such/file"})()


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"x" * 10_000_000)

    with pytest.raises(sidelink.LocalError):
        token_reader(None, {"SIDELINK_AGENT_TOKEN_FILE": str(file)})()
    assert len(TOKEN) < CHARACTERS_MAX


# Addresses.


def test_an_address_is_a_path_or_a_port_of_this_machine() -> None:
    assert parse_address("/run/agent.sock") == UnixAddress(Path("/run/agent.sock"))
    assert parse_address(Path("a/b")) == UnixAddress(Path("a/b"))
    assert parse_address("tcp://127.0.0.1:7450") == LoopbackAddress("127.0.0.1", 7450)
    assert parse_address("tcp://[::1]:1") == LoopbackAddress("::1", 1)
    assert str(parse_address("tcp://[::1]:1")) == "tcp://[::1]:1"


NO_ADDRESSES = {
    "an address of the network": "tcp://192.168.1.2:7450",
    "every address": "tcp://0.0.0.0:7450",
    "a name": "tcp://localhost:7450",
    "no port": "tcp://127.0.0.1",
    "an empty port": "tcp://127.0.0.1:",
    "port 0": "tcp://127.0.0.1:0",
    "a port that is too large": "tcp://127.0.0.1:65536",
    "a very long port": "tcp://127.0.0.1:" + "9" * 5000,
    "a port in another script": "tcp://127.0.0.1:\u0661",
    "a path behind the port": "tcp://127.0.0.1:7450/x",
    "nothing": "tcp://",
}


@pytest.mark.parametrize("case", NO_ADDRESSES)
def test_a_token_is_never_sent_to(case: str) -> None:
    with pytest.raises(sidelink.LocalError) as caught:
        sidelink.connect(NO_ADDRESSES[case], token=TOKEN)

    assert caught.value.code == "config.invalid"
    assert os.linesep not in caught.value.message
