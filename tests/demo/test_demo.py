"""The demo itself: real processes, a real MCP server and client, and nothing left behind."""

import json
import random
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo.helpers import DEMO, FRESH_DEMO, IMPATIENT_DEMO, Watched

STEPS = [
    "enrol",
    "tell",
    "ask",
    "mcp-list",
    "mcp-call",
    "deny-sender",
    "deny-receiver",
    "deny-tool",
    "sealed",
    "metrics",
]
# With the installation of three environments, where they are not there yet.
DEMO_S_MAX = 240
# The demo's own bound for a graceful stop, and some for a busy machine.
END_S_MAX = 15

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(DEMO_S_MAX + 30)]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Short, as Unix sockets need it."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        yield Path(folder)


def test_every_step_is_proved_and_nothing_is_left_behind(temporary: Path) -> None:
    demo = Watched(temporary, *DEMO, "--json")

    said, errors = demo.process.communicate(timeout=DEMO_S_MAX)

    assert demo.process.returncode == 0, errors.decode()
    steps = json.loads(said)["steps"]
    assert [step["name"] for step in steps] == STEPS
    assert all(step["proved"] for step in steps), steps
    assert all(set(step) == {"name", "proved", "seconds", "detail"} for step in steps)
    assert demo.processes() == []
    assert demo.files() == []


def test_a_step_that_fails_is_named_and_its_logs_are_kept_without_any_key(temporary: Path) -> None:
    demo = Watched(temporary, "-c", IMPATIENT_DEMO)

    said, errors = demo.process.communicate(timeout=DEMO_S_MAX)

    assert demo.process.returncode == 1
    steps = json.loads(said)["steps"]
    assert not any(step["proved"] for step in steps)
    assert "waited 0.01 s for authority" in steps[0]["detail"]
    assert {step["detail"] for step in steps[1:]} == {"not reached"}
    (kept,) = temporary.iterdir()
    assert f"not proved: {', '.join(STEPS)}. Logs: {kept}/logs" in errors.decode()
    assert [path.name for path in kept.iterdir()] == ["logs"]
    assert "main-authority.log" in {path.name for path in kept.glob("logs/*")}
    assert [path for path in kept.rglob("*") if path.suffix not in ("", ".log", ".jsonl")] == []
    assert demo.processes() == []


@pytest.mark.parametrize(
    ("number", "earliest_s", "latest_s"),
    [
        pytest.param(signal.SIGINT, 0.3, 1.5, id="while it starts"),
        pytest.param(signal.SIGTERM, 1.5, 4.0, id="while nodes enrol"),
        pytest.param(signal.SIGINT, 4.0, 7.0, id="while agents talk"),
        pytest.param(signal.SIGTERM, 0.0, 9.0, id="at any time"),
    ],
)
def test_a_signal_leaves_neither_a_process_nor_a_file(
    temporary: Path, number: signal.Signals, earliest_s: float, latest_s: float
) -> None:
    delay_s = random.uniform(earliest_s, latest_s)
    demo = Watched(temporary, *DEMO, "--json")

    seen = end_after(demo, delay_s, number)

    # A demo that was quicker than the signal has ended by itself.
    assert demo.process.returncode in (128 + number, -number, 0), f"after {delay_s:.3f} s"
    assert seen, "the mark finds no process at all"
    assert demo.processes() == [], f"after {delay_s:.3f} s"
    assert demo.files() == [], f"after {delay_s:.3f} s"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_installation_leaves_no_process(
    temporary: Path, number: signal.Signals
) -> None:
    delay_s = random.uniform(1.0, 8.0)
    with tempfile.TemporaryDirectory(prefix="cache-") as cache:
        demo = Watched(temporary, "-c", FRESH_DEMO, cache)

        seen = end_after(demo, delay_s, number)

        assert demo.process.returncode in (128 + number, -number), f"after {delay_s:.3f} s"
        assert seen, "the mark finds no process at all"
        assert demo.processes() == [], f"after {delay_s:.3f} s"
        assert demo.files() == [], f"after {delay_s:.3f} s"


def end_after(demo: Watched, delay_s: float, number: signal.Signals) -> list[str]:
    """Let it run for a while, signal it, and wait for its end. Returns what ran until then."""
    seen = demo.processes()
    try:
        demo.process.wait(delay_s)
    except subprocess.TimeoutExpired:
        seen = demo.processes()
        demo.process.send_signal(number)
    demo.process.communicate(timeout=END_S_MAX)
    return seen
