"""What is wrong with signed policies: one change of a valid one each.

Rows as in vector_wrong_objects. Where a mandate and a bundle are read alike, each is wrong once.
"""

from typing import Any, Final

from identity import Code
from tests.conformance.vector_cases import ANCHORS, BASE, MANDATE, MORE, own_policy, policy
from tests.conformance.vector_changes import (
    OPEN,
    give,
    remove_at,
    set_at,
    splice_at,
    unsigned,
)
from tests.conformance.vector_people import (
    AUTHORITY,
    DAY_S,
    GLOBEX,
    HELPER,
    NODE,
    NOW,
    PLANNER,
    ROTATED,
    STRANGER,
)
from tests.conformance.vector_wrong_objects import YEAR_10000, Row, flipped, opened, respelled

_INVALID: Final = Code.POLICY_BUNDLE_INVALID
_OUTDATED: Final = Code.POLICY_BUNDLE_OUTDATED
_HISTORY: Final = Code.CHANNEL_HISTORY_INVALID
_OWN: Final = "by the authority"
_SIGNER: Final = "by a signer"
_NEW_KEY: Final = "by a signer's new key"
_NEWER: Final = "newer than what is held"
_UNDER_HELD: Final = "by a signer, under the mandate that is held"
_MANDATE: Final = (0, OPEN, 2, OPEN)
_BUNDLE: Final = (2, OPEN, 2, OPEN)
_FILES: Final = (*_BUNDLE, 7)

_SIGNERS: Final = opened(opened(MANDATE)[2])[6]
_MANDATE_HEADER: Final = opened(MANDATE)[0]
_BUNDLE_MESSAGE: Final = opened(AUTHORITY.bundle(AUTHORITY, BASE, MORE))
_AND_OWN: Final = b"".join(sorted((AUTHORITY.identifier.digest, HELPER.identifier.digest)))
_THIRTY_THREE: Final = b"".join(bytes([number]) * 32 for number in range(33))


def _mandate(key: int, to: Any) -> dict[str, Any]:
    return set_at(*_MANDATE, key, to=to)


def _bundle(key: int, to: Any) -> dict[str, Any]:
    return set_at(*_BUNDLE, key, to=to)


_SHAPES: Final[list[Row]] = [
    ("a byte behind it", _OWN, splice_at(begin=len(own_policy(BASE, MORE)), put="00"), _INVALID),
    ("no bundle", _OWN, remove_at(2), _INVALID),
    ("a fifth part", _SIGNER, set_at(4, to=b""), _INVALID),
    ("a mandate of 2049 bytes", _OWN, set_at(0, to=bytes(2049)), _INVALID),
    ("a bundle that is text", _OWN, set_at(2, to="x"), _INVALID),
    ("an authority's history that is an array", _OWN, set_at(1, to=[]), _INVALID),
    ("a signer's history that is null", _SIGNER, set_at(3, to=None), _INVALID),
    ("an authority's history that is torn", _OWN, splice_at(1, begin=300, drop=46), _HISTORY),
    ("a signer's history that is empty", _SIGNER, set_at(3, to=b""), _HISTORY),
    ("the authority's history twice", _OWN, set_at(3, to=AUTHORITY.history), _INVALID),
    (
        "a mandate of the type of a bundle",
        _OWN,
        set_at(0, OPEN, 0, to=_BUNDLE_MESSAGE[0]),
        _INVALID,
    ),
    ("a bundle of the type of a mandate", _OWN, set_at(2, OPEN, 0, to=_MANDATE_HEADER), _INVALID),
    ("a mandate with an unprotected header", _OWN, set_at(0, OPEN, 1, 4, to=b"k"), _INVALID),
    ("a mandate without a signature", _OWN, remove_at(0, OPEN, 3), _INVALID),
    ("a bundle whose payload is a map", _OWN, set_at(2, OPEN, 2, to={}), _INVALID),
    ("a bundle's signature of 65 bytes", _OWN, set_at(2, OPEN, 3, to=bytes(65)), _INVALID),
]


