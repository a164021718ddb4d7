"""How a program runs: one paragraph for a failure, and a stop that always ends."""

import asyncio
import io
import os
import signal
import sys
from pathlib import Path

import pytest

from identity import Code, SidelinkError
from node import program
from node.errors import ConfigError
from node.settings import SidecarSettings
from node.settings_load import load_settings


def settings_with(tmp_path: Path, **flags: object) -> SidecarSettings:
    return load_settings(SidecarSettings, {"state": str(tmp_path), **flags}, variables={})


@pytest.fixture
def settings(tmp_path: Path) -> SidecarSettings:
    return settings_with(tmp_path)


def test_a_program_that_ends_by_itself_exits_with_0(settings: SidecarSettings) -> None:
    async def main(_: SidecarSettings, __: asyncio.Event) -> None:
        await asyncio.sleep(0)

    assert program.run(main, settings) == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(Code.CONFIG_PORT_BUSY, "UDP 7440", remedy="Choose another."), 2),
        (SidelinkError(Code.ENROL_TICKET_USED, "by another node"), 1),
    ],
)
def test_a_foreseen_failure_is_one_paragraph_without_a_traceback(
    error: SidelinkError, code: int, settings: SidecarSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main(_: SidecarSettings, __: asyncio.Event) -> None:
        raise error

    status = program.run(main, settings)

    told = capfd.readouterr()
    assert status == code
    assert told.out == ""
    assert len(told.err.strip().splitlines()) == 1
    assert error.code.text in told.err
    assert getattr(error, "remedy", error.code.remedy) in told.err


def test_a_failure_inside_task_groups_is_told_the_same_way(
    settings: SidecarSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    async def fail() -> None:
        raise SidelinkError(Code.HOP_UNREACHABLE, "gateway:7440")

    async def main(_: SidecarSettings, __: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as outer:

            async def nest() -> None:
                async with asyncio.TaskGroup() as inner:
                    inner.create_task(fail())

            outer.create_task(nest())

    assert program.run(main, settings) == 1
    assert capfd.readouterr().err.startswith("sidelink: hop.unreachable: gateway:7440")


def test_a_failure_that_nobody_foresaw_is_logged_and_exits_with_1(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main(_: SidecarSettings, __: asyncio.Event) -> None:
        raise ZeroDivisionError("ours")

    assert program.run(main, settings_with(tmp_path, log_format="json")) == 1
    assert '"event": "program_failed"' in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_the_program_to_stop(
    number: signal.Signals, settings: SidecarSettings
) -> None:
    closed = []

    async def main(_: SidecarSettings, stop: asyncio.Event) -> None:
        os.kill(os.getpid(), number)
        await stop.wait()
        closed.append(True)

    assert program.run(main, settings) == 0
    assert closed == [True]


def test_a_program_whose_log_nobody_reads_stops_all_the_same(
    settings: SidecarSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(_: SidecarSettings, stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()

    gone = io.StringIO()
    gone.close()
    monkeypatch.setattr(sys, "stderr", gone)

    assert program.run(main, settings) == 0


def test_a_second_signal_insists(settings: SidecarSettings) -> None:
    async def main(_: SidecarSettings, stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    assert program.run(main, settings) == 1


def test_a_stop_beyond_its_grace_is_cut(tmp_path: Path) -> None:
    async def main(_: SidecarSettings, stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        await asyncio.Event().wait()

    assert program.run(main, settings_with(tmp_path, stop_grace_s="0.05")) == 1


def test_a_program_that_swallows_its_cancellation_ends_all_the_same(tmp_path: Path) -> None:
    async def main(_: SidecarSettings, stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    program_settings = settings_with(tmp_path, stop_grace_s="0.05")
    child = os.fork()
    if child == 0:
        program.CANCEL_GRACE_S = 0.05  # type: ignore[misc]
        os._exit(42 if program.run(main, program_settings) else 43)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 1
