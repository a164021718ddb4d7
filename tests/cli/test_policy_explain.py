"""`sidelink policy explain` where a mandatory policy is held: by what the program obeys."""

import contextlib
from pathlib import Path

import pytest

from cli.main import main
from identity import PolicyFile
from node.clocks import ManualClock
from node.mandatory import MandatoryPolicy
from tests.node.members import started
from tests.node.test_mandatory_live import ASKS, OF_A_LATER_VERSION, ONLY_TELLS
from tests.node.test_policy_live import ALLOWS

FROM = ("--from", "name=agent://acme/a", "--from", "role=planner")
ASKED = ("explain", "--action", "message.ask", *FROM, "--to", "name=agent://acme/b")


@pytest.mark.parametrize(
    ("published", "code", "said"),
    [
        ([ASKS], 0, ""),
        ([ASKS, ONLY_TELLS], 1, ""),
        ([ASKS, OF_A_LATER_VERSION], 0, "is not obeyed here"),
        ([OF_A_LATER_VERSION], 1, "is not obeyed here"),
    ],
)
def test_the_answer_is_that_of_the_newest_that_can_be_read(
    published: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "authority"
    folder.mkdir(mode=0o700)
    (folder / "policy.yaml").write_text(ALLOWS)
    with contextlib.ExitStack() as stack:
        node, store = stack.enter_context(started(folder, ManualClock(), authority_of="acme"))
        mandatory = MandatoryPolicy(store, ManualClock(), node)
        for text in published:
            mandatory.publish([PolicyFile("domain.yaml", text)])

    exit_code = main(["policy", *ASKED, "--program", "authority", "--state", str(tmp_path)])

    assert exit_code == code
    assert said in capsys.readouterr().err