_HEADS: Final[list[Row]] = [
    (
        "a mandate's key in more bytes than it needs",
        _OWN,
        splice_at(0, OPEN, 2, begin=1, drop=1, put="1801"),
        _INVALID,
    ),
    ("a mandate's payload that is an array", _OWN, set_at(*_MANDATE, to=[]), _INVALID),
    ("a mandate without signers", _OWN, remove_at(*_MANDATE, 6), _INVALID),
    ("a mandate with an unknown key", _OWN, _mandate(7, []), _INVALID),
    ("a bundle without files", _OWN, remove_at(*_BUNDLE, 7), _INVALID),
    ("a bundle with an unknown key", _OWN, _bundle(8, 0), _INVALID),
    ("a mandate's authority of 31 bytes", _OWN, _mandate(1, bytes(31)), _INVALID),
    ("a bundle's authority that is text", _OWN, _bundle(1, str(AUTHORITY.identifier)), _INVALID),
    ("a mandate's trust domain that is null", _OWN, _mandate(2, None), _INVALID),
    ("a bundle's trust domain in upper case", _OWN, _bundle(2, "Acme"), _INVALID),
    ("a mandate of number 0", _OWN, _mandate(3, 0), _INVALID),
    ("a bundle of number true", _OWN, _bundle(3, True), _INVALID),
    ("a mandate issued below zero", _OWN, _mandate(4, -1), _INVALID),
    ("a bundle issued after the year 9999", _OWN, _bundle(4, YEAR_10000), _INVALID),
    ("a mandate by change 4096", _OWN, _mandate(5, 4096), _INVALID),
    ("a bundle by change -1", _OWN, _bundle(5, -1), _INVALID),
]


_CONTENTS: Final[list[Row]] = [
    ("33 signers", _OWN, _mandate(6, _THIRTY_THREE), _INVALID),
    ("63 bytes of signers", _OWN, splice_at(*_MANDATE, 6, begin=63, drop=1), _INVALID),
    ("signers in another order", _OWN, _mandate(6, _SIGNERS[32:] + _SIGNERS[:32]), _INVALID),
    ("a signer twice", _OWN, splice_at(*_MANDATE, 6, begin=0, put=_SIGNERS[:32].hex()), _INVALID),
    ("an authority that names itself", _OWN, _mandate(6, _AND_OWN), _INVALID),
    ("a signer of 33 bytes", _SIGNER, _bundle(6, HELPER.identifier.digest + b"\0"), _INVALID),
    ("65 files", _OWN, _bundle(7, [[f"{number:02}", ""] for number in range(65)]), _INVALID),
    ("a file that is text", _OWN, set_at(*_FILES, 0, to="base.yaml"), _INVALID),
    ("a file of three items", _OWN, set_at(*_FILES, 1, 2, to=""), _INVALID),
    ("a file without a text", _OWN, remove_at(*_FILES, 1, 1), _INVALID),
    (
        "a name of 129 characters",
        _OWN,
        set_at(*_FILES, 1, 0, to="m" * 129),
        _INVALID,
    ),
    ("a name that is bytes", _OWN, set_at(*_FILES, 0, 0, to=b"base.yaml"), _INVALID),
    ("a text that is bytes", _OWN, set_at(*_FILES, 0, 1, to=b"rules: []\n"), _INVALID),
    ("a text that is an array", _OWN, set_at(*_FILES, 1, 1, to=[]), _INVALID),
    ("a name that is empty", _OWN, set_at(*_FILES, 0, 0, to=""), _INVALID),
    ("a name in letters beyond ASCII", _OWN, set_at(*_FILES, 1, 0, to="m\u00f6re"), _INVALID),
    ("files in another order", _OWN, _bundle(7, [MORE, BASE]), _INVALID),
    ("a name twice", _OWN, set_at(*_FILES, 1, 0, to=BASE[0]), _INVALID),
]


