"""Decision vectors on names, prefixes, services, tools and texts that only look alike."""

from typing import Final

from tests.policy.vector_case import Case, asks, asks_name, bundle, calls, registers

BUNDLES: Final[dict[str, str]] = {}
CASES: Final[list[Case]] = []

_PATTERNS: Final[dict[str, dict[str, bool]]] = {
    "agent://acme/billing/main": {
        "agent://acme/billing/main": True,
        "agent://acme/billing/main2": False,
        "agent://acme/billing": False,
        "agent://acme/billing/main/child": False,
        "agent://globex/billing/main": False,
        "agent://acme/main/billing": False,
        "agent://acme/billing.main": False,
    },
    "agent://acme/billing/*": {
        "agent://acme/billing/main": True,
        "agent://acme/billing/x": True,
        "agent://acme/billing": False,
        "agent://acme/billing/main/child": False,
        "agent://acme/billing2/main": False,
        "agent://acme/bill/main": False,
        "agent://acme.billing/x": False,
        "agent://acme-billing/x": False,
    },
    "agent://acme/*/main": {
        "agent://acme/billing/main": True,
        "agent://acme/main/main": True,
        "agent://acme/main": False,
        "agent://acme/a/b/main": False,
        "agent://acme/billing/other": False,
    },
    "agent://acme/**": {
        "agent://acme/x": True,
        "agent://acme/a/b/c/d/e/f/g/h": True,
        "agent://acme2/x": False,
        "agent://acme.eu/x": False,
        "agent://globex/acme/x": False,
    },
    "agent://acme/billing/**": {
        "agent://acme/billing/main": True,
        "agent://acme/billing/a/b/c": True,
        "agent://acme/billing": False,
        "agent://acme/billing-old/main": False,
    },
    "agent://acme/*/**": {
        "agent://acme/a/b": True,
        "agent://acme/a/b/c": True,
        "agent://acme/a": False,
    },
    "agent://acme/*/*": {
        "agent://acme/a/b": True,
        "agent://acme/a": False,
        "agent://acme/a/b/c": False,
    },
}

for _number, (_pattern, _names) in enumerate(_PATTERNS.items()):
    _effect = "allow"
    BUNDLES[f"name {_pattern}"] = bundle(
        f'name: these, effect: allow, actions: [message.ask], to: {{name: "{_pattern}"}}'
    )
    CASES += [
        Case(
            f"{_pattern} {'has' if _met else 'has not'} {_name}",
            f"name {_pattern}",
            asks_name(_name),
            "allow these" if _met else "deny",
        )
        for _name, _met in _names.items()
    ]

# What may be registered under an allow rule, and what a deny rule catches of it.
_ROUTES: Final[dict[str, tuple[dict[str, bool], dict[str, bool]]]] = {
    "agent://acme/east/**": (
        {
            "agent://acme/east": True,
            "agent://acme/east/a": True,
            "agent://acme/east/a/b": True,
            "agent://acme/eastern": False,
            "agent://acme/west": False,
            "agent://globex/east": False,
        },
        {
            "agent://acme/east": True,
            "agent://acme/east/a": True,
            "agent://acme/eastern": False,
            "agent://globex/east/a": False,
        },
    ),
    "agent://acme/east/*": (
        {"agent://acme/east": False, "agent://acme/east/a": False},
        {
            "agent://acme/east": True,
            "agent://acme/east/a": True,
            "agent://acme/east/a/b": False,
            "agent://acme/west": False,
        },
    ),
    "agent://acme/east/a": (
        {
            "agent://acme/east/a": True,
            "agent://acme/east": False,
            "agent://acme/east/a/b": False,
        },
        {
            "agent://acme/east/a": True,
            "agent://acme/east": True,
            "agent://acme/east/b": False,
            "agent://acme/east/a/b": False,
        },
    ),
}

