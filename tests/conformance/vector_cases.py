"""The valid cases of identity's vectors: objects, and what their verifier knows."""

from typing import Any, Final

from identity.cbor import encode
from identity.revocation import GRACE_S
from tests.conformance.vector_changes import ticket_text
from tests.conformance.vector_people import (
    AUTHORITY,
    CHILD,
    DAY_S,
    FINANCE,
    GLOBEX,
    HELPER,
    NODE,
    NOW,
    PLANNER,
    ROTATED,
    SEVENTH,
    STRANGER,
    VERIFIER,
    Somebody,
    child_link,
    helper_link,
    node_link,
    planner_link,
    proof,
)

Case = dict[str, Any]
ANCHORS: Final = [[str(AUTHORITY.identifier), "acme"], [str(GLOBEX.identifier), "globex"]]
GATEWAY: Final = ["gw.acme.example", 7440, NODE.identifier.digest]
TICKET_CODE: Final = bytes(range(16))


def _case(what: str, encoded: bytes | str, **inputs: Any) -> Case:
    text = encoded if isinstance(encoded, str) else encoded.hex()
    return {"what": what, "encoded": text, "inputs": inputs}


def pin_of(who: Somebody, number: int = -1) -> list[Any]:
    change, head = who.pin(number)
    return [change, head.hex()]


def histories() -> list[Case]:
    def case(what: str, who: Somebody, *, change: int, **inputs: Any) -> Case:
        known = {"unix_s": NOW, "change": change, "pin": None, "seen": []}
        return _case(what, who.history, **known | inputs)

    return [
        case("one change", NODE, change=0),
        case(
            "one change, in the minute before it is made",
            NODE,
            change=0,
            unix_s=NOW - DAY_S - 30,
        ),
        case("two changes", PLANNER, change=1),
        case("the replaced key of two changes, within its overlap", PLANNER, change=0),
        case("eight changes", SEVENTH, change=7),
        case("a history that is longer than its pin", PLANNER, change=1, pin=pin_of(PLANNER, 0)),
        case(
            "a history that is as long as what was seen of it",
            PLANNER,
            change=1,
            seen=[[str(PLANNER.identifier), *pin_of(PLANNER)]],
        ),
    ]


def attestations() -> list[Case]:
    def case(what: str, who: Somebody, **options: Any) -> Case:
        return _case(what, who.attestation(**options), unix_s=NOW, history=who.history.hex())

    return [
        case("of a channel's key", NODE),
        case("of a hop's key", NODE, purpose="hop"),
        case("by the replaced key, within its overlap", PLANNER, by=0),
    ]


def credentials() -> list[Case]:
    def case(what: str, issuer: Somebody, link: list[bytes]) -> Case:
        return _case(what, link[0], unix_s=NOW, issuer_history=issuer.history.hex())

    every_kind = {"text": "é", "least": -(2**63), "most": 2**63 - 1, "no": False, "list": ["a"]}
    return [
        case("of a sidecar", AUTHORITY, node_link()),
        case("of a gateway", AUTHORITY, node_link(role="gateway", delegable=None)),
        case("of an agent that may delegate", NODE, planner_link()),
        case(
            "with an attribute of each type",
            NODE,
            NODE.link(HELPER, f"{FINANCE}/x", attributes=every_kind),
        ),
        case("by the authority's replaced key", AUTHORITY, node_link(by=0)),
    ]


def proofs() -> list[Case]:
    def case(what: str, who: Somebody, encoded: bytes, **inputs: Any) -> Case:
        known = {
            "purpose": "channel",
            "noise_key": who.noise.public.raw.hex(),
            "unix_s": NOW,
            "own": str(VERIFIER.identifier),
            "anchors": ANCHORS,
            "chain_links_max": 4,
            "lists": [],
            "lists_unix_s": NOW,
            "grace_s": GRACE_S,
            "seen": [],
        }
        return _case(what, encoded, **known | inputs)

    above_planner = planner_link(), node_link()
    above_helper = helper_link(), *above_planner
    lists = [AUTHORITY.revocations(STRANGER).hex()]
    return [
        case("an authority", AUTHORITY, proof(AUTHORITY)),
        case("somebody without a credential", STRANGER, proof(STRANGER)),
        case("as many signatures as may be", SEVENTH, proof(SEVENTH)),
        case("a node", NODE, proof(NODE, node_link())),
        case("a node on a hop", NODE, proof(NODE, node_link(), purpose="hop"), purpose="hop"),
        case("a node of the authority's replaced key", NODE, proof(NODE, node_link(by=0))),
        case("an agent", PLANNER, proof(PLANNER, *above_planner)),
        case(
            "an agent whose new key is announced, and not used yet",
            PLANNER,
            proof(PLANNER, *above_planner, by=0),
        ),
        case(
            "an agent whose credential pins its newest key",
            PLANNER,
            proof(PLANNER, _pinned(PLANNER), node_link()),
        ),
        case(
            "an agent of which its newest key was seen",
            PLANNER,
            proof(PLANNER, *above_planner),
            seen=[[str(PLANNER.identifier), *pin_of(PLANNER)]],
        ),
        case("a subagent", HELPER, proof(HELPER, *above_helper)),
        case("a subagent's child", CHILD, proof(CHILD, child_link(), *above_helper)),
        case(
            "an agent of whom another authority says something too",
            PLANNER,
            proof(PLANNER, *above_planner, further=[[globex_link(PLANNER)]]),
        ),
        case(
            "an agent of whom somebody says something who is not trusted",
            PLANNER,
            proof(PLANNER, *above_planner, further=[[_by_a_stranger(PLANNER)]]),
        ),
        case("a node beside a list of others", NODE, proof(NODE, node_link()), lists=lists),
    ]


