"""Processes of a benchmark: told what to do, believed only when they say so, and all ended."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import proc
from bench.children import Children, Worker
from bench.errors import BenchError
from bench.signals import EndedError, ending_by_signal, held_back

WORKER = "tests.bench.small_worker"
WAIT_S = 20.0


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    with Children(tmp_path) as started:
        yield started


@pytest.fixture
def worker(children: Children) -> Worker:
    return children.start_worker("small", WORKER)


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_worker_answers_and_what_libraries_print_is_no_answer(worker: Worker) -> None:
    assert worker.call("double", number=21, timeout_s=WAIT_S) == 42
    assert worker.call("double", number=4, timeout_s=WAIT_S) == 8
    assert "a library says something" in worker.log.read_text()


def test_a_command_that_fails_is_an_error_with_its_reason(worker: Worker) -> None:
    with pytest.raises(BenchError, match="ValueError: this cannot be done"):
        worker.call("fail", timeout_s=WAIT_S)


def test_a_worker_that_dies_is_an_error_with_its_last_words(worker: Worker) -> None:
    with pytest.raises(BenchError, match="exit status 3: last words"):
        worker.call("die", timeout_s=WAIT_S)


def test_a_worker_that_does_not_answer_is_waited_for_no_longer_than_said(worker: Worker) -> None:
    worker.call("double", number=1, timeout_s=WAIT_S)

    with pytest.raises(BenchError, match=r"no answer within 0.05 s"):
        worker.call("hang", timeout_s=0.05)


def test_a_busy_worker_ends_when_its_input_does(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        worker = children.start_worker("small", WORKER)
        worker.call("double", number=1, timeout_s=WAIT_S)
        worker.post("hang")
        worker._stdin.close()

        worker.wait_success(WAIT_S)


def test_at_the_end_every_process_has_ended_also_after_an_error(tmp_path: Path) -> None:
    pids = []

    def go_wrong() -> None:
        with Children(tmp_path) as children:
            pids.extend(children.start_worker(f"small {n}", WORKER).pid for n in range(2))
            pids.append(children.start("sleeper", ["sleep", "600"]).pid)
            raise KeyError

    with pytest.raises(KeyError):
        go_wrong()

    assert len(pids) == 3
    assert [pid for pid in pids if exists(pid)] == []


def test_a_program_that_cannot_be_started_is_an_error(children: Children) -> None:
    with pytest.raises(BenchError, match="could not be started"):
        children.start("nothing", ["/no/such/program"])


def test_cpu_time_and_memory_are_those_of_the_process() -> None:
    before_s = proc.cpu_s(os.getpid())
    while proc.cpu_s(os.getpid()) == before_s:
        sum(range(10_000))

    assert proc.cpu_s(os.getpid()) > before_s
    assert 1 << 20 < proc.resident_bytes(os.getpid()) <= proc.peak_resident_bytes(os.getpid())


def test_a_pinned_process_runs_on_that_core_alone(worker: Worker) -> None:
    core = max(os.sched_getaffinity(0))
    worker.call("double", number=1, timeout_s=WAIT_S)

    proc.pin(worker.pid, core)

    assert os.sched_getaffinity(worker.pid) == {core}


def test_a_signal_ends_the_benchmark() -> None:
    with pytest.raises(EndedError) as ended, ending_by_signal():
        signal.raise_signal(signal.SIGINT)

    assert ended.value.args == (signal.SIGINT,)


def test_a_signal_waits_while_a_process_is_being_started() -> None:
    steps = []

    def start() -> None:
        with ending_by_signal():
            with held_back(), held_back():
                signal.raise_signal(signal.SIGTERM)
                steps.append("the process has its owner")
            steps.append("never reached")

    with pytest.raises(EndedError):
        start()

    assert steps == ["the process has its owner"]


def test_a_second_signal_finds_us_at_ending_already() -> None:
    steps = []

    def end() -> None:
        with ending_by_signal():
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.raise_signal(signal.SIGINT)  # Somebody is impatient.
                steps.append("cleaned up")

    with pytest.raises(EndedError):
        end()

    assert steps == ["cleaned up"]
