"""Policies that mean harm are refused in bounded time and memory, and so are requests to them."""

import resource
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from identity import SidelinkError
from policy import PolicyEngine, PolicySource
from policy.documents import FILES_MAX, RULES_MAX
from policy.strict_yaml import YAML_BYTES_MAX
from tests.policy.helpers import HEADER, NOW, PLANNER, call, denied, policy_of
from tests.policy.helpers import agent as agent_of

CPU_S_MAX = 5.0
"""Nearly all take milliseconds. What is as large as may be is read once, for half a second."""
MEMORY_BYTES_MAX = 160 << 20

TOP = "apiVersion: sidelink/v1\nkind: Policy\n"
RULES = HEADER + "rules:\n"


def rule(more: str, action: str = "message.ask") -> str:
    return f"{RULES}  - name: r\n    effect: allow\n    actions: [{action}]\n    {more}\n"


def fill(part: str) -> str:
    """As much of it as a file may have."""
    return part * ((YAML_BYTES_MAX - len(RULES)) // len(part.encode()))


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    for level in range(1, levels):
        below = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} [{below}]")
    return "\n".join(lines)


# The text, and words of the complaint.
TEXTS: dict[str, tuple[Callable[[], str], str]] = {
    "a million brackets": (lambda: "[" * YAML_BYTES_MAX, "levels of nesting"),
    "a million braces": (lambda: fill("{a: "), "levels of nesting"),
    "a million dashes": (lambda: fill("- "), "levels of nesting"),
    "a million question marks": (lambda: fill("? "), "a key must be text"),
    "brackets line by line": (lambda: fill("[\n"), "levels of nesting"),
    "keys that go deeper and deeper": (
        lambda: "".join(f"{' ' * at}a:\n" for at in range(1_000)),
        "levels of nesting",
    ),
    "aliases of aliases of aliases": (lambda: laughs(30), "anchors"),
    "an alias of itself": (lambda: "a: &a [*a]\n", "anchors"),
    "anchors without end": (lambda: fill("&a "), ""),
    "a merge of aliases": (lambda: "a: &a {b: c}\nd: {<<: *a}\n", "anchors"),
    "a tag that would run code": (
        lambda: "!!python/object/apply:os.system [exit]\n",
        "tags",
    ),
    "binary in a tag": (lambda: "a: !!binary aGVsbG8=\n", "tags"),
    "a hundred thousand equal keys": (lambda: TOP + fill("a: 1\n"), "given twice"),
    "twenty thousand unknown keys": (
        lambda: TOP + "".join(f"k{at}: 1\n" for at in range(20_000)),
        "unknown key",
    ),
    "one key of a megabyte": (lambda: f"{'k' * (YAML_BYTES_MAX - 10)}: 1\n", ""),
    "one text of a megabyte": (
        lambda: f"{TOP}metadata: {{name: {'x' * (YAML_BYTES_MAX - 100)}}}\n",
        "has 1048476 characters",
    ),
    "one comment of a megabyte": (lambda: "#" * (YAML_BYTES_MAX + 1), "at most"),
    "a number of a megabyte": (lambda: f"{TOP}rules: {'9' * (YAML_BYTES_MAX - 100)}\n", "number"),
    "quotes without end": (lambda: fill("'"), ""),
    "a double quote full of escapes": (lambda: f'a: "{fill(chr(92) + "x41")}', ""),
    "a block without end": (lambda: f"{TOP}metadata: {{name: |\n" + fill(" x\n"), ""),
    "documents without end": (lambda: fill("---\n"), ""),
    "directives without end": (lambda: fill("%YAML 1.1\n"), ""),
    "commas": (lambda: "[" + fill(","), ""),
    "colons": (lambda: fill(":"), ""),
    "a NUL in the middle": (lambda: TOP + "rules: []\0\n", "U+0000"),
    "the other byte order, read as this one": (
        lambda: TOP.encode("utf-16-be").decode("latin-1"),
        "U+0000",
    ),
    "a byte order mark in the middle": (lambda: f"{TOP}\ufeffrules: []\n", ""),
    "halves of characters": (lambda: TOP + "rules: \ud800\udc00\n", "U+D800"),
    "what turns text round": (lambda: f"{TOP}rul\u202ees: []\n", "unknown key"),
    "a letter that looks like another": (lambda: f"{TOP}rul\u0435s: []\n", "character U+0435"),
    "a name with a letter that looks like another": (
        lambda: rule('to: {name: "agent://\u0430cme/x"}'),
        "no name",
    ),
    "too many rules": (
        lambda: RULES + "".join(f"  - {{name: r{at}}}\n" for at in range(RULES_MAX + 1)),
        "at most 10000",
    ),
    "too many attributes": (
        lambda: f"{TOP}attributes: {{{', '.join(f'a{at}: text' for at in range(10_000))}}}\n",
        "Declare 64 at most",
    ),
    "a list of ten thousand values": (
        lambda: rule(f"from: {{role: [{', '.join(f'r{at}' for at in range(10_000))}]}}"),
        "at most 1024",
    ),
    "a list of ten thousand tools": (
        lambda: rule(f"tools: [{', '.join(f't{at}' for at in range(10_000))}]", "mcp.call"),
        "at most 1024",
    ),
    "a name of ten thousand segments": (
        lambda: rule(f'to: {{name: "agent://a{"/b" * 500}"}}'),
        "at most 8 segments",
    ),
    "ten thousand terms joined by &&": (
        lambda: rule(f"when: {' && '.join(['true'] * 10_000)}"),
        "longer than 4096",
    ),
    "brackets in a condition": (lambda: rule(f"when: {'(' * 2_000}"), "deeper than 32"),
    "brackets that close": (
        lambda: rule(f"when: {'(' * 1_000}true{')' * 1_000}"),
        "deeper than 32",
    ),
    "signs in a condition": (lambda: rule(f'when: "{"!" * 4_000}true"'), "deeper than 32"),
    "choices in a condition": (lambda: rule(f"when: '{'true?' * 700}'"), "deeper than 32"),
    "a path of a thousand names": (
        lambda: rule(f"when: args{'.a' * 2_000} == 1", "mcp.call"),
        "",
    ),
    "a chain of calls": (
        lambda: rule(f"when: args.a{'.a()' * 900} == 1", "mcp.call"),
        "",
    ),
    "lists of lists in a condition": (lambda: rule(f"when: '{'[' * 40}{']' * 40} == 1'"), "deeper"),
    "loops in loops": (
        lambda: rule(
            f"when: {'args.l.all(x, ' * 40}true{')' * 40}",
            "mcp.call",
        ),
        "deeper than 32",
    ),
    "a rate of digits": (lambda: rule(f"limit: {{rate: {'9' * 100_000}/s}}"), "the rate is"),
    "a field of stars": (
        lambda: rule(f"redact: ['{'*.' * 500}a b']", "mcp.call"),
        "is no field",
    ),
    "a resource of dots": (
        lambda: rule(f"resources: ['file:///{'../' * 300}']", "mcp.read"),
        "no URI",
    ),
}