def _pinned(who: Somebody) -> list[bytes]:
    return NODE.link(who, f"{FINANCE}/planner", pin=who.pin())


def globex_link(who: Somebody, **claims: Any) -> list[bytes]:
    known = {"aud": "globex", "attributes": {"partner": True}}
    return GLOBEX.link(who, "agent://globex/partners/acme", **known | claims)


def _by_a_stranger(who: Somebody) -> list[bytes]:
    return STRANGER.link(who, "agent://elsewhere/x", aud="elsewhere", attributes={"x": 1})


def revocations() -> list[Case]:
    def case(what: str, encoded: bytes, **inputs: Any) -> Case:
        known = {"unix_s": NOW, "anchors": ANCHORS, "known": None, "seen": []}
        return _case(what, encoded, **known | inputs)

    two = AUTHORITY.revocations(NODE, HELPER)
    return [
        case("of nobody", AUTHORITY.revocations()),
        case("of two", two),
        case("of the authority's replaced key", AUTHORITY.revocations(NODE, by=0)),
        case(
            "newer than what is held",
            AUTHORITY.revocations(NODE, HELPER, _4=NOW + 1),
            known=two.hex(),
        ),
        case("what is held", two, known=two.hex()),
        case("of another authority", GLOBEX.revocations(_2="globex")),
    ]


BASE: Final = ["base.yaml", "rules: []\n"]
MORE: Final = ["more.yaml", "# höher ☃\n"]
_LONGER: Final = AUTHORITY.history_with((*AUTHORITY.keys, STRANGER.keys[0]))
MANDATE: Final = AUTHORITY.mandate(PLANNER, HELPER)


def policy(mandate: bytes, bundle: bytes, *signer: Somebody) -> bytes:
    """Of the authority of acme. ``signer`` is who has signed the bundle, if it has not."""
    return encode([mandate, AUTHORITY.history, bundle, *(one.history for one in signer)])


def own_policy(*files: list[str], number: int = NOW) -> bytes:
    """What the authority itself publishes."""
    return policy(MANDATE, AUTHORITY.bundle(AUTHORITY, *files, _3=number))


def _policy_case(what: str, encoded: bytes, **inputs: Any) -> Case:
    known = {
        "unix_s": NOW,
        "anchors": ANCHORS,
        "authority": str(AUTHORITY.identifier),
        "held": None,
        "list": None,
        "seen": [],
    }
    return _case(what, encoded, **known | inputs)


def policies() -> list[Case]:
    return [*_policies_by_the_authority(), *_policies_by_a_signer(), *_policies_over_another()]


_OWN_POLICY: Final = own_policy(BASE, MORE)
_HELPERS_POLICY: Final = policy(MANDATE, HELPER.bundle(AUTHORITY, BASE, _3=NOW + 1), HELPER)


def _policies_by_the_authority() -> list[Case]:
    return [
        _policy_case("by the authority", _OWN_POLICY),
        _policy_case("of no files", own_policy()),
        _policy_case("of numbers a day ahead", _numbered(NOW + DAY_S)),
        _policy_case("of number 1", _numbered(1)),
        _policy_case("of a text that is empty", own_policy(["empty.yaml", ""])),
        _policy_case(
            "under a mandate that names nobody",
            policy(AUTHORITY.mandate(), AUTHORITY.bundle(AUTHORITY, BASE)),
        ),
        _policy_case(
            "by the authority's replaced key",
            policy(
                AUTHORITY.mandate(PLANNER, HELPER, by=0),
                AUTHORITY.bundle(AUTHORITY, BASE, by=0),
            ),
        ),
        _policy_case(
            "by the authority's replaced key, under a mandate by its new one",
            policy(MANDATE, AUTHORITY.bundle(AUTHORITY, BASE, by=0)),
        ),
        _policy_case(
            "by the authority, of which its newest key was seen",
            _OWN_POLICY,
            seen=[[str(AUTHORITY.identifier), *pin_of(AUTHORITY)]],
        ),
        _policy_case(
            "of another authority",
            _globex_policy(),
            authority=str(GLOBEX.identifier),
        ),
        _policy_case(
            "beside a list that is out of date",
            _OWN_POLICY,
            list=AUTHORITY.revocations(_5=NOW - 40 * DAY_S, _6=NOW - 39 * DAY_S).hex(),
        ),
    ]


