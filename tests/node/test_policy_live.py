"""A policy that changes while a program runs: taken as a whole, or not at all, and that is said."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from node.clocks import ManualClock
from node.errors import ConfigError
from node.metrics import Metrics
from node.policy_live import LivePolicy
from node.state_folder import POLICY_FILES_MAX, StateFolder
from policy import Denial, Permit, PolicyError
from tests.policy.helpers import NOW, ask

TOP = "apiVersion: sidelink/v1\nkind: Policy\nmetadata: {name: test}\nattributes: {role: text}\n"
ALLOW = "rules:\n  - {name: asks, effect: allow, actions: [message.ask], from: {role: planner}}\n"
DENY = "rules:\n  - {name: never, effect: deny, actions: [message.ask], from: {role: planner}}\n"
ALLOWS, DENIES = TOP + ALLOW, TOP + DENY


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StateFolder]:
    with StateFolder.open(tmp_path / "state") as folder:
        folder.policy.write_text(ALLOWS)
        yield folder


class Watched:
    """A policy that is watched, and what was heard of it."""

    def __init__(self, folder: StateFolder) -> None:
        self.clock = ManualClock()
        self.metrics = Metrics("gateway", "0")
        self.policy = LivePolicy.open(folder, self.clock, self.metrics)
        self.heard: list[str] = []
        self.policy.on_change.append(lambda: self.heard.append(self.policy.engine.version))

    async def settle(self) -> None:
        """Look until a change has been taken, if it is one."""
        await self.policy.look()
        await self.policy.look()

    def allows(self) -> bool:
        return isinstance(self.policy.engine.decide(ask(), NOW), Permit)

    @property
    def fault(self) -> dict[str, Any]:
        fault: dict[str, Any] | None = self.policy.status()["fault"]
        assert fault is not None
        return fault

    def reloads(self, result: str) -> float | None:
        return self.metrics.value("policy_reloads_total", result=result)


async def test_a_changed_file_is_in_force_after_two_looks(folder: StateFolder) -> None:
    watched = Watched(folder)
    before = watched.policy.engine.version
    folder.policy.write_text(DENIES)
    await watched.policy.look()
    after_one = watched.policy.engine.version
    await watched.policy.look()

    assert after_one == before
    assert not watched.allows()
    assert watched.heard == [watched.policy.engine.version] != [before]
    assert watched.reloads("loaded") == 1


async def test_a_file_that_is_being_written_is_not_read(folder: StateFolder) -> None:
    watched = Watched(folder)
    # Each part is a policy of its own: the last lacks only what denies.
    whole = TOP + ALLOW + DENY.removeprefix("rules:\n")
    for length in (len(TOP), len(TOP) + len(ALLOW)):
        folder.policy.write_text(whole[:length])
        await watched.policy.look()
    after_parts = watched.heard.copy()
    folder.policy.write_text(whole)
    await watched.settle()

    assert after_parts == []
    assert len(watched.heard) == 1
    assert not watched.allows()


async def test_files_that_stay_as_they_are_are_not_read_again(folder: StateFolder) -> None:
    watched = Watched(folder)
    for _ in range(5):
        await watched.policy.look()

    assert [watched.reloads(result) for result in ("loaded", "unchanged", "refused")] == [0, 0, 0]


async def test_a_file_that_is_touched_changes_nothing_and_asks_nobody(folder: StateFolder) -> None:
    watched = Watched(folder)
    folder.policy.write_text(ALLOWS)
    await watched.settle()

    assert watched.heard == []
    assert watched.reloads("unchanged") == 1


async def test_who_asks_need_not_wait_for_a_look(folder: StateFolder) -> None:
    watched = Watched(folder)
    folder.policy.write_text(DENIES)

    assert await watched.policy.reload() == "loaded"
    assert not watched.allows()


async def test_a_folder_beside_the_file_is_the_same_policy(folder: StateFolder) -> None:
    watched = Watched(folder)
    folder.policy_folder.mkdir(mode=0o700)
    (folder.policy_folder / "no.yaml").write_text(DENIES)
    (folder.policy_folder / ".no.yaml.swp").write_text("an editor's")
    (folder.policy_folder / "README.md").write_text("a person's")
    await watched.settle()
    denied = watched.policy.engine.decide(ask(), NOW)
    files = watched.policy.status()["files"]
    (folder.policy_folder / "no.yaml").unlink()
    await watched.settle()

    assert isinstance(denied, Denial)
    assert denied.rule == "never"
    assert files == [str(folder.policy), str(folder.policy_folder / "no.yaml")]
    assert watched.allows()


async def test_a_folder_alone_is_a_policy(folder: StateFolder) -> None:
    folder.policy_folder.mkdir(mode=0o700)
    folder.policy.rename(folder.policy_folder / "all.yaml")

    assert Watched(folder).allows()


def _write(name: str, text: str) -> Callable[[StateFolder], Any]:
    def write(folder: StateFolder) -> None:
        path = folder.folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text(text)

    return write


def _open_to_others(folder: StateFolder) -> None:
    folder.policy.write_text(DENIES)
    folder.policy.chmod(0o666)


def _open_folder_to_others(folder: StateFolder) -> None:
    _write("policy.d/no.yaml", DENIES)(folder)
    folder.policy_folder.chmod(0o777)


def _too_many(folder: StateFolder) -> None:
    for number in range(POLICY_FILES_MAX + 1):
        _write(f"policy.d/{number}.yaml", TOP)(folder)


def _not_utf_8(folder: StateFolder) -> None:
    folder.policy.write_bytes(b"\xff\xfe" + DENIES.encode())


def _leads_nowhere(folder: StateFolder) -> None:
    folder.policy_folder.mkdir(mode=0o700)
    (folder.policy_folder / "a.yaml").symlink_to("gone")


# What is done to the folder; line and column of the fault, if it has a place; a part of the words.
REFUSED: dict[str, tuple[Callable[[StateFolder], Any], tuple[int, int] | None, str]] = {
    "is not YAML": (_write("policy.yaml", "a: [\n"), (2, 1), "policy.yaml:2:1:"),
    "is no policy": (_write("policy.yaml", TOP + "ruls: []\n"), (5, 1), "ruls"),
    "names an attribute that nobody declared": (
        _write("policy.yaml", ALLOWS.replace("{role: planner}", "{rolle: planner}")),
        (6, 64),
        "rolle",
    ),
    "has a bad file beside a good one": (
        _write("policy.d/b.yaml", TOP + "rules: 7\n"),
        (5, 8),
        "policy.d/b.yaml:5:8:",
    ),
    "has a rule of this name in two files": (_write("policy.d/b.yaml", ALLOWS), (6, 12), "asks"),
    "was removed": (lambda folder: folder.policy.unlink(), None, "no policy any more"),
    "was emptied": (_write("policy.yaml", "\n"), None, "no policy any more"),
    "can be written by others": (_open_to_others, None, "chmod go-w"),
    "lies in a folder that others can write": (_open_folder_to_others, None, "chmod go-w"),
    "has another suffix": (_write("policy.d/b.yml", DENIES), None, "end it in .yaml"),
    "has a name that no backup would take": (
        _write("policy.d/a b.yaml", DENIES),
        None,
        "Use letters",
    ),
    "has too many files": (_too_many, None, "at most 256"),
    "is not UTF-8": (_not_utf_8, None, "policy.yaml:1: byte 0 is not UTF-8"),
    "is a link to nothing": (_leads_nowhere, None, "cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_it_changes_nothing_and_is_said_when_a_policy(case: str, folder: StateFolder) -> None:
    change, place, words = REFUSED[case]
    watched = Watched(folder)
    before = watched.policy.engine
    change(folder)
    with capture_logs() as logs:
        await watched.settle()
        for _ in range(3):
            await watched.policy.look()
    (line,) = [line for line in logs if line["event"] == "policy_refused"]
    told = json.dumps(watched.fault)

    assert watched.policy.engine is before
    assert watched.heard == []
    assert (line["line"], line["column"]) == (place or (None, None))
    assert (watched.fault["line"], watched.fault["column"]) == (place or (None, None))
    assert words in line["why"]
    assert words in told
    assert watched.reloads("refused") == 1
    assert watched.metrics.value("policy_refused") == 1


async def test_the_fault_is_over_when_the_file_is_as_it_was(folder: StateFolder) -> None:
    watched = Watched(folder)
    folder.policy.write_text("rules: 7\n")
    await watched.settle()
    refused = watched.fault
    folder.policy.write_text(ALLOWS)
    await watched.settle()

    assert refused["code"] == "config.policy_invalid"
    assert watched.policy.status()["fault"] is None
    assert watched.metrics.value("policy_refused") == 0
    assert watched.heard == []


async def test_what_is_spent_of_a_limit_stays_spent(folder: StateFolder) -> None:
    once = ALLOWS.replace("from:", "limit: {rate: 1/h, burst: 1}, from:")
    folder.policy.write_text(once)
    watched = Watched(folder)
    first = watched.allows()
    folder.policy.write_text(once + "# another\n")
    await watched.settle()

    assert first
    assert watched.reloads("loaded") == 1
    assert not watched.allows()


async def test_a_policy_without_rules_is_a_wish_to_deny_everything(folder: StateFolder) -> None:
    watched = Watched(folder)
    folder.policy.write_text(TOP + "rules: []\n")
    await watched.settle()

    assert not watched.policy.engine.ready
    assert not watched.allows()


async def test_a_listener_that_fails_keeps_no_other_from_hearing(folder: StateFolder) -> None:
    watched = Watched(folder)

    def fail() -> None:
        raise RuntimeError("a fault of ours")

    watched.policy.on_change.insert(0, fail)
    folder.policy.write_text(DENIES)
    with capture_logs() as logs:
        await watched.settle()

    assert len(watched.heard) == 1
    assert "policy_not_asked_again" in [line["event"] for line in logs]


async def test_status_and_metrics_say_which_policy_is_in_force_since_when(
    folder: StateFolder,
) -> None:
    watched = Watched(folder)
    folder.policy.write_text(DENIES)
    await watched.settle()
    watched.clock.advance(90.0)
    status = watched.policy.status()
    version = watched.policy.engine.version

    assert status["version"] == version
    assert status["files"] == [str(folder.policy)]
    assert status["reloads"] == {"loaded": 1, "unchanged": 0, "refused": 0}
    assert watched.metrics.value("policy_age_seconds") == 90.0
    assert f'sidelink_policy_info{{version="{version}"}} 1.0' in watched.metrics.text().decode()


def test_a_start_refuses_what_a_reload_would(folder: StateFolder) -> None:
    _write("policy.d/b.yaml", TOP + "rules: 7\n")(folder)
    with pytest.raises(PolicyError) as malformed:
        Watched(folder)
    (folder.policy_folder / "b.yaml").rename(folder.policy_folder / "b.yml")
    with pytest.raises(ConfigError) as misnamed:
        Watched(folder)

    assert malformed.value.line == 5
    assert "end it in .yaml" in (misnamed.value.remedy or "")
