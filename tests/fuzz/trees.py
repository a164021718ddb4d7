"""Trees of plain values, as CBOR holds them: new ones and changed ones, as a program says."""

from typing import Any, Final

from tests.fuzz.program import Program

CHANGES_MAX: Final = 4
DEPTH_MAX: Final = 6
ITEMS_MAX: Final = 6
DOUBLES_MAX: Final = 80
_LENGTHS: Final = (0, 1, 15, 16, 17, 31, 32, 33, 64, 255, 256, 1_024, 16_384, 65_536)
_INTEGERS: Final = (
    0,
    1,
    23,
    24,
    255,
    256,
    65_535,
    65_536,
    2**31,
    2**32 - 1,
    2**32,
    2**53,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
_TEXTS: Final = (
    "",
    "agent://acme/alpha/alice",
    "agent://acme",
    "agent://acme/",
    "agent:",
    "sl1",
    "acme",
    "a" * 63,
    "a" * 64,
    "hop",
    "channel",
    "\0",
    "\r\n",
    "é",
    "\U0001d54a" * 64,
)


def new_tree(program: Program, depth: int = 0) -> Any:
    """A value of any kind that CBOR's readers of ours let through."""
    kind = program.below(12 if depth < DEPTH_MAX else 9)
    if kind == 0:
        return program.byte()
    if kind == 1:
        return program.choose(_INTEGERS)
    if kind == 2:
        return -1 - program.choose(_INTEGERS)
    if kind == 3:
        return program.blob()
    if kind == 4:
        return bytes([program.byte()]) * program.choose(_LENGTHS)
    if kind == 5:
        return program.choose(_TEXTS)
    if kind == 6:
        return program.blob().decode("utf-8", "replace")
    if kind in (7, 8):
        return program.choose((None, True, False))
    if kind == 9:
        return {
            _key(program): new_tree(program, depth + 1) for _ in range(program.below(ITEMS_MAX))
        }
    return [new_tree(program, depth + 1) for _ in range(program.below(ITEMS_MAX))]


def changed_tree(tree: Any, program: Program) -> Any:
    """The tree with a few of its values replaced, removed, doubled or exchanged."""
    for _ in range(program.below(CHANGES_MAX + 1)):
        tree = _changed(tree, program, 0)
    return tree


def _changed(tree: Any, program: Program, depth: int) -> Any:
    kind = program.byte()
    size = len(tree) if isinstance(tree, list | dict) else 0
    if kind < 32 or not size or depth > DEPTH_MAX:
        return _changed_value(tree, program)
    at = program.below(min(size, 256))
    if isinstance(tree, list):
        return _changed_list(list(tree), at, kind, program, depth)
    return _changed_map(dict(tree), list(tree)[at], kind, program, depth)


def _changed_list(items: list[Any], at: int, kind: int, program: Program, depth: int) -> list[Any]:
    if kind < 48:
        del items[at]
    elif kind < 64:
        items.insert(at, new_tree(program))
    elif kind < 80 and not isinstance(items[at], list | dict):
        # Of leaves only: a tree doubled in several places would be beyond all bounds.
        items += [items[at]] * program.below(DOUBLES_MAX)
    elif kind < 96:
        items[at], items[-1] = items[-1], items[at]
    else:
        items[at] = _changed(items[at], program, depth + 1)
    return items


def _changed_map(
    fields: dict[Any, Any], key: Any, kind: int, program: Program, depth: int
) -> dict[Any, Any]:
    if kind < 48:
        del fields[key]
    elif kind < 64:
        fields[_key(program)] = new_tree(program)
    elif kind < 80:
        fields[_key(program)] = fields.pop(key)
    else:
        fields[key] = _changed(fields[key], program, depth + 1)
    return fields


def _changed_value(value: Any, program: Program) -> Any:
    """Something else, or the same with a small change."""
    kind = program.below(8)
    if isinstance(value, bytes | str) and value and kind < 5:
        at = program.number(2) % len(value)
        if kind == 0:
            return value[:at]
        if kind == 1:
            return value + value[at:]
        if isinstance(value, bytes):
            return value[:at] + program.blob() + value[at + kind - 2 :]
        return value[:at] + program.blob().decode("utf-8", "replace") + value[at + kind - 2 :]
    if type(value) is int and kind < 4:
        changed = value + program.choose((-1, 1, 2**16, -(2**16), 2**32, -value, -2 * value))
        return max(-(2**64), min(changed, 2**64 - 1))
    return new_tree(program)


def _key(program: Program) -> int | str:
    kind = program.below(4)
    if kind == 0:
        return program.byte()
    if kind == 1:
        return -65_537 - program.below(16)
    if kind == 2:
        return program.choose(_TEXTS)
    return program.blob().decode("utf-8", "replace")