@pytest.mark.parametrize(("make", "words"), TEXTS.values(), ids=TEXTS.keys())
def test_is_refused_at_once(make: Callable[[], str], words: str) -> None:
    text = make()
    started_s = time.process_time()

    with pytest.raises(SidelinkError) as caught:
        PolicyEngine.load(text, file="policy.yaml")

    assert words in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1_000
    assert time.process_time() - started_s < CPU_S_MAX


def test_as_many_files_as_there_may_be_are_refused_beyond_their_number() -> None:
    with pytest.raises(SidelinkError, match="at most 256"):
        PolicyEngine.load_bundle([PolicySource(str(at), "") for at in range(FILES_MAX + 1)])


def test_as_many_terms_as_fit_are_compiled_and_decided_on_at_once() -> None:
    started_s = time.process_time()

    engine = policy_of(f"effect: allow, actions: [mcp.call], when: {'||'.join(['1>args.a'] * 400)}")
    denied(engine, call(args={"a": 1}))

    assert time.process_time() - started_s < 1


REGEXES = {
    "nested repetition": ("^(a+)+$", "a" * 5_000 + "!"),
    "repeated choice": ("^(a|aa)+$", "a" * 5_000 + "!"),
    "repeated choice of what overlaps": ("^(a|a?)+$", "a" * 5_000 + "!"),
    "many stars": ("^" + ".*" * 30 + "x$", "a" * 5_000),
}


@pytest.mark.parametrize(("pattern", "text"), REGEXES.values(), ids=REGEXES.keys())
def test_regular_expressions_that_go_back_elsewhere_take_linear_time(
    pattern: str, text: str
) -> None:
    engine = policy_of(f"effect: allow, actions: [mcp.call], when: args.t.matches(r'{pattern}')")
    started_s = time.process_time()

    answer = denied(engine, call(args={"t": text}))

    assert "does not hold" in answer.reason
    assert time.process_time() - started_s < 1


def test_a_regular_expression_that_grows_is_an_error_and_grants_nothing() -> None:
    engine = policy_of(
        "effect: allow, actions: [mcp.call], when: \"args.t.matches('((a{1,99}){1,99}){1,99}')\""
    )
    started_s = time.process_time()

    denied(engine, call(args={"t": "a" * 1_000}))

    assert time.process_time() - started_s < 1


def test_loops_over_arguments_end() -> None:
    inner = "args.l.exists(b, args.l.exists(c, args.l.exists(d, a + b + c + d == -1)))"
    engine = policy_of(f"effect: allow, actions: [mcp.call], when: 'args.l.exists(a, {inner})'")
    started_s = time.process_time()

    denied(engine, call(args={"l": list(range(1_000))}))

    assert time.process_time() - started_s < CPU_S_MAX


def test_a_party_of_many_attributes_and_ancestors_is_decided_on_at_once() -> None:
    engine = policy_of("effect: deny, actions: [message.ask], from: {teams: red}")
    parents = tuple(agent_of(f"agent://acme/p{at}", teams=("blue",) * 1_000) for at in range(8))
    subject = agent_of("agent://acme/x", parents, teams=("blue",) * 10_000)
    started_s = time.process_time()

    denied(engine, call(subject=subject))
    assert PLANNER.identifier is not None
    assert engine.trace(call(subject=subject), NOW).decision
    assert time.process_time() - started_s < 1


@pytest.mark.prove
def test_none_of_it_needs_much_memory() -> None:
    """All of the table, in a process that may have no more."""
    code = (
        "from tests.policy.test_hostile_bundles import load_all; import sys; sys.exit(load_all())"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=50)

    assert done.returncode == 0, done.stderr.decode()[-2_000:]


def load_all() -> int:
    """Run within the process that has little memory."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    for make, _ in TEXTS.values():
        try:
            PolicyEngine.load(make(), file="policy.yaml")
        except SidelinkError:
            continue
        return 1
    return 0
