"""What counts as a finding: each kind is found, by each engine, and its input is kept."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import engine_atheris, engine_hypothesis
from tests.fuzz.findings import replay_command
from tests.fuzz.guard import Guard, TooLargeError, TooSlowError, run_exactly, run_input
from tests.fuzz.program import Program, pieces
from tests.fuzz.target import INPUT_BYTES_MAX, NotCanonicalError, Target, check_same


class RefusedError(Exception):
    """What these targets may raise."""


class BadlyMadeError(RefusedError):
    """An error that cannot be printed."""

    def __str__(self) -> str:
        raise TypeError("no text")


def target(run: Callable[[bytes], object], **options: Any) -> Target:
    fields: dict[str, Any] = {"error": RefusedError, "seeds": lambda: [b"good"]}
    return Target("an.example", "what a test feeds", run, **(fields | options))


def refuse(_data: bytes) -> None:
    raise RefusedError


def fail_at(data: bytes) -> None:
    """Takes what begins as its seed does, but for one letter."""
    if not data.startswith(b"goo"):
        raise RefusedError
    if data[3:4] not in (b"", b"d"):
        raise IndexError("found")


def spend(seconds: float) -> Callable[[bytes], None]:
    def run(_data: bytes) -> None:
        until_s = time.process_time() + seconds
        while time.process_time() < until_s:
            pass

    return run


def print_badly(_data: bytes) -> None:
    raise BadlyMadeError


def test_a_refusal_as_documented_is_no_finding() -> None:
    assert run_input(target(refuse), b"anything") is False
    assert run_input(target(lambda data: None), b"anything") is True


FINDINGS: dict[str, tuple[Target, type[BaseException]]] = {
    "another error than the one that is documented": (target(fail_at), IndexError),
    "any error, where none is documented": (target(refuse, error=None), RefusedError),
    "an error that cannot be printed": (target(print_badly), TypeError),
    "bytes that read as something that is written otherwise": (
        target(lambda data: check_same(data[:3], data)),
        NotCanonicalError,
    ),
    "too much time for a short input": (target(spend(0.03), cpu_s_max=0.1), TooSlowError),
    "too much memory": (target(lambda data: data * (64 << 20)), TooLargeError),
}


@pytest.mark.parametrize(("found", "error"), FINDINGS.values(), ids=FINDINGS)
def test_it_is_a_finding(found: Target, error: type[BaseException]) -> None:
    with pytest.raises(error):
        run_exactly(found, b"goot")


def test_the_time_that_an_input_may_take_grows_with_its_length() -> None:
    slow = target(spend(0.03), cpu_s_max=0.1)

    assert run_exactly(slow, bytes(INPUT_BYTES_MAX)) is True


@pytest.mark.parametrize("kind", ["too much time for a short input", "too much memory"])
def test_the_cheap_measure_of_every_input_calls_for_the_exact_one(kind: str) -> None:
    found, error = FINDINGS[kind]
    guard = Guard(found)
    with pytest.raises(error):
        guard.run(b"goot")
    assert guard.runs == 1


def test_hypothesis_finds_the_input_makes_it_small_and_keeps_it(tmp_path: Path) -> None:
    outcome = engine_hypothesis.run(target(fail_at), seconds=20, runs=5_000, work=tmp_path, begin=1)

    assert outcome.finding is not None
    assert outcome.finding.read_bytes() in (b"goo\0", b"goo\0d")
    assert "IndexError: found" in (tmp_path / "an.example.log").read_text()
    assert str(outcome.finding) in replay_command("an.example", outcome.finding)


def test_hypothesis_stops_after_the_inputs_that_it_was_given(tmp_path: Path) -> None:
    outcome = engine_hypothesis.run(target(refuse), seconds=20, runs=250, work=tmp_path, begin=1)

    assert outcome.finding is None
    assert 100 <= outcome.runs <= 250


def test_hypothesis_stops_when_its_time_is_over(tmp_path: Path) -> None:
    outcome = engine_hypothesis.run(target(refuse), seconds=0.0, runs=None, work=tmp_path, begin=1)

    assert (outcome.runs, outcome.finding) == (1, None)


class FakeAtheris:
    """As much of atheris as its engine uses: feeds what is in the corpus, then ``then`` happens."""

    def __init__(self, then: Callable[[list[str], Callable[[bytes], None]], None]) -> None:
        self.then = then

    def Setup(self, arguments: list[str], one: Callable[[bytes], None]) -> None:  # noqa: N802
        self.arguments, self.one = arguments, one

    def Fuzz(self) -> None:  # noqa: N802
        for path in sorted(Path(self.arguments[-1]).iterdir()):
            self.one(path.read_bytes())
        self.then(self.arguments, self.one)


Run = Callable[..., Any]


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    """The engine itself, in its child, with a fake in the place of the library."""

    def run(then: Callable[[list[str], Callable[[bytes], None]], None], **options: Any) -> Any:
        monkeypatch.setitem(sys.modules, "atheris", FakeAtheris(then))  # type: ignore[arg-type]
        fields: dict[str, Any] = {"seconds": 1.0, "runs": None, "work": tmp_path}
        return engine_atheris.run(target(fail_at), **(fields | options))

    return run


def test_atheris_is_told_its_bounds_and_its_inputs_are_counted(
    run_with: Run, tmp_path: Path
) -> None:
    def then(arguments: list[str], one: Callable[[bytes], None]) -> None:
        (tmp_path / "told").write_text("\n".join(arguments))
        for _ in range(9):
            one(b"other")

    outcome = run_with(then, seconds=7.0, runs=12)

    told = (tmp_path / "told").read_text().splitlines()
    assert {"-max_total_time=12", "-runs=12", "-max_len=4096"} <= set(told)
    assert (outcome.runs, outcome.finding) == (10, None)


def test_atheris_is_stopped_when_its_time_is_over(run_with: Run) -> None:
    def then(arguments: list[str], one: Callable[[bytes], None]) -> None:
        while True:
            one(b"other")

    outcome = run_with(then, seconds=0.0)

    assert (outcome.runs, outcome.finding) == (1, None)


def test_an_input_that_fails_under_atheris_is_kept_with_its_traceback(
    run_with: Run, tmp_path: Path
) -> None:
    outcome = run_with(lambda arguments, one: one(b"goot!"))

    assert outcome.finding.read_bytes() == b"goot!"
    assert outcome.runs == 2
    assert "IndexError: found" in (tmp_path / "an.example.log").read_text()


def test_the_input_that_was_running_is_kept_when_the_process_dies(run_with: Run) -> None:
    def then(arguments: list[str], one: Callable[[bytes], None]) -> None:
        one(b"an input before")
        one(b"the last one")
        os.kill(os.getpid(), signal.SIGKILL)

    outcome = run_with(then)

    assert outcome.finding.read_bytes() == b"the last one"
    assert outcome.runs == 3


def test_pieces_are_the_whole_again_and_never_too_many() -> None:
    data = bytes(range(250)) * 40

    for size in (0, 1, 7, 255):
        assert b"".join(pieces(data, size)) == data
        assert len(pieces(data, size)) <= 5_000


def test_a_program_that_has_run_out_answers_zeros() -> None:
    program = Program(b"\7")
    first = program.below(4)

    assert first == 3
    assert program.is_over
    assert (program.byte(), program.number(2), program.blob()) == (0, 0, b"")