for _pattern, (_granted, _caught) in _ROUTES.items():
    _to = f'to: {{name: "{_pattern}"}}'
    BUNDLES[f"route {_pattern}"] = bundle(
        f"name: routes, effect: allow, actions: [route.register], {_to}",
        "name: nobody else, effect: deny, actions: [hop.admit]",
    )
    BUNDLES[f"no route {_pattern}"] = bundle(
        "name: every route, effect: allow, actions: [route.register]",
        f"name: reserved, effect: deny, actions: [route.register], {_to}",
    )
    CASES += [
        Case(
            f"to allow {_pattern} is {'enough' if _met else 'not enough'} for all of {_prefix}",
            f"route {_pattern}",
            registers(_prefix),
            # The built-in rule wants a node of the gateway's own domain; it is one.
            "allow routes"
            if _met
            else "allow baseline: nodes of the trust domain register their prefixes",
        )
        for _prefix, _met in _granted.items()
    ]
    CASES += [
        Case(
            f"to deny {_pattern} {'catches' if _met else 'does not catch'} {_prefix}",
            f"no route {_pattern}",
            registers(_prefix),
            "deny reserved" if _met else "allow every route",
        )
        for _prefix, _met in _caught.items()
    ]

_TOOLS: Final[dict[str, dict[str, bool]]] = {
    "get_forecast": {
        "get_forecast": True,
        "get_forecasts": False,
        "get_forecas": False,
        "GET_FORECAST": False,
        "get_forecast ": False,
        "get\u200b_forecast": False,
        "g\u0435t_forecast": False,
        "get_*": False,
        "": False,
    },
    "get_*": {
        "get_forecast": True,
        "get_": True,
        "get": False,
        "forget_me": False,
        "get_\n": True,
        "g\u0435t_x": False,
    },
    "*": {"anything": True, "*": True, "": False},
    "[a, 'b_*']": {"a": True, "b_c": True, "c": False, "ab_c": False},
}

for _wanted, _tools in _TOOLS.items():
    _written = _wanted if _wanted.startswith("[") else f'"{_wanted}"'
    BUNDLES[f"tools {_wanted}"] = bundle(
        f"name: tools, effect: allow, actions: [mcp.call], tools: {_written}"
    )
    CASES += [
        Case(
            f"tools {_wanted} {'has' if _met else 'has not'} {_tool!a}",
            f"tools {_wanted}",
            calls(tool=_tool),
            "allow tools" if _met else "deny",
        )
        for _tool, _met in _tools.items()
    ]

BUNDLES["services"] = bundle(
    "name: two, effect: allow, actions: [mcp.call], to: {service: [weather, maps]}"
)
CASES += [
    Case(f"the service {service!a}", "services", calls(service=service), expect)
    for service, expect in {
        "weather": "allow two",
        "maps": "allow two",
        "weather2": "deny",
        "Weather": "deny",
        "we\u0430ther": "deny",
        "": "deny",
    }.items()
]

# Texts of attributes are compared code point by code point: nothing is folded or normalized.
BUNDLES["role"] = bundle(
    "name: caf\u00e9, effect: allow, actions: [message.ask], from: {role: caf\u00e9}",
    "name: no admins, effect: deny, actions: [message.ask], from: {role: admin}",
    "name: others, effect: allow, actions: [message.ask], from: {role: [admin, adm\u0131n, x]}",
)
CASES += [
    Case(f"the role {role!a}: {why}", "role", asks(role=role), expect)
    for role, why, expect in (
        ("caf\u00e9", "as written", "allow caf\u00e9"),
        ("cafe\u0301", "decomposed", "deny"),
        ("CAF\u00c9", "in capitals", "deny"),
        ("cafe", "without the accent", "deny"),
        ("admin", "as written", "deny no admins"),
        ("\u0430dmin", "with a Cyrillic letter", "deny"),
        ("\uff41dmin", "with a fullwidth letter", "deny"),
        ("adm\u0131n", "with a dotless i, which is named for itself", "allow others"),
        ("adm\u0130n", "with a dotted capital", "deny"),
        ("admin\u200d", "with a joiner of no width", "deny"),
        ("\u202eadmin", "written backwards", "deny"),
        ("admin\x00", "with a zero", "deny"),
        (" admin", "with a space", "deny"),
        ("Admin", "with a capital", "deny"),
        ("", "empty", "deny"),
        ("x", "plain", "allow others"),
    )
]
