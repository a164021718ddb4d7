"""What can be said of a CEL source without evaluating it: bounds, names used, clauses joined by &&.

A tokenizer for the part of the language that policies may use. What it refuses never reaches the
native parser, and what it accepts it reads as the native parser does.
"""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

SOURCE_BYTES_MAX: Final = 4 * 1024
NESTING_MAX: Final = 32
SIZE_VARIABLE: Final = "message.size"

_TOKEN: Final = re.compile(
    r"(?P<space>[ \t\r\n]+)"
    r"|(?P<comment>//)"
    r"""|(?P<triple>[A-Za-z]{0,2}(?:\"\"\"|'''))"""
    r"""|(?P<text>"(?:[^"\\\r\n]|\\.)*"|'(?:[^'\\\r\n]|\\.)*')"""
    r"""|(?P<raw>[rR](?:"[^"\r\n]*(?<!\\)"|'[^'\r\n]*(?<!\\)'))"""
    r"""|(?P<prefixed>[A-Za-z]{1,2}["'])"""
    r"|(?P<number>[0-9][0-9A-Za-z]*(?:\.[0-9]+)?(?:(?<=[eE])[+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign>&&|\|\||[!=<>]=|[-+*/%!<>?:,.()\[\]{}])"
)
_OPENING: Final = frozenset("([{")
_CLOSING: Final = {")": "(", "]": "[", "}": "{"}
_WHOLE_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,17}|0x[0-9a-fA-F]{1,15}")
# A `.` after one of these selects a field; anywhere else it would make a name absolute.
_MAY_PRECEDE_DOT: Final = frozenset({"name", "text", "raw"})
COMPARED_BY: Final = frozenset({"==", "!=", "<", "<=", ">", ">="})
_FLIPPED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


class SourceError(Exception):
    """The source is refused. Has ``problem`` and ``remedy``, both sentences."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}")
        self.problem = problem
        self.remedy = remedy


class Token(NamedTuple):
    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`subject.clearance >= 2` or `subject.team == object.team`: what needs no interpreter."""

    left: str
    operator: str
    right: str | int | bool
    right_is_name: bool


@dataclass(frozen=True, slots=True)
class Clause:
    """One of the parts that && joins. ``names`` holds `a` and `a.b` for a free path `a.b.c`.

    A clause that does nothing but bound the message's size has ``size_min`` or ``size_max``; one
    that is a plain comparison of a party's attribute has ``comparison``.
    """

    source: str
    names: frozenset[str]
    size_min: int | None = None
    size_max: int | None = None
    comparison: Comparison | None = None


def read_clauses(source: str) -> tuple[Clause, ...]:
    """Split the source at its outermost &&. Raises SourceError for what policies may not use."""
    if len(source.encode("utf-8", "surrogatepass")) > SOURCE_BYTES_MAX:
        raise SourceError(
            f"the expression is longer than {SOURCE_BYTES_MAX} bytes.",
            "Split it over several rules.",
        )
    tokens = _tokens(source)
    if not tokens:
        raise SourceError("the expression is empty.", "Write a condition, or remove `when`.")
    _check_nesting(tokens)
    _check_names(tokens)
    return tuple(_clause(source, part) for part in _split(tokens))


def _tokens(source: str) -> list[Token]:
    tokens: list[Token] = []
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            raise _no_token(source, at)
        kind = str(match.lastgroup)
        if kind == "comment":
            raise SourceError(
                "comments within an expression are not read.", "Use a YAML comment (#) outside it."
            )
        if kind in ("triple", "prefixed"):
            raise SourceError(
                f"the kind of quote at position {at + 1} is not read.",
                "Use '…', \"…\", or r'…' for a regular expression.",
            )
        if kind != "space":
            # The one operator that is spelt as a name is: what follows it begins anew.
            kind = "sign" if match.group() == "in" else kind
            tokens.append(Token(kind, match.group(), at))
        at = match.end()
    return tokens


def _no_token(source: str, at: int) -> SourceError:
    found = source[at]
    if found in "\"'":
        return SourceError(f"the quote {found} at position {at + 1} is not closed.", "Close it.")
    remedy = {"=": "Write == to compare.", "&": "Write &&.", "|": "Write ||."}.get(
        found, "Put text in quotes."
    )
    return SourceError(
        f"the character {found!a} at position {at + 1} has no meaning in CEL.", remedy
    )


def _check_nesting(tokens: list[Token]) -> None:
    open_signs: list[str] = []
    prefixes = choices = 0
    for token in tokens:
        sign = token.text if token.kind == "sign" else ""
        prefixes = prefixes + 1 if sign in ("!", "-") else 0
        choices += sign == "?"
        if sign in _OPENING:
            open_signs.append(sign)
        elif sign in _CLOSING and (not open_signs or open_signs.pop() != _CLOSING[sign]):
            raise SourceError(
                f"the bracket {sign} at position {token.start + 1} closes nothing.",
                "Check the brackets.",
            )
        if max(len(open_signs), prefixes, choices) > NESTING_MAX:
            raise SourceError(
                f"the expression is nested deeper than {NESTING_MAX} levels.",
                "Split it over several rules.",
            )
    if open_signs:
        raise SourceError(f"a bracket {open_signs[-1]} is not closed.", "Check the brackets.")