_OF_GLOBEX: Final = GLOBEX.mandate(PLANNER, HELPER)
_WHOSE: Final[list[Row]] = [
    ("a mandate for another trust domain", _OWN, _mandate(2, "globex"), _INVALID),
    ("a bundle for another authority", _SIGNER, _bundle(1, GLOBEX.identifier.digest), _INVALID),
    ("the mandate of another authority", _SIGNER, set_at(0, to=_OF_GLOBEX), _INVALID),
    ("the history of another authority", _SIGNER, set_at(1, to=GLOBEX.history), _INVALID),
    ("the history of another signer", _SIGNER, set_at(3, to=STRANGER.history), _INVALID),
    (
        "a signer that states another's name, and shows its own history",
        _NEW_KEY,
        _bundle(6, HELPER.identifier.digest),
        _INVALID,
    ),
    ("no history of its signer", _SIGNER, remove_at(3), _INVALID),
    (
        "an authority that is not the verifier's own",
        _OWN,
        give("authority", str(GLOBEX.identifier)),
        Code.CHANNEL_WRONG_AUTHORITY,
    ),
    (
        "an authority that is not trusted",
        _OWN,
        give("anchors", ANCHORS[1:]),
        Code.CHANNEL_WRONG_AUTHORITY,
    ),
    (
        "an authority that is trusted for another domain",
        _SIGNER,
        give("anchors", [[ANCHORS[0][0], "globex"]]),
        Code.CHANNEL_WRONG_AUTHORITY,
    ),
]


_LATER_BY_NODE: Final = policy(
    AUTHORITY.mandate(NODE, _3=NOW + 1), NODE.bundle(AUTHORITY, BASE, _3=NOW + 1), NODE
)
_NEWS: Final[list[Row]] = [
    (
        "a mandate issued in 61 seconds",
        _OWN,
        _mandate(4, NOW + 61),
        Code.CHANNEL_NOT_YET_VALID,
    ),
    ("a bundle issued in 61 seconds", _OWN, _bundle(4, NOW + 61), Code.CHANNEL_NOT_YET_VALID),
    (
        "numbers a day and a second ahead",
        "of numbers a day ahead",
        give("unix_s", NOW - 1),
        _INVALID,
    ),
    ("a signer's number an hour and a second ahead", _SIGNER, _bundle(3, NOW + 3_601), _INVALID),
    ("a bundle of a number below its mandate's", _OWN, _bundle(3, NOW - 1), _INVALID),
    ("a bundle's number a day and a second ahead", _OWN, _bundle(3, NOW + DAY_S + 1), _INVALID),
    ("another bundle of the number that is held", _NEWER, _bundle(3, NOW), _OUTDATED),
    (
        "a number below that of the bundle that is held",
        _NEWER,
        give("held", own_policy(number=NOW + 2).hex()),
        _OUTDATED,
    ),
    (
        "a mandate older than the one that is held",
        "newer than what is held, under a newer mandate",
        _mandate(3, NOW - 1),
        _OUTDATED,
    ),
    (
        "a signer under a mandate from before it was left out",
        _UNDER_HELD,
        give("held", _LATER_BY_NODE.hex()),
        _OUTDATED,
    ),
]


def _seen(identifier: Any, number: int) -> dict[str, Any]:
    return give("seen", [[str(identifier), number, bytes(32).hex()]])


