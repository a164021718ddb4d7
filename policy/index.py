"""Finds the rules that might match a request without asking each: by their narrowest clause.

What is found is never too little. Whether a rule does match is for ``policy.evaluation`` to say,
so an index changes no answer, only how soon it comes.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from policy.cel import ValueType, has_type
from policy.matcher import RESOURCES, AttributeClause, Clause, NameClause
from policy.model import Rule
from policy.request import Action, Party, Request

_Ranks = tuple[int, ...]

# What is known of somebody who is only named.
_KNOWN_UNPROVED: Final = frozenset({"name", "trust_domain"})


@dataclass(frozen=True, slots=True)
class _Field:
    """What a rule is found by: a property of one side, or the service or the tool (no side)."""

    side: str
    key: str
    kind: ValueType | None = None
    """Of a declared attribute."""
    segments: int = 0
    """Of a name: how many segments at its beginning."""

    @property
    def needs_proof(self) -> bool:
        return bool(self.side) and (self.kind is not None or self.key not in _KNOWN_UNPROVED)


@dataclass(frozen=True, slots=True)
class _Table:
    """Where each rule stands that was filed under one field: its rank, by value."""

    field: _Field
    read: Callable[[Party], Hashable]
    """A party's value; None if it has none. A list of values counts one by one."""
    ranks: Mapping[Hashable, _Ranks]
    everything: _Ranks

    def collect(self, party: Party, found: list[_Ranks]) -> None:
        value = self.read(party)
        if value is None:
            return
        if self.field.kind is ValueType.LIST:
            assert isinstance(value, tuple | list)
            found.extend(self.ranks[item] for item in value if item in self.ranks)
        elif (ranks := self.ranks.get(value)) is not None:
            found.append(ranks)


class RuleIndex:
    """The rules of one effect for one action, in the order in which they are to be asked."""

    __slots__ = ("_of_object", "_of_request", "_of_subject", "_rest", "rules")

    def __init__(self, rules: Sequence[Rule], action: Action) -> None:
        self.rules = tuple(rules)
        filed = _file(self.rules, action)
        self._rest: _Ranks = tuple(filed.pop(None, {}).get(None, ()))
        tables = [_table(field, ranks) for field, ranks in filed.items() if field is not None]
        self._of_subject = tuple(one for one in tables if one.field.side == "subject")
        self._of_object = tuple(one for one in tables if one.field.side == "object")
        self._of_request = tuple(one for one in tables if not one.field.side)

    def find(
        self, request: Request, subjects: Iterable[Party], objects: Iterable[Party], *, waits: bool
    ) -> Sequence[Rule]:
        """All rules that could match one of the subjects with one of the objects, in order.

        With ``waits`` those count too that an unproved object may turn out to match.
        """
        found: list[_Ranks] = [self._rest] if self._rest else []
        for table in self._of_request:
            value = getattr(request, table.field.key)
            if value is None:  # Not named: any may be meant.
                found.append(table.everything)
            elif (ranks := table.ranks.get(value)) is not None:
                found.append(ranks)
        if self._of_subject:
            for party in subjects:
                for table in self._of_subject:
                    table.collect(party, found)
        if self._of_object:
            for party in objects:
                for table in self._of_object:
                    if waits and not party.verified and table.field.needs_proof:
                        found.append(table.everything)
                    else:
                        table.collect(party, found)
        if not found:
            return ()
        ranks = found[0] if len(found) == 1 else tuple(sorted(set().union(*found)))
        rules = self.rules
        return [rules[rank] for rank in ranks]


_Filed = dict[_Field | None, dict[Hashable, list[int]]]
_Keys = Sequence[tuple[_Field, Hashable]]


def _file(rules: Sequence[Rule], action: Action) -> _Filed:
    """Each rule under the one clause that fewest others share; under None if it has none."""
    ways = [tuple(_ways(rule, action)) for rule in rules]
    shared = Counter(key for way in ways for keys in way for key in keys)

    def crowd(keys: _Keys) -> tuple[int, bool]:
        return sum(shared[key] for key in keys), any(field.needs_proof for field, _ in keys)

    filed: _Filed = {}
    for rank, way in enumerate(ways):
        if not way:
            filed.setdefault(None, {}).setdefault(None, []).append(rank)
            continue
        for field, value in min(way, key=crowd):
            filed.setdefault(field, {}).setdefault(value, []).append(rank)
    return filed


def _ways(rule: Rule, action: Action) -> Iterable[_Keys]:
    """The clauses that the rule can be filed under, each with all values that it lists."""
    if rule.services is not None:
        yield [(_Field("", "service"), service) for service in rule.services]
    # A rule on resources denies more than it lists.
    if rule.tools is not None and rule.tools.key != RESOURCES and not rule.tools.beginnings:
        yield [(_Field("", "tool"), tool) for tool in rule.tools.exact]
    for side, selector in (("subject", rule.subject), ("object", rule.object)):
        for clause in selector.clauses:
            # For a registration `to.name` speaks of the prefix, whatever the object's own name.
            if action is Action.ROUTE_REGISTER and side == "object" and clause.key == "name":
                continue
            yield list(_keys(side, clause))


def _keys(side: str, clause: Clause) -> Iterable[tuple[_Field, Hashable]]:
    if isinstance(clause, NameClause):
        for name in clause.exact:
            yield _Field(side, "name", segments=len(name.path)), (name.trust_domain, *name.path)
        for pattern in clause.patterns:
            fixed: list[str] = []
            for segment in pattern.segments:
                if segment is None:
                    break
                fixed.append(segment)
            yield _Field(side, "name", segments=len(fixed)), (pattern.trust_domain, *fixed)
        return
    kind = clause.kind if isinstance(clause, AttributeClause) else None
    for value in clause.values:
        yield _Field(side, clause.key, kind), value


def _table(field: _Field, ranks: Mapping[Hashable, Sequence[int]]) -> _Table:
    everything = sorted({rank for listed in ranks.values() for rank in listed})
    frozen = {value: tuple(listed) for value, listed in ranks.items()}
    return _Table(field, _reader(field), frozen, tuple(everything))


def _reader(field: _Field) -> Callable[[Party], Hashable]:
    """Reads from a party the value by which rules may be filed under a field."""
    key, kind, segments = field.key, field.kind, field.segments
    if kind is not None:

        def read_attribute(party: Party) -> Hashable:
            value = party.attributes.get(key) if party.verified else None
            return value if has_type(value, kind) else None

        return read_attribute
    if key == "name":

        def read_name(party: Party) -> Hashable:
            name = party.name
            if name is None or len(name.path) < segments:
                return None
            return (name.trust_domain, *name.path[:segments])

        return read_name
    if key == "trust_domain":
        return lambda party: party.trust_domain
    return lambda party: getattr(party, key) if party.verified else None
