"""Which process may act as which agent: rules, whom they fit, and rules that say nothing."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import Code
from identity.uri import PATH_SEGMENTS_MAX
from node.errors import ConfigError
from node.settings import AgentsSettings
from sidecar.attestation import EVERYBODY, NOBODY, Attestation, ResolvedRule, Scope
from sidecar.local_port import FileIdentity, PeerCredentials

OWN, OTHER, THIRD = os.geteuid(), 12_345, 12_346
GROUP = 23_456


def file_of(path: str | Path) -> FileIdentity:
    status = os.stat(path)
    return FileIdentity(status.st_dev, status.st_ino)


PEER = PeerCredentials(
    7, OTHER, 99, groups=frozenset((GROUP, 3)), executable=file_of(sys.executable)
)
PLANNER = Scope.of(["finance/planner"])


def rule(**changes: Any) -> ResolvedRule:
    return replace(ResolvedRule(PLANNER, OTHER, None, None), **changes)


# Scopes.


COVERED = {
    "its own name": (["a/b"], "a/b", True),
    "a name below its own": (["a/b"], "a/b/c", False),
    "a name above its own": (["a/b"], "a", False),
    "a name that only begins like it": (["a/b"], "a/bc", False),
    "one segment for a star": (["a/*"], "a/b", True),
    "two segments for a star": (["a/*"], "a/b/c", False),
    "no segment for a star": (["a/*"], "a", False),
    "a star in the middle": (["a/*/c"], "a/b/c", True),
    "the rest": (["a/**"], "a/b/c/d", True),
    "no rest": (["a/**"], "a", False),
    "anything": (["**"], "x/y", True),
    "the second of two": (["a", "b"], "b", True),
    "a star as a name": (["a/*"], "a/*", False),
    "dots that would lead up": (["a/**"], "a/../b", False),
    "an empty segment": (["a/**"], "a//b", False),
    "other letters": (["a/b"], "A/b", False),
    "a whole URI": (["**"], "agent://acme/a", False),
    "nothing": (["**"], "", False),
}


@pytest.mark.parametrize(("patterns", "path", "covered"), COVERED.values(), ids=COVERED.keys())
def test_a_scope_covers_or_not(patterns: list[str], path: str, covered: bool) -> None:
    assert Scope.of(patterns).covers(path) is covered


def test_a_scope_of_agents_has_all_that_lies_below_them() -> None:
    scope = Scope.below(["a/b"])

    assert [p for p in ("a", "a/b", "a/b/c", "a/b/c/d", "a/bc", "b/a/b") if scope.covers(p)] == [
        *("a/b", "a/b/c", "a/b/c/d")
    ]


def test_an_agent_of_the_longest_name_has_a_scope_too() -> None:
    path = "/".join("abcdefgh")

    assert len(path.split("/")) == PATH_SEGMENTS_MAX
    assert Scope.below([path]).covers(path)


@given(st.text(max_size=30))
def test_what_is_no_name_is_in_no_scope(path: str) -> None:
    if EVERYBODY.covers(path):
        assert all(part and part.isascii() and part == part.lower() for part in path.split("/"))
    assert not NOBODY.covers(path)


# Whom a rule fits.


FITS = {
    "its user": (rule(), True),
    "another user": (rule(user_id=THIRD), False),
    "its first group": (rule(user_id=None, group_id=99), True),
    "a supplementary group": (rule(user_id=None, group_id=GROUP), True),
    "a group it is not in": (rule(user_id=None, group_id=4), False),
    "its user, in the group": (rule(group_id=GROUP), True),
    "its user, not in the group": (rule(group_id=4), False),
    "the group, but another user": (rule(user_id=THIRD, group_id=GROUP), False),
    "its user and file": (rule(executable=Path(sys.executable)), True),
    "its user, another file": (rule(executable=Path("/proc/version")), False),
    "its user, a file that is not there": (rule(executable=Path("/no/such/file")), False),
    "its file, but another user": (
        rule(user_id=THIRD, executable=Path(sys.executable)),
        False,
    ),
}


@pytest.mark.parametrize(("written", "fits"), FITS.values(), ids=FITS.keys())
def test_a_rule_fits_or_not(written: ResolvedRule, fits: bool) -> None:
    scope = Attestation([written], own_user_id=OWN).scope_of(PEER)

    assert scope.covers("finance/planner") is fits
    assert not scope.covers("finance/other")


def test_a_process_whose_file_the_kernel_does_not_tell_fits_no_rule_with_a_file() -> None:
    silent = replace(PEER, executable=None)

    attestation = Attestation([rule(executable=Path(sys.executable))])

    assert attestation.reads_executables
    assert attestation.scope_of(silent) == NOBODY


def test_a_file_is_known_by_what_it_is_and_not_by_its_name(tmp_path: Path) -> None:
    link, copy = tmp_path / "link", tmp_path / "copy"
    link.symlink_to(sys.executable)
    copy.write_bytes(b"#!")

    through_link = Attestation([rule(executable=link)]).scope_of(PEER)
    of_copy = Attestation([rule(executable=copy)]).scope_of(PEER)

    assert through_link.covers("finance/planner")
    assert of_copy == NOBODY


def test_a_process_may_act_as_all_that_its_rules_grant_together() -> None:
    rules = [rule(), rule(scope=Scope.of(["billing/*"]), user_id=None, group_id=GROUP)]
    rules += [rule(scope=EVERYBODY, user_id=THIRD)]

    scope = Attestation(rules).scope_of(PEER)

    names = ("finance/planner", "billing/main", "hr/main")
    assert [scope.covers(name) for name in names] == [True, True, False]


@pytest.mark.parametrize("user_id", [OWN, 0])
def test_the_sidecars_own_user_and_root_may_act_as_any_agent_unless_told_otherwise(
    user_id: int,
) -> None:
    peer = replace(PEER, user_id=user_id)

    assert Attestation([rule()]).scope_of(peer) == EVERYBODY
    assert Attestation([rule()], own_user=False).scope_of(peer) == NOBODY


# Rules in settings.


def settings(*rules: dict[str, Any], **others: Any) -> AgentsSettings:
    return AgentsSettings.model_validate({"rules": list(rules), **others})


def test_names_of_users_and_groups_are_those_of_the_system() -> None:
    # Every system has these two.
    written = settings({"names": ["a"], "uid": "root", "gid": "root"}, own_user=False)

    attestation = Attestation.from_settings(written)

    assert attestation.scope_of(replace(PEER, user_id=0, group_id=0)).covers("a")
    assert not attestation.scope_of(replace(PEER, user_id=0)).covers("a")


WITHOUT_EFFECT: dict[str, tuple[AgentsSettings, str]] = {
    "a user that there is not": (
        settings({"names": ["a"], "uid": "no-such-user"}),
        "agents.rules.0.uid: this system has no user 'no-such-user'",
    ),
    "a group that there is not": (
        settings({"names": ["b"], "gid": GROUP}, {"names": ["a"], "gid": "no-such-group"}),
        "agents.rules.1.gid: this system has no group 'no-such-group'",
    ),
    "a rule for the own user, who may do all": (
        settings({"names": ["a"], "uid": OWN}),
        f"agents.rules.0: user {OWN} may act as any agent already",
    ),
    "a rule for another user, who cannot reach the socket": (
        settings({"names": ["a"], "uid": OTHER}),
        f"agents.rules.0: user {OTHER} cannot reach the socket of user {OWN}",
    ),
}


@pytest.mark.parametrize(("written", "detail"), WITHOUT_EFFECT.values(), ids=WITHOUT_EFFECT.keys())
def test_a_sidecar_does_not_start_with(written: AgentsSettings, detail: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Attestation.from_settings(written)

    assert caught.value.code is Code.CONFIG_INVALID
    assert caught.value.detail == detail
    assert caught.value.remedy