def _check_names(tokens: list[Token]) -> None:
    before: Token | None = None
    for index, token in enumerate(tokens):
        if token.text == "." and token.kind == "sign":
            selects = before is not None and (
                before.kind in _MAY_PRECEDE_DOT or before.text in _CLOSING
            )
            if not selects:
                raise SourceError(
                    f"the dot at position {token.start + 1} follows nothing.",
                    "Remove it, or write 0 before a decimal point.",
                )
        if token.kind == "name" and token.text == "has" and _is_sign(tokens, index + 1, "("):
            raise SourceError(
                "has() is refused, for a rule must not hang on absence.",
                "Compare the value itself; where it is missing, an allow rule does not match.",
            )
        before = token


def _split(tokens: list[Token]) -> list[list[Token]]:
    """The parts between outermost &&; one part if an operator that binds looser is there too."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        sign = token.text if token.kind == "sign" else ""
        depth += (sign in _OPENING) - (sign in _CLOSING)
        if depth == 0 and sign in ("||", "?"):
            return [tokens]
        if depth == 0 and sign == "&&":
            parts.append([])
        else:
            parts[-1].append(token)
    # An && with nothing on one side is left whole, for the parser to complain of.
    return parts if all(parts) else [tokens]


def _clause(source: str, tokens: list[Token]) -> Clause:
    text = source[tokens[0].start : tokens[-1].end]
    size_min, size_max = _size_bounds(tokens)
    return Clause(text, _names(tokens), size_min, size_max, _comparison(tokens))


def _names(tokens: list[Token]) -> frozenset[str]:
    """What stands free, variables and functions alike: for `a.b.c`, both `a` and `a.b`."""
    names: set[str] = set()
    for index, token in enumerate(tokens):
        if token.kind != "name" or _is_sign(tokens, index - 1, "."):
            continue
        names.add(token.text)
        if _is_sign(tokens, index + 1, ".") and index + 2 < len(tokens):
            names.add(f"{token.text}.{tokens[index + 2].text}")
    return frozenset(names)


def _is_sign(tokens: list[Token], index: int, text: str) -> bool:
    return 0 <= index < len(tokens) and tokens[index].kind == "sign" and tokens[index].text == text


def _comparison(tokens: list[Token]) -> Comparison | None:
    """Read `a.b OP literal` and `a.b OP c.d`; None for anything else."""
    tokens = _without_brackets(tokens)
    if len(tokens) < 5 or tokens[3].text not in COMPARED_BY or not _is_path(tokens[:3]):
        return None
    left, operator, rest = _path(tokens[:3]), tokens[3].text, tokens[4:]
    if _is_path(rest):
        return Comparison(left, operator, _path(rest), right_is_name=True)
    if len(rest) != 1:
        return None
    (one,) = rest
    if one.kind == "number" and _WHOLE_NUMBER.fullmatch(one.text):
        return Comparison(left, operator, int(one.text, 0), right_is_name=False)
    if one.kind == "text" and "\\" not in one.text:
        return Comparison(left, operator, one.text[1:-1], right_is_name=False)
    if one.text in ("true", "false"):
        return Comparison(left, operator, one.text == "true", right_is_name=False)
    return None


def _is_path(tokens: list[Token]) -> bool:
    return (
        len(tokens) == 3
        and [token.kind for token in tokens] == ["name", "sign", "name"]
        and (tokens[1].text == ".")
    )


def _path(tokens: list[Token]) -> str:
    return "".join(token.text for token in tokens)


def _without_brackets(tokens: list[Token]) -> list[Token]:
    while len(tokens) > 2 and tokens[0].text == "(" and tokens[-1].text == ")":
        tokens = tokens[1:-1]
    return tokens


def _size_bounds(tokens: list[Token]) -> tuple[int | None, int | None]:
    """Read `message.size < N` and its kin, either way round; (None, None) for anything else."""
    tokens = _without_brackets(tokens)
    if len(tokens) != 5:
        return None, None
    texts = [token.text for token in tokens]
    if texts[:3] == ["message", ".", "size"]:
        operator, number = texts[3], texts[4]
    elif texts[2:] == ["message", ".", "size"]:
        operator, number = _FLIPPED.get(texts[1], ""), texts[0]
    else:
        return None, None
    if not _WHOLE_NUMBER.fullmatch(number):
        return None, None
    size = int(number, 0)
    bounds: dict[str, tuple[int | None, int | None]] = {
        "<": (None, size - 1),
        "<=": (None, size),
        ">": (size + 1, None),
        ">=": (size, None),
    }
    return bounds.get(operator, (None, None))
