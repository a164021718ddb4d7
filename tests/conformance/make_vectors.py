"""Makes conformance/vectors/identity-1, policies-1 and proofs-1; a test makes them again.

.venv/bin/python -m tests.conformance.make_vectors
"""

import json
from typing import Any, Final

from conformance import vector_path
from tests.conformance import (
    vector_cases,
    vector_edges,
    vector_wrong_objects,
    vector_wrong_policies,
    vector_wrong_proofs,
)
from tests.conformance.vector_changes import Changer
from tests.conformance.vector_judge import JUDGES, TEXTS, judge
from tests.conformance.vector_people import PEOPLE, PUBLISHING

ABOUT: Final = (
    "How to read this file: conformance/README.md. Every `valid` case verifies to what it `gives`; "
    "every `invalid` one is the valid case `of` that name with the one `change` that it states, "
    "and is refused with this code."
)
FILES: Final = {
    "identity-1": tuple(section for section in JUDGES if section not in ("policies", "proofs")),
    "policies-1": ("policies",),
    "proofs-1": ("proofs",),
}
_PEOPLE: Final = {"identity-1": PEOPLE, "policies-1": PUBLISHING, "proofs-1": PEOPLE}
_WRONG: Final = {
    "histories": vector_wrong_objects.HISTORIES,
    "attestations": vector_wrong_objects.ATTESTATIONS,
    "credentials": vector_wrong_objects.CREDENTIALS,
    "proofs": vector_wrong_proofs.PROOFS,
    "revocations": vector_wrong_objects.REVOCATIONS,
    "tickets": vector_wrong_objects.TICKETS,
    "invitations": vector_wrong_objects.INVITATIONS,
    "policies": vector_wrong_policies.POLICIES,
}
_CHANGER: Final = Changer([key for who in {*PEOPLE, *PUBLISHING} for key in who.keys])


def make(name: str) -> dict[str, Any]:
    people = {
        who.name: {
            "identifier": str(who.identifier),
            "signing_keys": [key.private_bytes().hex() for key in who.keys],
            "noise_key": who.noise.private_bytes().hex(),
            "history": who.history.hex(),
        }
        for who in _PEOPLE[name]
    }
    sections = {section: _section(section) for section in FILES[name]}
    return {"about": ABOUT, "people": people} | sections


def _section(section: str) -> dict[str, Any]:
    valid = getattr(vector_cases, section)()
    known = {case["what"]: case for case in valid}
    valid += [
        {"what": what} | _changed(section, known[of], change)
        for what, of, change in vector_edges.EDGES[section]
    ]
    assert len({case["what"] for case in valid}) == len(valid)
    return {
        "valid": [case | {"gives": judge(section, case)} for case in valid],
        "invalid": [
            {"why": why, "of": of, "change": change}
            | _changed(section, known[of], change)
            | {"code": [int(code), code.text]}
            for why, of, change, code in _WRONG[section]
        ],
    }


def _changed(section: str, base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    inputs = dict(base["inputs"])
    if "input" in change:
        assert change["input"] in inputs
        inputs[change["input"]] = change["to"]
    if section in TEXTS:
        encoded = _CHANGER.apply_to_ticket(base["encoded"], change)
    else:
        encoded = _CHANGER.apply(bytes.fromhex(base["encoded"]), change).hex()
    return {"encoded": encoded, "inputs": inputs}


def printed(name: str) -> str:
    return json.dumps(make(name), indent=1) + "\n"


if __name__ == "__main__":
    for file in FILES:
        vector_path(file).write_text(printed(file))
