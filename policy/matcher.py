"""Whether somebody is who a rule's `from` or `to` describes. What is missing does not match."""

import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from identity import AgentUri, NamePrefix
from policy.cel import PYTHON_TYPES, ValueType, has_type
from policy.patterns import NamePattern
from policy.request import Party, Request

# The values of an answer. Ordered: of several that must all hold, the least one counts.
NO: Final = 0
MAYBE: Final = 1
"""Not known yet: an attribute of somebody unproved, an argument that was not given."""
YES: Final = 2

_NAMED_KINDS: Final = frozenset({"agent", "node"})


@dataclass(frozen=True, slots=True)
class FieldClause:
    """A property that every party has, such as `kind`."""

    key: str
    values: frozenset[Hashable]

    def match(self, party: Party) -> int:
        if not party.verified and self.key != "trust_domain":
            # Somebody who has a name can only be what has names.
            return NO if self.key == "kind" and self.values.isdisjoint(_NAMED_KINDS) else MAYBE
        return YES if getattr(party, self.key) in self.values else NO


@dataclass(frozen=True, slots=True)
class AttributeClause:
    """A declared attribute: its value, or one item of a list, is among the values."""

    key: str
    kind: ValueType
    values: frozenset[Hashable]

    def match(self, party: Party) -> int:
        if not party.verified:
            return MAYBE
        value = party.attributes.get(self.key)
        python_type = PYTHON_TYPES.get(self.kind)
        if python_type is not None:
            # The type counts: to Python, True equals 1.
            return YES if type(value) is python_type and value in self.values else NO
        if not isinstance(value, tuple | list) or not has_type(value, self.kind):
            return NO
        return YES if any(item in self.values for item in value) else NO


@dataclass(frozen=True, slots=True)
class NameClause:
    """The name, given outright or by patterns."""

    key: str
    exact: frozenset[AgentUri]
    patterns: tuple[NamePattern, ...]

    def match(self, party: Party) -> int:
        name = party.name
        if name is None:
            return NO
        if self.exact and name in self.exact:
            return YES
        for pattern in self.patterns:  # A loop, since any() costs more than what it asks.
            if pattern.matches(name):
                return YES
        return NO

    def match_prefix(self, prefix: NamePrefix, *, overlap: bool) -> int:
        """Whether all names of a prefix are meant; with ``overlap``, whether any is."""
        if overlap:
            met = any(prefix.covers(name) for name in self.exact) or any(
                pattern.overlaps(prefix) for pattern in self.patterns
            )
        else:
            met = any(name.path == prefix.path and prefix.covers(name) for name in self.exact)
            met = met or any(pattern.covers(prefix) for pattern in self.patterns)
        return YES if met else NO


Clause = FieldClause | AttributeClause | NameClause


@dataclass(frozen=True, slots=True)
class Selector:
    """Clauses that must all match; without any, everybody does."""

    clauses: tuple[Clause, ...] = ()

    def match(self, party: Party) -> int:
        answer = YES
        for clause in self.clauses:
            one = clause.match(party)
            if one == NO:
                return NO
            if one < answer:
                answer = one
        return answer

    def match_route(self, party: Party, prefix: NamePrefix, *, overlap: bool) -> int:
        """As ``match``, but `name` speaks of the prefix that is to be registered."""
        answer = YES
        for clause in self.clauses:
            if isinstance(clause, NameClause):
                one = clause.match_prefix(prefix, overlap=overlap)
            else:
                one = clause.match(party)
            answer = min(answer, one)
        return answer


@dataclass(frozen=True, slots=True)
class ToolNames:
    """Names of tools, prompts or resources (``key``), and beginnings of them (written `get_*`)."""

    key: str
    exact: frozenset[str]
    beginnings: tuple[str, ...]

    def found(self, request: Request) -> str | None:
        return request.uri if self.key == RESOURCES else request.tool

    def match(self, request: Request, *, allows: bool) -> int:
        """A URI that can be written in another way is none that a rule allows by its beginning,
        and one that every rule denies."""
        name = self.found(request)
        if name is None:
            return MAYBE
        if self.key == RESOURCES and not is_plain_uri(name):
            return NO if allows else YES
        return YES if name in self.exact or name.startswith(self.beginnings) else NO


RESOURCES: Final = "resources"
_URI: Final = re.compile(
    r"[a-z][a-z0-9+.-]*:(?:(?!//)|//[^/?#A-Z@\\]*(?=[/?#]|$))[^\x00-\x20\x7f\\]*"
)
_DOTS: Final = re.compile(r"(?:^|[/\\:])\.\.?(?=[/\\?#]|$)")


def is_plain_uri(uri: str) -> bool:
    """Whether servers that tidy URIs up see what we see: no dot segments, hidden or not, no
    backslashes, no capitals in scheme or host."""
    if _URI.fullmatch(uri) is None or not uri.isprintable():
        return False
    path, _, _ = uri.partition("?")
    shown = unquote(path)
    # Whoever hides a percent sign wants it decoded twice.
    is_hidden = "%" in shown or "\\" in shown or shown.count("/") != path.count("/")
    return not is_hidden and _DOTS.search(shown) is None
