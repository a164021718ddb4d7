"""What is asked of every system alike: so many rules, and requests of which some are denied.

Each rule lets agents of one role ask those below one name, if they are cleared and brief.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from identity import AgentUri, Identifier
from policy import Action, Party, PolicySource, Request

SIZE_MAX: Final = 65_536
CLEARANCES: Final = 7
REQUESTS: Final = 512
RULES_OF_ONE_FILE: Final = 1_000
UNIX_S: Final = 1_800_000_000.0
TOP: Final = """\
apiVersion: sidelink/v1
kind: Policy
attributes: {role: text, clearance: int}
rules:
"""


@dataclass(frozen=True, slots=True)
class Ask:
    """An agent of ``role`` and ``clearance`` asks agent ``number`` of a team."""

    role: str
    clearance: int
    team: str
    size_bytes: int


def clearance_of(number: int) -> int:
    return number % CLEARANCES


def some_asks(rules: int) -> Sequence[Ask]:
    """Three of four are allowed. The others are of the wrong team, or not cleared."""
    chance = Random(rules)
    asks = []
    for at in range(REQUESTS):
        number = chance.randrange(rules)
        team, clearance = f"team{number}", CLEARANCES
        if at % 8 == 0:
            team = f"team{number + 1}"
        elif at % 8 == 1:
            clearance = clearance_of(number) - 1
        asks.append(Ask(f"role{number}", clearance, team, chance.randrange(SIZE_MAX)))
    return asks


def policy_files(rules: int) -> Sequence[PolicySource]:
    files = []
    for start in range(0, rules, RULES_OF_ONE_FILE):
        numbers = range(start, min(rules, start + RULES_OF_ONE_FILE))
        text = TOP + "".join(map(_rule, numbers))
        files.append(PolicySource(f"{start}.yaml", text))
    return files


def _rule(number: int) -> str:
    return f"""\
  - name: rule {number}
    effect: allow
    actions: [message.ask]
    from: {{trust_domain: acme, role: role{number}}}
    to: {{name: "agent://acme/team{number}/*"}}
    when: message.size < {SIZE_MAX} && subject.clearance >= {clearance_of(number)}
"""


def request_of(ask: Ask) -> Request:
    subject = _party("asker", {"role": ask.role, "clearance": ask.clearance})
    return Request(
        Action.MESSAGE_ASK, subject, _party(f"{ask.team}/main", {}), message_bytes=ask.size_bytes
    )


def _party(path: str, attributes: dict[str, str | int]) -> Party:
    node = Party(
        identifier=Identifier(bytes(32)),
        name=AgentUri.in_domain("acme", "node"),
        kind="node",
        role_of_node="sidecar",
        trust_domain="acme",
        issuer=Identifier(bytes([1]) * 32),
        attributes={},
    )
    return Party(
        identifier=Identifier(bytes([2]) * 32),
        name=AgentUri.in_domain("acme", path),
        kind="agent",
        role_of_node=None,
        trust_domain="acme",
        issuer=node.identifier,
        attributes=attributes,
        ancestors=(node,),
    )
