"""`sidelink policy forget`: the way out for a node that a policy has cut off."""

from pathlib import Path

import pytest

from cli.main import main
from node.clocks import ManualClock
from node.mandatory import MandatoryPolicy
from node.state_folder import StateFolder
from tests.node.members import started
from tests.node.test_mandatory import RULES


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The folder of folders of an authority that holds two policies."""
    with StateFolder.open(tmp_path / "authority") as folder:
        clock = ManualClock()
        with started(folder.folder, clock, authority_of="acme") as (node, store):
            mandatory = MandatoryPolicy(store, clock, node)
            for files in ([RULES], []):
                mandatory.publish(files)
    return tmp_path


def forget(base: Path) -> int:
    return main(["policy", "forget", "--program", "authority", "--state", str(base)])


def test_a_stopped_program_holds_none_any_more(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = forget(base)
    clock = ManualClock()
    with started(base / "authority", clock, authority_of="acme") as (node, store):
        held = MandatoryPolicy(store, clock, node).held

    assert (code, held) == (0, None)
    assert capsys.readouterr().err == "sidelink: 2 policies are forgotten\n"


def test_a_program_that_runs_forgets_nothing(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StateFolder.open(base / "authority"):
        code = forget(base)

    assert code == 2
    assert "config.state_locked" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert forget(tmp_path / "nowhere") == 2
    assert not (tmp_path / "nowhere").exists()
