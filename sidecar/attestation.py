"""Which local process may act as which agent: what the operator granted, and whom it fits.

Rules are of the settings; names of users and groups in them are resolved once, at the start. The
file that a process runs only narrows a rule: within one user nothing stops a process from making
another one, that runs the right file, act for it.
"""

import grp
import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from identity import AgentUri, Code, IdentityError
from identity.uri import PATH_SEGMENTS_MAX, SCHEME
from node.errors import ConfigError
from node.settings import AgentRule, AgentsSettings
from policy.patterns import REST, NamePattern
from sidecar.local_port import FileIdentity, PeerCredentials

ROOT_USER_ID: Final = 0
_ANY_DOMAIN: Final = "local"
"""Here names are paths within the sidecar's own trust domain, so any word will do for it."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Names of agents, as patterns of paths."""

    patterns: tuple[NamePattern, ...]

    @classmethod
    def of(cls, patterns: Iterable[str]) -> "Scope":
        """Patterns as settings have them: ``finance/planner``, ``finance/*``, ``finance/**``."""
        return cls(tuple(NamePattern.parse(f"{SCHEME}{_ANY_DOMAIN}/{text}") for text in patterns))

    @classmethod
    def below(cls, paths: Iterable[str]) -> "Scope":
        """These agents, and all whose names lie below theirs."""
        patterns = []
        for path in paths:
            patterns.append(path)
            if path.count("/") + 1 < PATH_SEGMENTS_MAX:
                patterns.append(f"{path}/{REST}")
        return cls.of(patterns)

    def __or__(self, other: "Scope") -> "Scope":
        return Scope(self.patterns + other.patterns)

    def covers(self, path: str) -> bool:
        """Whether it holds this name; what is no name is not in any scope."""
        try:
            name = AgentUri.in_domain(_ANY_DOMAIN, path)
        except IdentityError:
            return False
        return any(pattern.matches(name) for pattern in self.patterns)


NOBODY: Final = Scope(())
EVERYBODY: Final = Scope.of((REST,))


@dataclass(frozen=True, slots=True)
class ResolvedRule:
    """A rule of the settings, in the kernel's numbers."""

    scope: Scope
    user_id: int | None
    group_id: int | None
    executable: Path | None

    def fits(self, peer: PeerCredentials) -> bool:
        if self.user_id not in (None, peer.user_id):
            return False
        if self.group_id is not None and self.group_id not in (peer.group_id, *peer.groups):
            return False
        return self.executable is None or _is_file(self.executable, peer.executable)


class Attestation:
    """Tells what a process may do from what the kernel says of it."""

    def __init__(
        self,
        rules: Iterable[ResolvedRule] = (),
        *,
        own_user: bool = True,
        own_user_id: int | None = None,
    ) -> None:
        self._rules = tuple(rules)
        own_user_id = os.geteuid() if own_user_id is None else own_user_id
        self._masters = frozenset((own_user_id, ROOT_USER_ID) if own_user else ())
        self.reads_executables: Final = any(rule.executable is not None for rule in self._rules)

    @classmethod
    def from_settings(cls, settings: AgentsSettings) -> "Attestation":
        """Raises ConfigError for a user or group that there is not, and a rule without effect."""
        own_user_id = os.geteuid()
        rules = []
        for number, rule in enumerate(settings.rules):
            resolved = _resolve(rule, f"agents.rules.{number}")
            _check_has_effect(resolved, settings, own_user_id, f"agents.rules.{number}")
            rules.append(resolved)
        return cls(rules, own_user=settings.own_user, own_user_id=own_user_id)

    def scope_of(self, peer: PeerCredentials) -> Scope:
        """The agents as which this process may act: all that any rule which fits it grants."""
        if peer.user_id in self._masters:
            return EVERYBODY
        scope = NOBODY
        for rule in self._rules:
            if rule.fits(peer):
                scope |= rule.scope
        return scope


def user_id_of(account: int | str, where: str) -> int:
    """Raises ConfigError when the system knows no user of this name."""
    if isinstance(account, int):
        return account
    try:
        return pwd.getpwnam(account).pw_uid
    except KeyError:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{where}: this system has no user {account!r}",
            remedy="Correct the name, or give the user's number.",
        ) from None


def group_id_of(account: int | str, where: str) -> int:
    """Raises ConfigError when the system knows no group of this name."""
    if isinstance(account, int):
        return account
    try:
        return grp.getgrnam(account).gr_gid
    except KeyError:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{where}: this system has no group {account!r}",
            remedy="Correct the name, or give the group's number.",
        ) from None


def _resolve(rule: AgentRule, where: str) -> ResolvedRule:
    return ResolvedRule(
        Scope.of(rule.names),
        None if rule.uid is None else user_id_of(rule.uid, f"{where}.uid"),
        None if rule.gid is None else group_id_of(rule.gid, f"{where}.gid"),
        rule.exe,
    )


def _check_has_effect(
    rule: ResolvedRule, settings: AgentsSettings, own_user_id: int, where: str
) -> None:
    """A rule that changes nothing is a rule that its author believes in."""
    if rule.user_id in (own_user_id, ROOT_USER_ID) and settings.own_user:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{where}: user {rule.user_id} may act as any agent already",
            remedy="Set agents.own_user to false, so that rules hold for this user too, "
            "or remove the rule.",
        )
    others = rule.user_id is not None and rule.user_id not in (own_user_id, ROOT_USER_ID)
    if others and settings.socket_group is None:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{where}: user {rule.user_id} cannot reach the socket of user {own_user_id}",
            remedy="Set agents.socket_group to a group of both, and agent_socket to a path "
            "outside the state folder.",
        )


def _is_file(path: Path, file: FileIdentity | None) -> bool:
    """Compared as files, and looked up anew: a program that was upgraded is the program."""
    if file is None:
        return False
    try:
        status = path.stat()
    except OSError:
        return False
    return FileIdentity(status.st_dev, status.st_ino) == file
