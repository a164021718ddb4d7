"""Finds the rules that might match a request without asking each: by their narrowest clause.

What is found is never too little. Whether a rule does match is for ``policy.evaluation`` to say,
so an index changes no answer, only how soon it comes.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from policy.cel import PYTHON_TYPES, ValueType, has_type
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
    ranks: Mapping[Hashable, _Ranks]
    find: Callable[[Party], _Ranks]
    """Those filed under a party's value; none if it has none."""
    everything: _Ranks


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
            # Not named: any may be meant.
            found.append(table.everything if value is None else table.ranks.get(value, ()))
        if self._of_subject:
            for party in subjects:
                for table in self._of_subject:
                    found.append(table.find(party))
        if self._of_object:
            for party in objects:
                for table in self._of_object:
                    if waits and not party.verified and table.field.needs_proof:
                        found.append(table.everything)
                    else:
                        found.append(table.find(party))
        ranks = found[0] if len(found) == 1 else sorted(set().union(*found))
        return [self.rules[rank] for rank in ranks]


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


def _table(field: _Field, filed: Mapping[Hashable, Sequence[int]]) -> _Table:
    everything = sorted({rank for listed in filed.values() for rank in listed})
    ranks = {value: tuple(listed) for value, listed in filed.items()}
    return _Table(field, ranks, _finder(field, ranks), tuple(everything))


def _finder(field: _Field, ranks: Mapping[Hashable, _Ranks]) -> Callable[[Party], _Ranks]:
    """Reads from a party the value by which rules are filed, and looks it up."""
    key, kind, segments = field.key, field.kind, field.segments
    if kind is ValueType.LIST:

        def find_by_items(party: Party) -> _Ranks:
            value = party.attributes.get(key) if party.verified else None
            if not isinstance(value, tuple | list) or not has_type(value, kind):
                return ()
            # A rule that lists several of the items is found once.
            return tuple(sorted(set(chain.from_iterable(ranks.get(item, ()) for item in value))))

        return find_by_items
    if kind is not None:
        python_type = PYTHON_TYPES[kind]

        def find_by_attribute(party: Party) -> _Ranks:
            value = party.attributes.get(key) if party.verified else None
            # The type counts: to Python, True equals 1.
            return ranks.get(value, ()) if type(value) is python_type else ()

        return find_by_attribute
    if key == "name":

        def find_by_name(party: Party) -> _Ranks:
            name = party.name
            if name is None or len(name.path) < segments:
                return ()
            return ranks.get((name.trust_domain, *name.path[:segments]), ())

        return find_by_name

    def find_by_field(party: Party) -> _Ranks:
        known = party.verified or key in _KNOWN_UNPROVED
        return ranks.get(getattr(party, key), ()) if known else ()

    return find_by_field
