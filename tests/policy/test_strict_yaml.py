"""The YAML that policies and settings are written in: what is read, and what is refused where."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import YamlError
from policy.strict_yaml import YAML_BYTES_MAX, YAML_DEPTH_MAX, load_strict

# What it is about: text, line and column of the complaint, words of it.
REFUSED = {
    "a key given twice": ("a: 1\nb: 2\na: 3\n", 3, 1, 'the key "a" is given twice'),
    "a key given twice in flow style": ("{a: 1, a: 2}", 1, 8, "first on line 1"),
    "an anchor": ("a: &x 1\n", 1, 4, "anchors"),
    "an alias": ("a: *x\n", 1, 4, "aliases"),
    "an alias bomb's first anchor": ("a: &a [x]\nb: [*a, *a]\n", 1, 4, "anchors"),
    "a tag": ("a: !!python/object:os.system x\n", 1, 4, "tags"),
    "a tag of one's own": ("a: !x 1\n", 1, 4, "tags"),
    "a directive": ("%YAML 1.1\n---\na: 1\n", 1, 1, "directives"),
    "a second document": ("a: 1\n---\nb: 1\n", 2, 1, "second document"),
    "a tab as indentation": ("a:\n\tb: 1\n", 2, 1, "tab"),
    "no, which is false to some": ("a: no\n", 1, 4, "truth value to others"),
    "No as a key": ("No: 1\n", 1, 1, "truth value to others"),
    "yes, which is true to some": ("a: [yes]\n", 1, 5, "truth value to others"),
    "True with a capital": ("a: True\n", 1, 4, "truth value to others"),
    "an octal number of YAML 1.1": ("a: 010\n", 1, 4, "is not a number"),
    "a hexadecimal number": ("a: 0x10\n", 1, 4, "is not a number"),
    "a number with underscores": ("a: 1_000\n", 1, 4, "is not a number"),
    "an integer beyond 64 bits": ("a: 9223372036854775808\n", 1, 4, "is not a number"),
    "an integer of a million digits": ("a: " + "9" * 1_000_000, 1, 4, "is not a number"),
    "an infinite number": ("a: 1e999\n", 1, 4, "is not a number"),
    "an exponent behind a leading zero": ("a: 01e9\n", 1, 4, "is not a number"),
    "an exponent behind a leading dot": ("a: .5e3\n", 1, 4, "is not a number"),
    "an exponent behind an underscore": ("a: 1_0e3\n", 1, 4, "is not a number"),
    "not a number": ("a: .nan\n", 1, 4, "is not a number"),
    "a number as key": ("5: x\n", 1, 1, "a key must be text"),
    "a list as key": ("? [a]\n: b\n", 1, 3, "a key must be text"),
    "a null key": ("~: b\n", 1, 1, "a key must be text"),
    "a quote that does not end": ("a: 'x\n", 2, 1, "end of stream"),
    "a mapping in a value": ("a: b: c\n", 1, 5, "mapping values"),
    "a NUL": ("a: 1\nb: \0\n", 2, 4, "does not allow"),
    "a lone surrogate": ("a: \ud800\n", 1, 4, "does not allow"),
    "an escaped half of a character": ('a: "\\ud800"\n', 1, 7, "character escape"),
    # The parser looks that far ahead before it says anything of the first.
    "brackets without end": ("[" * 100_000, 1, 1001, "levels of nesting"),
    "dashes without end": ("- " * 100_000, 1, 2 * YAML_DEPTH_MAX + 1, "levels of nesting"),
    "braces without end": ("{a: " * 100_000, 1, 4 * YAML_DEPTH_MAX + 1, "levels of nesting"),
    "an end of line that only YAML 1.1 knows": ("a: 1 # x\u2028b: 2\n", 1, 9, "U+2028"),
    "an end of line of mainframes": ("a: 1\x85b: 2\n", 1, 5, "U+0085"),
    "a character that begins nothing": ("a: @b\n", 1, 4, "means something else"),
    "a % within": ("a: 1\nb: %x\n", 2, 4, "means something else"),
    "a character that begins nothing, behind lines that end in carriage returns": (
        "a: 1\rb: 2\r\nc: @x\r",
        3,
        4,
        "@ means something else",
    ),
    "a NUL behind a carriage return": ("a: 1\rb: \0", 2, 4, "does not allow"),
    "a bracket that is not closed": ("a: [1, 2\nb: 1\n", 2, 2, "neither ',' nor ']'"),
    "text beside a key": ("a: 1\n b: 2\n", 2, 3, "mapping values"),
    "a line that is no pair": ("a: 1\nb\nc: 2\n", 3, 1, "is no `key: value`"),
    "more than a megabyte": ("#" * (YAML_BYTES_MAX + 1), 1, 1, "at most"),
}


@pytest.mark.parametrize(("text", "line", "column", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(text: str, line: int, column: int, words: str) -> None:
    started = time.process_time()

    with pytest.raises(YamlError) as caught:
        load_strict(text, "f.yaml")

    error = caught.value
    assert words in error.problem
    assert (error.file, error.line, error.column) == ("f.yaml", line, column)
    assert error.remedy
    assert f"f.yaml:{line}:{column}: " in str(error)
    # Bounded work: other parsers take minutes for some of these.
    assert time.process_time() - started < 5


READ = {
    "nothing": ("", None),
    "a comment": ("# nothing\n", None),
    "plain text": ("a: b c\n", {"a": "b c"}),
    "the values of YAML 1.2": (
        "[1, -2, 2.5, 1e3, true, false, null, ~]",
        [1, -2, 2.5, 1000.0, True, False, None, None],
    ),
    "quoted words that look like others": ("['no', \"010\", 'true']", ["no", "010", "true"]),
    "dates as text": ("a: 2026-11-22", {"a": "2026-11-22"}),
    "a block": ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
    "the ends of 64 bits": ("[9223372036854775807, -9223372036854775808]", [2**63 - 1, -(2**63)]),
    "a merge key as a key like any other": ("'<<': {a: 1}", {"<<": {"a": 1}}),
    "a byte order mark": ("\ufeffa: 1", {"a": 1}),
    "an empty value": ("a:\nb: 1\n", {"a": None, "b": 1}),
}


@pytest.mark.parametrize(("text", "value"), READ.values(), ids=READ.keys())
def test_reads(text: str, value: object) -> None:
    assert load_strict(text, "f.yaml")[0] == value


def test_says_where_keys_and_values_stand() -> None:
    _, positions = load_strict("a:\n  - b: 1\n    c:\n      x\n", "f.yaml")

    assert positions.line_of(("a", 0, "c")) == 3
    assert positions.value_at(("a", 0, "c")).line == 4
    assert positions.line_of(("a", 0)) == 2
    assert positions.line_of(("nowhere",)) is None
    assert positions.value_at(("a", 0, "nowhere")).line == 2


@given(st.text(alphabet="ab01:-[]{},'\"\n\t #&*!|>%@`?~.e\\\0\ud800é", max_size=60))
def test_any_text_is_read_or_refused_in_one_way(text: str) -> None:
    try:
        load_strict(text, "f.yaml")
    except YamlError as error:
        place = error.line, error.column
    else:
        place = 1, 1

    assert min(place) >= 1


# JSON escapes what lies beyond 16 bits by halves, which we refuse.
TEXTS = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=8)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
        max_leaves=12,
    )
)
def test_reads_back_what_is_written_as_json(value: object) -> None:
    assert load_strict(json.dumps(value), "f.yaml")[0] == value