_FIRST, _SECOND = opened(AUTHORITY.history)
_PLANNERS_SECOND: Final = opened(PLANNER.history)[1]
_FORK: Final = AUTHORITY.history_with((AUTHORITY.keys[0], STRANGER.keys[0]))
_HISTORIES: Final[list[Row]] = [
    (
        "a signer who is revoked",
        "by a signer, beside a list of others",
        give("list", AUTHORITY.revocations(HELPER).hex()),
        Code.CHANNEL_REVOKED,
    ),
    (
        "a signer's history shorter than what was seen of it",
        _NEW_KEY,
        _seen(PLANNER.identifier, 2),
        Code.CHANNEL_HISTORY_OUTDATED,
    ),
    (
        "a signer's history that forks from what was seen of it",
        _NEW_KEY,
        _seen(PLANNER.identifier, 1),
        Code.CHANNEL_PIN_MISMATCH,
    ),
    (
        "an authority's history shorter than what was seen of it",
        _OWN,
        _seen(AUTHORITY.identifier, 2),
        Code.CHANNEL_HISTORY_OUTDATED,
    ),
    (
        "an authority's history that forks from what was seen of it",
        _OWN,
        _seen(AUTHORITY.identifier, 1),
        Code.CHANNEL_PIN_MISMATCH,
    ),
    (
        "an authority's history that forks from the one that is known",
        _NEWER,
        set_at(1, to=_FORK),
        Code.CHANNEL_PIN_MISMATCH,
    ),
    (
        "an authority whose newest key is of the future",
        _OWN,
        set_at(1, OPEN, 1, 0, OPEN, 4, to=NOW + 61),
        Code.CHANNEL_NOT_YET_VALID,
    ),
    (
        "an authority's history that its new key has not signed",
        _OWN,
        set_at(1, OPEN, 1, 1, to=flipped(_SECOND[1])),
        _HISTORY,
    ),
    (
        "an authority's history with another signature than is known",
        _NEWER,
        set_at(1, OPEN, 1, 2, to=flipped(_SECOND[2])),
        _HISTORY,
    ),
    (
        "a longer history of the authority with another signature than is known",
        "newer than what is held, beside a longer history of the authority",
        set_at(1, OPEN, 0, 1, to=flipped(_FIRST[1])),
        _HISTORY,
    ),
    (
        "an authority's history with a wrong signature before the change that was seen",
        "by the authority, of which its newest key was seen",
        set_at(1, OPEN, 0, 1, to=flipped(_FIRST[1])),
        _HISTORY,
    ),
    (
        "a signer's history that its replaced key has not signed",
        _NEW_KEY,
        set_at(3, OPEN, 1, 2, to=flipped(_PLANNERS_SECOND[2])),
        _HISTORY,
    ),
    (
        "a signer whose key was replaced 33 times",
        "by a signer whose key was replaced 32 times",
        set_at(3, OPEN, 33, to=opened(ROTATED.history_with((*ROTATED.keys, STRANGER.keys[0])))[33]),
        Code.CHANNEL_TOO_MANY_SIGNATURES,
    ),
    (
        "a signer whose newest key is of the future",
        _NEW_KEY,
        set_at(3, OPEN, 1, 0, OPEN, 4, to=NOW + 61),
        Code.CHANNEL_NOT_YET_VALID,
    ),
]


_KEYS: Final[list[Row]] = [
    ("a mandate by a key that the authority lacks", _OWN, _mandate(5, 2), _HISTORY),
    ("a bundle by a key that its signer lacks", _SIGNER, _bundle(5, 1), _HISTORY),
    (
        "a signer's history without its last change",
        _NEW_KEY,
        remove_at(3, OPEN, 1),
        _HISTORY,
    ),
    (
        "a mandate by the authority's replaced key after its overlap",
        "by the authority's replaced key",
        give("unix_s", NOW + 29 * DAY_S),
        _HISTORY,
    ),
    (
        "a bundle by the authority's replaced key after its overlap",
        "by the authority's replaced key, under a mandate by its new one",
        give("unix_s", NOW + 29 * DAY_S),
        _HISTORY,
    ),
    (
        "a bundle by a signer's replaced key after its overlap",
        "by a signer's replaced key",
        give("unix_s", NOW + 29 * DAY_S),
        _HISTORY,
    ),
    (
        "a bundle by a key that has expired",
        _NEW_KEY,
        set_at(3, OPEN, 1, 0, OPEN, 5, to=NOW),
        _HISTORY,
    ),
    (
        "a mandate that somebody else signed",
        _SIGNER,
        set_at(0, OPEN, 3, to=opened(GLOBEX.mandate())[3]),
        _INVALID,
    ),
    (
        "a mandate signed before a signer was put in",
        _SIGNER,
        unsigned(_mandate(6, HELPER.identifier.digest)),
        _INVALID,
    ),
    (
        "a mandate that does not name its signer",
        _SIGNER,
        _mandate(6, PLANNER.identifier.digest),
        _INVALID,
    ),
    (
        "a bundle signed by another key of the authority than it states",
        _OWN,
        _bundle(5, 0),
        _INVALID,
    ),
    (
        "a bundle signed before its text was changed",
        _OWN,
        unsigned(set_at(*_FILES, 0, 1, to="rules: [ ]\n")),
        _INVALID,
    ),
    (
        "a bundle's signature in another spelling",
        _OWN,
        set_at(2, OPEN, 3, to=respelled(_BUNDLE_MESSAGE[3])),
        _INVALID,
    ),
]

POLICIES: Final[list[Row]] = [
    *_SHAPES,
    *_HEADS,
    *_CONTENTS,
    *_WHOSE,
    *_NEWS,
    *_HISTORIES,
    *_KEYS,
]
