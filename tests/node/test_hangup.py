"""SIGHUP: a request to read again, unless it says that the terminal is gone."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from node.hangup import on_hangup
from tests.mesh.programs import REPOSITORY as ROOT
from tests.mesh.programs import WAIT_S, wait_until

# It says what came: "read again" or "ended".
PROGRAM = """
import asyncio, signal, sys
from node.hangup import on_hangup

async def main():
    told = asyncio.Queue()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.put_nowait, "ended")
    with on_hangup(lambda: told.put_nowait("read again")):
        open(sys.argv[1], "w").write("ready")
        async with asyncio.timeout(20):
            said = await told.get()
        open(sys.argv[1], "w").write(said)

asyncio.run(main())
"""


async def test_each_hangup_calls_and_one_behind_the_end_does_nothing() -> None:
    called = asyncio.Event()
    count = 0

    def call() -> None:
        nonlocal count
        count += 1
        called.set()

    with on_hangup(call):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
            async with asyncio.timeout(5):
                await called.wait()
            called.clear()
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.sleep(0)

    assert count == 2


async def test_where_signals_do_not_arrive_it_is_harmless() -> None:
    def run() -> str:
        async def inside() -> str:
            with on_hangup(lambda: None):
                return "fine"

        return asyncio.run(inside())

    assert await asyncio.to_thread(run) == "fine"


def said_by_a_program_on_a_terminal(tmp_path: Path, *, close_it: bool) -> str:
    ours, theirs = pty.openpty()
    told = tmp_path / "told"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(told)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        wait_until(lambda: told.exists() and told.read_text(), "its start")
        if close_it:
            os.close(ours)
        process.send_signal(signal.SIGHUP)
        process.wait(WAIT_S)
    finally:
        process.kill()
        process.wait(WAIT_S)
        if not close_it:
            os.close(ours)
    return told.read_text()


@pytest.mark.mesh
def test_a_program_whose_terminal_is_gone_ends(tmp_path: Path) -> None:
    assert said_by_a_program_on_a_terminal(tmp_path, close_it=True) == "ended"


@pytest.mark.mesh
def test_a_program_on_a_terminal_reads_again_when_it_is_told_to(tmp_path: Path) -> None:
    assert said_by_a_program_on_a_terminal(tmp_path, close_it=False) == "read again"
