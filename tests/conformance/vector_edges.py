"""Valid cases that are as far as they may go: a limit that is off by one refuses them.

Each row: what it is, the valid case that it is made of, and the change.
"""

from collections.abc import Mapping
from typing import Any, Final

from identity.cbor import decode_untrusted
from tests.conformance.vector_changes import OPEN, give, set_at, text_at
from tests.conformance.vector_people import ATTRIBUTES, AUTHORITY, DAY_S, NOW

Edge = tuple[str, str, dict[str, Any]]

_ATTESTED: Final = "of a channel's key"
_PAYLOAD: Final = (2, OPEN)
_LIST: Final = (0, OPEN, 2, OPEN)
_NOT_BEFORE: Final = NOW - DAY_S // 2
_SIXTY_FOUR: Final = {f"n{number}": number for number in range(64)}
_SIXTY_FOUR_FILES: Final = [[f"{number:02}", ""] for number in range(64)]
_THIRTY_TWO: Final = b"".join(bytes([number]) * 32 for number in range(32))
_AUTHORITY_FIRST: Final = decode_untrusted(AUTHORITY.history, bytes_max=1 << 16)[:1]


def _mandate(key: int, to: Any) -> dict[str, Any]:
    return set_at(0, OPEN, 2, OPEN, key, to=to)


def _bundle(key: int, to: Any) -> dict[str, Any]:
    return set_at(2, OPEN, 2, OPEN, key, to=to)


EDGES: Final[Mapping[str, list[Edge]]] = {
    "histories": [
        ("a change a minute from now", "one change", give("unix_s", NOW - DAY_S - 60)),
        ("two changes of one second", "two changes", set_at(1, 0, OPEN, 4, to=NOW - 2 * DAY_S)),
        (
            "the replaced key in the last second of its overlap",
            "the replaced key of two changes, within its overlap",
            give("unix_s", NOW + 29 * DAY_S - 1),
        ),
    ],
    "attestations": [
        ("a minute before its time", _ATTESTED, give("unix_s", _NOT_BEFORE - 60)),
        ("in its last second", _ATTESTED, give("unix_s", NOW + 29 * DAY_S - 1)),
        ("of 90 days", _ATTESTED, set_at(*_PAYLOAD, 6, to=_NOT_BEFORE + 90 * DAY_S)),
    ],
    "credentials": [
        ("a minute before its time", "of a sidecar", give("unix_s", NOW - 120)),
        ("in its last second", "of a sidecar", give("unix_s", NOW + 10 * DAY_S - 1)),
        ("64 attributes", "of a sidecar", set_at(*_PAYLOAD, ATTRIBUTES, to=_SIXTY_FOUR)),
    ],
    "proofs": [
        (
            "an agent for as long as its node may make it, to the second",
            "an agent",
            set_at(3, 0, 0, OPEN, 2, OPEN, 5, to=NOW - 23 * DAY_S),
        ),
        (
            "an agent for as long as its node is one, to the second",
            "an agent",
            set_at(3, 0, 0, OPEN, 2, OPEN, 4, to=NOW + 10 * DAY_S),
        ),
    ],
    "revocations": [
        ("issued in a minute", "of two", give("unix_s", NOW - 60)),
        ("of a number a day ahead", "of two", set_at(*_LIST, 4, to=NOW + DAY_S)),
        ("good for 30 days", "of two", set_at(*_LIST, 6, to=NOW + 30 * DAY_S)),
        ("good for a second", "of two", set_at(*_LIST, 6, to=NOW + 1)),
    ],
    "policies": [
        ("issued in a minute", "by the authority", give("unix_s", NOW - 60)),
        ("a bundle of a number a day ahead", "by the authority", _bundle(3, NOW + DAY_S)),
        ("a signer's number an hour ahead", "by a signer", _bundle(3, NOW + 3_600)),
        ("a mandate of number 1", "by the authority", _mandate(3, 1)),
        ("32 signers", "by the authority", _mandate(6, _THIRTY_TWO)),
        ("64 files", "by the authority", _bundle(7, _SIXTY_FOUR_FILES)),
        ("a name of 128 characters", "by the authority", _bundle(7, [["n" * 128, ""]])),
        (
            "names of all characters there are, in the order of their code points",
            "by the authority",
            _bundle(7, [["0-.a", ""], ["B", ""], ["_", ""], ["a.yaml", ""], ["a_", ""]]),
        ),
        (
            "the authority's replaced key in the last second of its overlap",
            "by the authority's replaced key",
            give("unix_s", NOW + 29 * DAY_S - 1),
        ),
        (
            "a signer's replaced key in the last second of its overlap",
            "by a signer's replaced key",
            give("unix_s", NOW + 29 * DAY_S - 1),
        ),
        (
            "a shorter history of the authority than is known, by a key within its overlap",
            "the authority's replaced key over what its new one signed",
            set_at(1, OPEN, to=_AUTHORITY_FIRST),
        ),
    ],
    "tickets": [
        ("8192 characters", "for one gateway", text_at(0, 0, " " * 8020)),
        ("for 16 gateways", "for one gateway", set_at(3, to=[["a", 1, bytes(32)]] * 16)),
    ],
    "invitations": [],
}