def _policies_by_a_signer() -> list[Case]:
    by_planner = policy(MANDATE, PLANNER.bundle(AUTHORITY, BASE), PLANNER)
    return [
        _policy_case("by a signer", _HELPERS_POLICY),
        _policy_case("by a signer's new key", by_planner),
        _policy_case(
            "by a signer's replaced key",
            policy(MANDATE, PLANNER.bundle(AUTHORITY, BASE, by=0), PLANNER),
        ),
        _policy_case(
            "by a signer of which its newest key was seen",
            by_planner,
            seen=[[str(PLANNER.identifier), *pin_of(PLANNER)]],
        ),
        _policy_case(
            "by a signer whose key was replaced 32 times",
            policy(AUTHORITY.mandate(ROTATED), ROTATED.bundle(AUTHORITY, BASE), ROTATED),
        ),
        _policy_case(
            "by a signer, beside a list of others",
            _HELPERS_POLICY,
            list=AUTHORITY.revocations(PLANNER, STRANGER).hex(),
        ),
        _policy_case(
            "by a signer whom another authority has revoked",
            _HELPERS_POLICY,
            list=GLOBEX.revocations(HELPER, _2="globex").hex(),
        ),
    ]


def _policies_over_another() -> list[Case]:
    return [
        _policy_case("what is held", _OWN_POLICY, held=_OWN_POLICY.hex()),
        _policy_case(
            "newer than what is held", own_policy(BASE, number=NOW + 1), held=_OWN_POLICY.hex()
        ),
        _policy_case(
            "newer than what is held, under a newer mandate",
            policy(
                AUTHORITY.mandate(HELPER, _3=NOW + 1),
                AUTHORITY.bundle(AUTHORITY, BASE, _3=NOW + 1),
            ),
            held=_OWN_POLICY.hex(),
        ),
        _policy_case(
            "under a newer mandate, over a signer's of a higher number",
            _numbered(NOW + 1),
            held=policy(MANDATE, HELPER.bundle(AUTHORITY, BASE, _3=NOW + 9), HELPER).hex(),
        ),
        _policy_case(
            "the authority's replaced key over what its new one signed",
            policy(
                AUTHORITY.mandate(PLANNER, HELPER, by=0),
                AUTHORITY.bundle(AUTHORITY, BASE, by=0, _3=NOW + 1),
            ),
            held=_OWN_POLICY.hex(),
        ),
        _policy_case(
            "newer than what is held, beside a longer history of the authority",
            encode([MANDATE, _LONGER, AUTHORITY.bundle(AUTHORITY, BASE, _3=NOW + 1)]),
            held=_OWN_POLICY.hex(),
        ),
        _policy_case(
            "by a signer, under the mandate that is held", _HELPERS_POLICY, held=_OWN_POLICY.hex()
        ),
        _policy_case(
            "by the authority, over a signer's",
            own_policy(number=NOW + 2),
            held=_HELPERS_POLICY.hex(),
        ),
    ]


def _numbered(number: int) -> bytes:
    return policy(AUTHORITY.mandate(_3=number), AUTHORITY.bundle(AUTHORITY, BASE, _3=number))


def _globex_policy() -> bytes:
    mandate = GLOBEX.mandate(_2="globex")
    return encode([mandate, GLOBEX.history, GLOBEX.bundle(GLOBEX, BASE, _2="globex")])


def tickets() -> list[Case]:
    def text(gateways: list[Any]) -> str:
        fields = _place(gateways) | {4: TICKET_CODE, 5: NOW + DAY_S}
        return "slt1" + ticket_text(encode(fields))

    version_6 = ["2001:db8::7", 65_535, NODE.identifier.digest]
    return [
        _case("for one gateway", text([GATEWAY])),
        _case("of a gateway itself", text([])),
        _case("for two gateways, with white space round it", f" {text([GATEWAY, version_6])}\r\n"),
    ]


def invitations() -> list[Case]:
    return [_case("to one gateway", "sli1" + ticket_text(encode(_place([GATEWAY]))))]


def _place(gateways: list[Any]) -> dict[int, Any]:
    return {1: "acme", 2: AUTHORITY.identifier.digest, 3: gateways}
