"""Those that are asked, behind one call: from the number of a request to yes or no."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from bench.policy.cases import (
    SIZE_MAX,
    UNIX_S,
    Ask,
    clearance_of,
    policy_files,
    request_of,
)
from policy import Permit, PolicyEngine
from sidecar.decisions import SidecarDecisions

Decide = Callable[[int], bool]

OURS: Final = "sidelink"
CACHED: Final = "sidelink, cached permit"
CEDAR: Final = "cedarpy"
CEL: Final = "common-expression-language"
PYTHON: Final = "Python predicates"


def ours(rules: int, asks: Sequence[Ask]) -> Decide:
    engine = PolicyEngine.load_bundle(policy_files(rules))
    requests = [request_of(ask) for ask in asks]
    return lambda at: isinstance(engine.decide(requests[at], UNIX_S), Permit)


def cached(rules: int, asks: Sequence[Ask]) -> Decide:
    """What a sidecar asks before each further message of a channel that has a permit."""
    engine = PolicyEngine.load_bundle(policy_files(rules))
    requests = [request_of(ask) for ask in asks]
    answers = [engine.decide(request, UNIX_S) for request in requests]
    permits = [answer if isinstance(answer, Permit) else None for answer in answers]
    decisions = SidecarDecisions(
        lambda request, expires_unix_s=None: engine.decide(request, UNIX_S),
        lambda request, what, expires_unix_s=None: engine.decide(request, UNIX_S),
        lambda request: engine.could_allow(request, UNIX_S),
        lambda: engine.version,
    )
    sizes = [ask.size_bytes for ask in asks]
    return lambda at: decisions.still_holds(permits[at], sizes[at], UNIX_S)


def cedar(rules: int, asks: Sequence[Ask]) -> Decide:
    """Policies and entities are parsed beforehand: only decisions are counted."""
    import cedarpy

    policies = cedarpy.PolicySet.from_str("\n".join(map(_cedar_policy, range(rules))))
    prepared = [(_cedar_request(ask), _cedar_entities(cedarpy, ask)) for ask in asks]

    def decide(at: int) -> bool:
        request, entities = prepared[at]
        return bool(cedarpy.is_authorized(request, policies, entities).allowed)

    return decide


def _cedar_policy(number: int) -> str:
    return f"""\
permit(principal, action == Action::"message.ask", resource in Team::"team{number}")
when {{
  principal.trust_domain == "acme" && principal.role == "role{number}"
  && context.size < {SIZE_MAX} && principal.clearance >= {clearance_of(number)}
}};"""


def _cedar_request(ask: Ask) -> dict[str, Any]:
    return {
        "principal": {"type": "Agent", "id": "asker"},
        "action": {"type": "Action", "id": "message.ask"},
        "resource": {"type": "Agent", "id": f"{ask.team}/main"},
        "context": {"size": ask.size_bytes},
    }


def _cedar_entities(cedarpy: Any, ask: Ask) -> Any:
    import json

    attributes = {"trust_domain": "acme", "role": ask.role, "clearance": ask.clearance}
    team = {"type": "Team", "id": ask.team}
    return cedarpy.Entities.from_json_str(
        json.dumps(
            [
                {"uid": {"type": "Agent", "id": "asker"}, "attrs": attributes, "parents": []},
                {
                    "uid": {"type": "Agent", "id": f"{ask.team}/main"},
                    "attrs": {},
                    "parents": [team],
                },
                {"uid": team, "attrs": {}, "parents": []},
            ]
        )
    )


def cel(rules: int, asks: Sequence[Ask]) -> Decide:
    """One expression for each rule, and each is asked until one says yes."""
    from cel import compile as compile_cel

    programs = [compile_cel(_cel_rule(number)) for number in range(rules)]
    contexts = [_context(ask) for ask in asks]

    def decide(at: int) -> bool:
        context = contexts[at]
        return any(program.execute(context) is True for program in programs)

    return decide


def _cel_rule(number: int) -> str:
    return (
        f"action == 'message.ask' && subject.trust_domain == 'acme' "
        f"&& subject.role == 'role{number}' && object.name.startsWith('agent://acme/team{number}/')"
        f" && message.size < {SIZE_MAX} && subject.clearance >= {clearance_of(number)}"
    )


def _context(ask: Ask) -> dict[str, Any]:
    return {
        "action": "message.ask",
        "subject": {"trust_domain": "acme", "role": ask.role, "clearance": ask.clearance},
        "object": {"name": f"agent://acme/{ask.team}/main"},
        "message": {"size": ask.size_bytes},
    }


def python(rules: int, asks: Sequence[Ask]) -> Decide:
    """What one would write by hand: a function for each rule, and each is asked."""
    predicates = [_predicate(number) for number in range(rules)]
    contexts = [_context(ask) for ask in asks]

    def decide(at: int) -> bool:
        context = contexts[at]
        return any(predicate(context) for predicate in predicates)

    return decide


def _predicate(number: int) -> Callable[[dict[str, Any]], bool]:
    role, below, least = f"role{number}", f"agent://acme/team{number}/", clearance_of(number)

    def holds(context: dict[str, Any]) -> bool:
        subject = context["subject"]
        return bool(
            context["action"] == "message.ask"
            and subject["trust_domain"] == "acme"
            and subject["role"] == role
            and context["object"]["name"].startswith(below)
            and context["message"]["size"] < SIZE_MAX
            and subject["clearance"] >= least
        )

    return holds


SYSTEMS: Final[dict[str, Callable[[int, Sequence[Ask]], Decide]]] = {
    OURS: ours,
    CACHED: cached,
    CEDAR: cedar,
    CEL: cel,
    PYTHON: python,
}

SHORT_NAMES: Final = {
    "ours": OURS,
    "ours-cached": CACHED,
    "cedar": CEDAR,
    "cel": CEL,
    "python": PYTHON,
}
"""As the command line has them."""
