"""The proxy as a program: its first line, its commands, its end."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.impairment.__main__ import read_options
from tests.impairment.commands import perform
from tests.impairment.core import Direction, Impairer
from tests.impairment.process import REPOSITORY, ProxyError, ProxyProcess, impaired
from tests.impairment.settings import NO_IMPAIRMENT, Impairment, ImpairmentError
from tests.impairment.test_proxy import WAIT_S, peer

NOWHERE = "127.0.0.1:9"


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyProcess]:
    with ProxyProcess(NOWHERE, delay_ms=1) as started:
        yield started


def test_options_hold_both_ways_and_those_of_a_direction_win() -> None:
    options = read_options(
        ["--to", NOWHERE, "--loss", "0.02", "--burst=8", "--delay-ms=100", "--down-loss", "0.5"]
    )

    assert options.impairments == {
        Direction.UP: Impairment(loss=0.02, burst=8, delay_ms=100),
        Direction.DOWN: Impairment(loss=0.5, burst=8, delay_ms=100),
    }


@pytest.mark.parametrize(
    "arguments", [[], ["--to", "nowhere"], ["--to", NOWHERE, "--loss", "2"], ["--delay", "1"]]
)
def test_options_that_mean_nothing_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        read_options(arguments)

    assert refused.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_set_changes_what_it_names_and_leaves_the_rest() -> None:
    core = Impairer(Impairment(delay_ms=5), Impairment(delay_ms=5), seed=1)

    perform(core, b'{"do": "set", "loss": 0.5}', 1.0)
    perform(core, b'{"do": "set", "direction": "up", "jitter_ms": 3}', 1.0)

    assert core.ways[Direction.UP].impairment == Impairment(loss=0.5, delay_ms=5, jitter_ms=3)
    assert core.ways[Direction.DOWN].impairment == Impairment(loss=0.5, delay_ms=5)


def test_clear_ends_all_of_it() -> None:
    core = Impairer(Impairment(loss=1), Impairment(loss=1), seed=1)
    for command in ('{"do": "blackhole"}', '{"do": "rebind", "every_s": 1}', '{"do": "clear"}'):
        assert perform(core, command.encode(), 1.0) == {"ok": True}

    core.receive_from_client("client", b"passes", 2.0)

    assert [way.impairment for way in core.ways.values()] == [NO_IMPAIRMENT] * 2
    assert len(core.take_steps(2.0)) == 1
    assert core.deadline_s is None


REFUSED_COMMANDS = {
    "what is no JSON": b"{",
    "what is no object": b"[1]",
    "nothing to do": b"{}",
    "an unknown deed": b'{"do": "dance"}',
    "an unknown setting": b'{"do": "set", "luck": 1}',
    "an unknown direction": b'{"do": "set", "direction": "left"}',
    "a setting that means nothing": b'{"do": "set", "loss": 2}',
    "a setting of another type": b'{"do": "set", "loss": "much"}',
    "a blackhole of negative length": b'{"do": "blackhole", "seconds": -1}',
    "a rebinding at no interval": b'{"do": "rebind", "every_s": null}',
    "something beside the point": b'{"do": "stats", "of": "what"}',
}


@pytest.mark.parametrize("case", REFUSED_COMMANDS)
def test_a_command_that_means_nothing_is_refused_and_changes_nothing(case: str) -> None:
    core = Impairer(seed=1)

    with pytest.raises(ImpairmentError):
        perform(core, REFUSED_COMMANDS[case], 1.0)

    assert [way.impairment for way in core.ways.values()] == [NO_IMPAIRMENT] * 2
    assert core.deadline_s is None


async def test_a_process_impairs_what_passes_and_does_what_it_is_told() -> None:
    async with peer(echoes=True) as echo, peer() as client:
        host, port = echo.address
        async with impaired(f"{host}:{port}", down_delay_ms=20) as proxy:
            address = (proxy.address.host, proxy.address.port)
            client.send(b"first", address)
            await client.wait_heard(1)
            for call in (proxy.rebind, proxy.blackhole):
                await asyncio.to_thread(call)
            client.send(b"into the dark", address)
            async with asyncio.timeout(WAIT_S):
                while not (await told(proxy))["up"]["dropped"]:
                    pass
            await asyncio.to_thread(proxy.heal)
            client.send(b"last", address)
            await client.wait_heard(2)
            stats = await told(proxy)

        assert client.datagrams == [b"first", b"last"]
        assert len(set(echo.sources)) == 2
    assert stats["up"]["dropped"] == {"blackholed": 1}
    assert (stats["down"]["delivered"], stats["rebound"]) == (2, 1)


async def told(proxy: ProxyProcess) -> dict[str, Any]:
    return await asyncio.to_thread(proxy.stats)


def test_a_refused_command_is_an_error_here_and_the_proxy_goes_on(proxy: ProxyProcess) -> None:
    with pytest.raises(ProxyError, match="loss is a chance"):
        proxy.set(loss=2)

    proxy.set(loss=0.5, direction="down")
    proxy.rebind_every(10)
    proxy.clear()
    assert proxy.stats()["flows"] == 0


def test_it_ends_with_its_input_and_with_its_time() -> None:
    for more in ((), ("--seconds", "0.1")):
        ended = subprocess.run(
            [sys.executable, "-m", "tests.impairment", "--to", NOWHERE, *more],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL if not more else None,
            capture_output=True,
            timeout=WAIT_S,
            check=True,
        )

        assert json.loads(ended.stdout)["to"] == NOWHERE
        assert ended.stderr == b""


def test_a_proxy_that_cannot_listen_says_so() -> None:
    with pytest.raises(ProxyError):
        ProxyProcess(NOWHERE, listen="192.0.2.1:1")


async def test_a_target_that_begins_later_is_heard_once_it_is_there() -> None:
    async with peer() as gone:
        host, port = gone.address
    # In a process, since it is uvloop that gives up a socket on which an error waits.
    async with impaired(f"{host}:{port}") as proxy, peer() as client:
        address = (proxy.address.host, proxy.address.port)
        async with asyncio.timeout(WAIT_S):
            while not (await asyncio.to_thread(proxy.stats))["up"]["received"]:
                client.send(b"too early", address)
        async with peer(host, port, echoes=True):
            client.send(b"now", address)
            await client.wait_heard(1)

    assert client.datagrams[-1] == b"now"
