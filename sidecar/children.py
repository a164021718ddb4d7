"""The children of agents: spawned below them, counted, and swept away when their time is over.

A child's credential is signed by its parent, within what the parent may pass on: names below its
own, its own attributes with its own values, one level less. So whoever verifies the child verifies
the parent too, and who is gone takes all below it along.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import structlog

from identity import (
    AgentUri,
    AttributeValue,
    Code,
    IdentityError,
    Purpose,
    SidelinkError,
    new_identity,
)
from sidecar.agents import AgentRegistry, LocalAgent

CHILDREN_MAX: Final = 1_000
SWEPT_AT_ONCE: Final = 16
"""Rows that one sweep looks at: a few milliseconds."""

_log = structlog.get_logger("sidecar.children")


class Children:
    """One for a sidecar, beside the registry of its agents."""

    def __init__(self, agents: AgentRegistry, *, children_max: int = CHILDREN_MAX) -> None:
        self._keystore = agents.keystore
        self._agents = agents
        self._children_max = children_max
        # Behind all that the node itself issued, which no sweep need look at.
        self._first = (f"{agents.node_key}\0", "")
        self._swept_to = self._first
        self.swept = 0
        """Rows removed since the start."""

    def spawn(
        self,
        parent_path: str,
        segment: str,
        attributes: Mapping[str, AttributeValue],
        ttl_s: int,
        unix_s: float,
    ) -> LocalAgent:
        """An agent below another one, for ``ttl_s`` from now on; with 0 for as long as its parent.

        A child that is there already keeps its identity, and is from now on what is said of it now.
        Raises SidelinkError: local.bad_request, local.agent_unknown, local.delegation_denied,
        local.limit, and what waking the parent raises.
        """
        agents = self._agents
        parent = agents.parent(parent_path, unix_s)
        try:
            name = AgentUri(agents.trust_domain, (*parent.uri.path, segment))
        except IdentityError as exc:
            raise SidelinkError(Code.LOCAL_BAD_REQUEST, exc.detail) from exc
        ends_unix_s = _end_of(parent, ttl_s, unix_s)
        path = "/".join(name.path)
        own = agents.load(path)
        if own is None:
            self._check_room(parent_path, unix_s)
            own = new_identity(path, unix_s=unix_s, purposes=(Purpose.CHANNEL,))
        elif own.issued_by != parent_path:
            raise SidelinkError(
                Code.LOCAL_DELEGATION_DENIED, f"name: {name} is there, and is nobody's child"
            )
        own = replace(own, issued_by=parent_path, ends_unix_s=ends_unix_s)
        return agents.wake(name, own, attributes, unix_s, is_stored=False)

    def is_child(self, path: str) -> bool:
        """Whether this is an agent that another agent spawned."""
        own = self._agents.load(path)
        return own is not None and own.issued_by == path.rpartition("/")[0]

    def sweep(self, unix_s: float) -> None:
        """Remove children whose time is over, and all below them.

        Looks at a few, and goes on behind them the next time: a million of them are seen within
        a day, and cost nothing but their rows until then.
        """
        page = self._keystore.children_after(*self._swept_to, SWEPT_AT_ONCE)
        self._swept_to = page[-1] if page else self._first
        self._remove_ended([name for _, name in page], unix_s)

    def _check_room(self, parent_path: str, unix_s: float) -> None:
        if self._keystore.children(parent_path) < self._children_max:
            return
        some = self._keystore.children_names(parent_path, limit=SWEPT_AT_ONCE)
        self._remove_ended(list(some), unix_s)
        if self._keystore.children(parent_path) >= self._children_max:
            raise SidelinkError(
                Code.LOCAL_LIMIT, f"{parent_path} has {self._children_max} children"
            )

    def _remove_ended(self, names: list[str], unix_s: float) -> None:
        gone: list[str] = []
        any_issuer = self._agents.issuer.own
        for name in names:
            try:
                # Only its end is looked at, so who stands above it need not be read.
                own = self._keystore.load(name, lambda _: any_issuer)
            except SidelinkError as exc:
                # A damaged row stays, for whoever can tell what it was.
                _log.warning("child_unreadable", child=name, code=exc.code.text, why=exc.detail)
                continue
            if own is not None and own.ends_unix_s is not None and own.ends_unix_s <= unix_s:
                self._gather(name, gone)
        if gone:
            self.swept += self._keystore.remove_many(gone)
            for name in gone:
                self._agents.forget_path(name)

    def _gather(self, name: str, gone: list[str]) -> bool:
        """Take it and all below it, or of what is below as much as one sweep may remove.

        What is below goes first: a row without its issuer would count as damaged.
        """
        for child in self._keystore.children_names(name, limit=SWEPT_AT_ONCE):
            if child not in gone and not self._gather(child, gone):
                return False
        if len(gone) >= SWEPT_AT_ONCE:
            return False
        if name not in gone:
            gone.append(name)
        return True


def _end_of(parent: LocalAgent, ttl_s: int, unix_s: float) -> int | None:
    """When a child ends that may live so long. What goes too far is refused, not cut."""
    may = parent.identity.delegable
    assert may is not None
    if not ttl_s:
        return None
    if ttl_s > may.lifetime_s_max:
        raise SidelinkError(Code.LOCAL_DELEGATION_DENIED, f"ttl: more than {may.lifetime_s_max} s")
    ends_unix_s = int(unix_s) + ttl_s
    if parent.ends_unix_s is not None and ends_unix_s > parent.ends_unix_s:
        raise SidelinkError(
            Code.LOCAL_DELEGATION_DENIED, f"ttl: beyond the end of {parent.uri} itself"
        )
    return ends_unix_s
