"""Decision vectors on resources, prompts and results: what servers of MCP give out."""

from typing import Any, Final

from tests.policy.vector_case import Case, bundle, prompts, reads, results

BUNDLES: Final[dict[str, str]] = {}
CASES: Final[list[Case]] = []

# By what is listed: URIs, whether they are allowed, and whether a rule that denies catches them.
# A URI that a server could tidy up into another one is allowed by no list and caught by each.
_RESOURCES: Final[dict[str, dict[str, tuple[bool, bool]]]] = {
    "file:///docs/*": {
        "file:///docs/a.md": (True, True),
        "file:///docs/": (True, True),
        "file:///docs/a/b?page=2": (True, True),
        "file:///docs": (False, False),
        "file:///documents/a": (False, False),
        "https://docs/a": (False, False),
        "file:///docs/../etc/shadow": (False, True),
        "file:///docs/./a": (False, True),
        "file:///docs/..": (False, True),
        "file:///docs/%2e%2e/etc/shadow": (False, True),
        "file:///docs/..%2fetc": (False, True),
        "file:///docs/a%2fb": (False, True),
        "file:///docs/a%5cb": (False, True),
        "file:///docs/%252e%252e/x": (False, True),
        "file:///docs\\..\\x": (False, True),
        "FILE:///docs/a": (False, True),
        "file:///docs/a b": (False, True),
        "file:///docs/a\n": (False, True),
        "file:///d\u043ecs/a": (False, False),
        "/docs/a": (False, True),
        "": (False, True),
    },
    "https://wiki.acme.example/*": {
        "https://wiki.acme.example/page": (True, True),
        "https://wiki.acme.example.evil.example/page": (False, False),
        "https://wiki.acme.example@evil.example/page": (False, True),
        "https://WIKI.acme.example/page": (False, True),
        "http://wiki.acme.example/page": (False, False),
    },
    "memo:today": {"memo:today": (True, True), "memo:todays": (False, False)},
}

for _listed, _uris in _RESOURCES.items():
    BUNDLES[f"resources {_listed}"] = bundle(
        f'name: these, effect: allow, actions: [mcp.read], resources: "{_listed}"'
    )
    BUNDLES[f"not resources {_listed}"] = bundle(
        "name: all, effect: allow, actions: [mcp.read]",
        f'name: not these, effect: deny, actions: [mcp.read], resources: "{_listed}"',
    )
    for _uri, (_allowed, _caught) in _uris.items():
        CASES.append(
            Case(
                f"resources {_listed}: {_uri!a}",
                f"resources {_listed}",
                reads(_uri),
                "allow these" if _allowed else "deny",
            )
        )
        CASES.append(
            Case(
                f"not resources {_listed}: {_uri!a}",
                f"not resources {_listed}",
                reads(_uri),
                "deny not these" if _caught else "allow all",
            )
        )

BUNDLES["prompts"] = bundle(
    "name: reviews, effect: allow, actions: [mcp.prompt], prompts: ['review_*', summary], "
    "when: \"args.language in ['de', 'en']\""
)
CASES += [
    Case(f"the prompt {prompt!a} with {args!r}", "prompts", prompts(prompt, args), expect)
    for prompt, args, expect in (
        ("review_code", {"language": "en"}, "allow reviews"),
        ("summary", {"language": "de"}, "allow reviews"),
        ("summary", {"language": "fr"}, "deny"),
        ("summary", {}, "deny"),
        ("summaries", {"language": "en"}, "deny"),
        ("review", {"language": "en"}, "deny"),
    )
]

# The permit of a call covers its result, unless a rule denies it for what it holds.
BUNDLES["results"] = bundle(
    "name: calls, effect: allow, actions: [mcp.call]",
    "name: nothing large, effect: deny, actions: [mcp.result], "
    'when: "result.structuredContent.total > 100"',
)
BUNDLES["results of a day"] = bundle(
    "name: calls, effect: allow, actions: [mcp.call], when: args.days == 1",
)
_TOTAL: Final[dict[str, Any]] = {"structuredContent": {"total": 100}}
CASES += [
    Case("a result within what is allowed", "results", results(_TOTAL), "allow calls"),
    Case(
        "a result beyond it",
        "results",
        results({"structuredContent": {"total": 101}}),
        "deny nothing large",
    ),
    Case(
        "a result of another shape denies",
        "results",
        results({"content": []}),
        "deny nothing large",
    ),
    Case(
        "a result of a permitted call", "results of a day", results({}, {"days": 1}), "allow calls"
    ),
    Case("a result of another call", "results of a day", results({}, {"days": 2}), "deny"),
]
