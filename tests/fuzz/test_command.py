"""`./dev fuzz` as it is typed: what it says, what it leaves behind, and how it ends."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.fuzz import registry
from tests.fuzz.__main__ import main
from tests.fuzz.findings import ROOT
from tests.fuzz.target import Target


def fail_on_anything_long(data: bytes) -> None:
    if len(data) > 4:
        raise KeyError("too long for me")


BROKEN = Target("broken.example", "for this test", fail_on_anything_long, lambda: [b"ok"])
QUICK = ("--engine", "hypothesis", "--runs", "120")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """The command makes its process silent, and this one has other tests, which listen."""
    before = structlog.get_config()["wrapper_class"]
    yield
    structlog.configure(wrapper_class=before)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "TARGETS", [BROKEN, *registry.TARGETS])


def test_a_run_without_findings_says_what_it_fed_and_ends_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["link.code", "link.credit", *QUICK, "--work", str(tmp_path)])

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert [line.split()[0] for line in lines[:2]] == ["link.code", "link.credit"]
    assert lines[-1].endswith("0 failed")
    counts = [int(line.split()[1]) for line in lines[:2]]
    assert lines[-1].startswith(f"{sum(counts)} inputs for 2 targets in ")


def test_a_finding_ends_the_run_with_1_a_file_and_the_command_that_replays_it(
    broken: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["broken", *QUICK, "--work", str(tmp_path)])

    [kept] = (tmp_path / "findings").iterdir()
    said = capsys.readouterr().out
    assert status == 1
    assert "KeyError: 'too long for me'" in said
    assert said.splitlines()[-1] == f"./dev fuzz broken.example --replay {kept}"
    assert main(["broken.example", "--replay", str(kept)]) == 1
    assert "this input fails" in capsys.readouterr().out


def test_an_input_that_fails_no_longer_is_said_to_pass(
    broken: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "input").write_bytes(b"ok")

    assert main(["broken.example", "--replay", str(tmp_path / "input")]) == 0
    assert capsys.readouterr().out == "broken.example: this input is taken\n"


def test_seconds_bound_the_run_over_all_its_targets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["link.code", "link.credit", "--engine", "hypothesis", "--seconds", "0"]
    status = main([*words, "--work", str(tmp_path)])

    assert status == 0
    assert capsys.readouterr().out.startswith("link.code")


def test_a_beginning_names_all_targets_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "identity", "link.open"]) == 0

    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {"identity.proof", "link.open", "link.open.tree"} <= set(names)
    assert {name.partition(".")[0] for name in names} == {"identity", "link"}


MISTAKES: dict[str, list[str]] = {
    "a target that there is not": ["no.such.target", *QUICK],
    "a replay without its target": ["--replay", "file"],
    "a replay for several targets": ["link.code", "link.credit", "--replay", "file"],
    "a file that there is not": ["link.code", "--replay", "no such file"],
    "an engine that there is not": ["--engine", "luck"],
}


@pytest.mark.parametrize("words", MISTAKES.values(), ids=MISTAKES)
def test_what_is_mistyped_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)

    assert ended.value.code not in (0, None)


def test_without_its_library_the_first_engine_names_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    with pytest.raises(SystemExit, match="--engine hypothesis"):
        main(["link.code"])


@pytest.mark.mesh
def test_the_script_passes_its_words_on_and_installs_nothing_for_a_list() -> None:
    command: Any = ["./dev", "fuzz", "--list", "link.code"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert ended.stdout.split()[0] == "link.code"
    assert ended.returncode == 0
