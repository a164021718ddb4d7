"""What is wrong with histories, attestations, credentials, lists and tickets: one change each.

Each row: why it is refused, the valid case that it is made of, the change, and the code.
"""

from dataclasses import replace
from typing import Any, Final

from identity import Code
from identity.cbor import decode_untrusted, encode
from tests.conformance.vector_cases import ANCHORS, GATEWAY, TICKET_CODE
from tests.conformance.vector_changes import (
    OPEN,
    give,
    remove_at,
    set_at,
    splice_at,
    text_at,
    unsigned,
)
from tests.conformance.vector_people import (
    ATTRIBUTES,
    AUTHORITY,
    DAY_S,
    DELEGABLE,
    GLOBEX,
    HELPER,
    ISSUER_CHANGE,
    KIND,
    NAME,
    NODE,
    NOW,
    PIN,
    PLANNER,
    ROLE,
    STRANGER,
    node_link,
)

Row = tuple[str, str, dict[str, Any], Code]
YEAR_10000: Final = 253_402_300_800
ORDER: Final = 2**252 + 27742317777372353535851937790883648493
"""Of the group: adding it to S gives another spelling of an Ed25519 signature."""

_HISTORY: Final = Code.CHANNEL_HISTORY_INVALID
_FIRST: Final = (0, 0, OPEN)
_SECOND: Final = (1, 0, OPEN)


def opened(data: bytes) -> Any:
    return decode_untrusted(data, bytes_max=1 << 16)


def flipped(signature: bytes) -> bytes:
    return signature[:-8] + bytes([signature[-8] ^ 1]) + signature[-7:]


def respelled(signature: bytes) -> bytes:
    """The same signature with S + L: whoever does not look takes it too."""
    s = int.from_bytes(signature[32:], "little") + ORDER
    return signature[:32] + s.to_bytes(32, "little")


# The identity as a key, and R the identity, S zero: it verifies over whatever is signed.
_IDENTITY_POINT: Final = b"\1" + bytes(31)
_OF_SMALL_ORDER: Final = [
    encode({1: 0, 2: _IDENTITY_POINT, 4: NOW - DAY_S, 5: NOW + DAY_S}),
    _IDENTITY_POINT + bytes(32),
]
_SECOND_CHANGE: Final = opened(PLANNER.history)[1]
HISTORIES: Final[list[Row]] = [
    ("no changes", "one change", set_at(to=[]), _HISTORY),
    ("a byte behind it", "one change", splice_at(begin=120, put="00"), _HISTORY),
    ("a change that is no array", "one change", set_at(0, to=7), _HISTORY),
    ("a later change without its second signature", "two changes", remove_at(1, 2), _HISTORY),
    ("a payload of 257 bytes", "one change", set_at(0, 0, to=bytes(257)), _HISTORY),
    (
        "a number in more bytes than it needs",
        "one change",
        splice_at(0, 0, begin=2, drop=1, put="1800"),
        _HISTORY,
    ),
    ("an unknown key", "one change", set_at(*_FIRST, 7, to=0), _HISTORY),
    ("no overlap", "two changes", remove_at(*_SECOND, 6), _HISTORY),
    ("a first change of number 1", "one change", set_at(*_FIRST, 1, to=1), _HISTORY),
    ("a change of number 4096", "one change", set_at(*_FIRST, 1, to=4096), _HISTORY),
    ("a key of 31 bytes", "one change", set_at(*_FIRST, 2, to=bytes(31)), _HISTORY),
    (
        "a key of small order, for which everybody can make signatures",
        "one change",
        set_at(0, to=_OF_SMALL_ORDER),
        _HISTORY,
    ),
    ("created after the year 9999", "one change", set_at(*_FIRST, 4, to=YEAR_10000), _HISTORY),
    ("expiry after the year 9999", "one change", set_at(*_FIRST, 5, to=YEAR_10000), _HISTORY),
    (
        "an expiry that is its creation",
        "one change, in the minute before it is made",
        set_at(*_FIRST, 5, to=NOW - DAY_S),
        _HISTORY,
    ),
    ("a gap", "two changes", set_at(*_SECOND, 1, to=2), _HISTORY),
    (
        "another hash of the change before",
        "two changes",
        set_at(*_SECOND, 3, to=bytes(32)),
        _HISTORY,
    ),
    ("a hash of 31 bytes", "two changes", set_at(*_SECOND, 3, to=bytes(31)), _HISTORY),
    (
        "created before the key before it",
        "two changes",
        set_at(*_SECOND, 4, to=NOW - 3 * DAY_S),
        _HISTORY,
    ),
    (
        "an overlap of 30 days and a second",
        "two changes",
        set_at(*_SECOND, 6, to=30 * DAY_S + 1),
        _HISTORY,
    ),
    (
        "a key that is used twice",
        "two changes",
        set_at(1, to=opened(PLANNER.history_with((PLANNER.keys[0],) * 2))[1]),
        _HISTORY,
    ),
    ("a signature of 63 bytes", "one change", set_at(0, 1, to=bytes(63)), _HISTORY),
    ("a second signature of 65 bytes", "two changes", set_at(1, 2, to=bytes(65)), _HISTORY),
    (
        "a wrong signature by the new key",
        "two changes",
        set_at(1, 1, to=flipped(_SECOND_CHANGE[1])),
        _HISTORY,
    ),
    (
        "a wrong signature by the key before",
        "two changes",
        set_at(1, 2, to=flipped(_SECOND_CHANGE[2])),
        _HISTORY,
    ),
    ("a key that the history lacks", "two changes", give("change", 2), _HISTORY),
    (
        "a replaced key whose overlap is over",
        "the replaced key of two changes, within its overlap",
        give("unix_s", NOW + 30 * DAY_S),
        _HISTORY,
    ),
    (
        "a replaced key without an overlap",
        "the replaced key of two changes, within its overlap",
        set_at(*_SECOND, 6, to=0),
        _HISTORY,
    ),
    (
        "a change of the future",
        "one change",
        give("unix_s", NOW - DAY_S - 61),
        Code.CHANNEL_NOT_YET_VALID,
    ),
    (
        "shorter than its pin",
        "a history that is longer than its pin",
        give("pin", [2, bytes(32).hex()]),
        Code.CHANNEL_PIN_MISMATCH,
    ),
    (
        "forked from its pin",
        "a history that is longer than its pin",
        give("pin", [0, bytes(32).hex()]),
        Code.CHANNEL_PIN_MISMATCH,
    ),
    (
        "shorter than what was seen of it",
        "a history that is as long as what was seen of it",
        set_at(to=opened(PLANNER.history)[:1]),
        Code.CHANNEL_HISTORY_OUTDATED,
    ),
    (
        "forked from what was seen of it",
        "a history that is as long as what was seen of it",
        give("seen", [[str(PLANNER.identifier), 1, bytes(32).hex()]]),
        Code.CHANNEL_PIN_MISMATCH,
    ),
]


_ATTESTATION: Final = Code.CHANNEL_ATTESTATION_INVALID
_ATTESTED: Final = "of a channel's key"
_PAYLOAD: Final = (2, OPEN)


_STRANGERS: Final = opened(STRANGER.attestation())
_A_CREDENTIAL: Final = opened(node_link()[0])
ATTESTATIONS: Final[list[Row]] = [
    ("more than 512 bytes", _ATTESTED, set_at(to=bytes(513)), _ATTESTATION),
    ("a CBOR tag before it", _ATTESTED, splice_at(begin=0, put="d2"), _ATTESTATION),
    ("the type of a credential", _ATTESTED, set_at(0, to=_A_CREDENTIAL[0]), _ATTESTATION),
    ("an unprotected header", _ATTESTED, set_at(1, to={4: b"key"}), _ATTESTATION),
    ("a signature of 32 bytes", _ATTESTED, set_at(3, to=bytes(32)), _ATTESTATION),
    ("somebody else's signature", _ATTESTED, set_at(3, to=_STRANGERS[3]), _ATTESTATION),
    ("a payload that is an array", _ATTESTED, set_at(2, to=encode([])), _ATTESTATION),
    ("no expiry", _ATTESTED, remove_at(*_PAYLOAD, 6), _ATTESTATION),
    ("an unknown purpose", _ATTESTED, set_at(*_PAYLOAD, 1, to="stream"), _ATTESTATION),
    ("a Noise key of 33 bytes", _ATTESTED, set_at(*_PAYLOAD, 2, to=bytes(33)), _ATTESTATION),
    (
        "an identifier that is text",
        _ATTESTED,
        set_at(*_PAYLOAD, 3, to=str(NODE.identifier)),
        _ATTESTATION,
    ),
    ("a change that is true", _ATTESTED, set_at(*_PAYLOAD, 4, to=True), _ATTESTATION),
    ("a beginning before 1970", _ATTESTED, set_at(*_PAYLOAD, 5, to=-1), _ATTESTATION),
    (
        "a life of 90 days and a second",
        _ATTESTED,
        set_at(*_PAYLOAD, 6, to=NOW - DAY_S // 2 + 90 * DAY_S + 1),
        _ATTESTATION,
    ),
    ("over, to the second", _ATTESTED, give("unix_s", NOW + 29 * DAY_S), _ATTESTATION),
    (
        "of the future by more than a minute",
        _ATTESTED,
        give("unix_s", NOW - DAY_S // 2 - 61),
        Code.CHANNEL_NOT_YET_VALID,
    ),
    ("by a key that the history lacks", _ATTESTED, set_at(*_PAYLOAD, 4, to=1), _HISTORY),
]


_CREDENTIAL: Final = Code.CHANNEL_CREDENTIAL_INVALID
_SIDECAR: Final = "of a sidecar"
_AGENT: Final = "of an agent that may delegate"
_TYPES: Final = "with an attribute of each type"


def _claim(of: str, key: int, value: Any, why: str) -> Row:
    return (why, of, set_at(*_PAYLOAD, key, to=value), _CREDENTIAL)


def _attribute(name: str, value: Any, why: str) -> Row:
    return (why, _TYPES, set_at(*_PAYLOAD, ATTRIBUTES, name, to=value), _CREDENTIAL)


def _delegable(key: int, value: Any, why: str) -> Row:
    return (why, _SIDECAR, set_at(*_PAYLOAD, DELEGABLE, key, to=value), _CREDENTIAL)


_OF_SIDECAR: Final = opened(node_link()[0])
_BEGIN_EXP: Final = _OF_SIDECAR[2].index(encode(4) + encode(NOW + 10 * DAY_S))
_BEGIN_NBF: Final = _OF_SIDECAR[2].index(encode(5) + encode(NOW - 60))
_TYPO: Final = str(NODE.identifier)[:-1] + "q"
CREDENTIALS: Final[list[Row]] = [
    (
        "an expiry that is a float",
        _SIDECAR,
        splice_at(2, begin=_BEGIN_EXP + 1, drop=5, put="fa4ee27ee0"),
        _CREDENTIAL,
    ),
    ("an expiry twice", _SIDECAR, splice_at(2, begin=_BEGIN_NBF, drop=1, put="04"), _CREDENTIAL),
    ("an unknown claim", _SIDECAR, set_at(*_PAYLOAD, 8, to=0), _CREDENTIAL),
    (
        "another spelling of its signature",
        _SIDECAR,
        set_at(3, to=respelled(_OF_SIDECAR[3])),
        _CREDENTIAL,
    ),
    (
        "a payload that was changed after it was signed",
        _SIDECAR,
        unsigned(set_at(*_PAYLOAD, 6, to=NOW)),
        _CREDENTIAL,
    ),
    _claim(_SIDECAR, 1, _TYPO, "an issuer with a typing error"),
    _claim(_SIDECAR, 2, NODE.identifier.digest, "a subject that is bytes"),
    _claim(_SIDECAR, 2, str(AUTHORITY.identifier), "its issuer as its subject"),
    _claim(_SIDECAR, 3, "Acme", "a trust domain in upper case"),
    _claim(_SIDECAR, 4, NOW - 60, "an expiry that is its beginning"),
    _claim(_SIDECAR, 5, False, "a beginning that is false"),
    _claim(_SIDECAR, 6, "now", "a time of issue that is text"),
    _claim(_SIDECAR, 7, bytes(15), "an id of 15 bytes"),
    _claim(_SIDECAR, NAME, "agent://acme", "a name without a path"),
    _claim(_SIDECAR, NAME, "agent://globex/finance", "a name in another trust domain"),
    _claim(_SIDECAR, KIND, "robot", "an unknown kind"),
    ("a node without a role", _SIDECAR, remove_at(*_PAYLOAD, ROLE), _CREDENTIAL),
    _claim(_SIDECAR, PIN, [0], "a pin without its hash"),
    ("a pin of change 4096", _SIDECAR, set_at(*_PAYLOAD, PIN, 0, to=4096), _CREDENTIAL),
    (
        "a pin whose hash has 31 bytes",
        _SIDECAR,
        set_at(*_PAYLOAD, PIN, 1, to=bytes(31)),
        _CREDENTIAL,
    ),
    _claim(_SIDECAR, ISSUER_CHANGE, -1, "a change of the issuer below zero"),
    _claim(_SIDECAR, ATTRIBUTES, {f"n{number}": 0 for number in range(65)}, "65 attributes"),
    _attribute("Role", "x", "an attribute in upper case"),
    _attribute("from", "x", "an attribute of a reserved name"),
    _attribute("no", None, "an attribute that is null"),
    _attribute("most", 2**63, "an attribute of 2^63"),
    _attribute("text", "a" * 1025, "an attribute of 1025 bytes"),
    _attribute("text", "a\nb", "an attribute with a line break"),
    _attribute("list", [7], "an attribute that is a list with a number"),
    _attribute("list", [[[[]]]], "an attribute that is nested deeper than anything here"),
    ("delegable without a depth", _SIDECAR, remove_at(*_PAYLOAD, DELEGABLE, 4), _CREDENTIAL),
    _delegable(1, ["agent://acme/"], "a delegable prefix with an empty segment"),
    _delegable(1, ["agent://globex"], "a delegable prefix of another trust domain"),
    _delegable(2, {"issuer": None}, "a delegable attribute of a reserved name"),
    _delegable(2, {"role": ["a"] * 65}, "a delegable attribute of 65 values"),
    _delegable(3, ["message"], "a delegable action without a dot"),
    _delegable(3, ["a.b"] * 65, "65 delegable actions"),
    _delegable(4, 9, "a delegable depth of 9"),
    _delegable(5, -1, "a delegable lifetime below zero"),
    (
        "over, to the second",
        _SIDECAR,
        give("unix_s", NOW + 10 * DAY_S),
        Code.CHANNEL_CREDENTIAL_EXPIRED,
    ),
    (
        "of the future by more than a minute",
        _SIDECAR,
        give("unix_s", NOW - 121),
        Code.CHANNEL_NOT_YET_VALID,
    ),
    (
        "by a key that its issuer lacks",
        _SIDECAR,
        set_at(*_PAYLOAD, ISSUER_CHANGE, to=2),
        _HISTORY,
    ),
    (
        "by a key of its issuer whose overlap is over",
        "by the authority's replaced key",
        give("issuer_history", replace(AUTHORITY, overlap_s=0).history.hex()),
        _HISTORY,
    ),
]


_LIST: Final = Code.CHANNEL_REVOCATIONS_INVALID
_FIELDS: Final = (0, OPEN, 2, OPEN)
_TWO: Final = "of two"


_MESSAGE, _ = opened(AUTHORITY.revocations(NODE, HELPER))
_DIGESTS: Final = opened(opened(_MESSAGE)[2])[7]
_OTHER: Final = opened(STRANGER.attestation())
_AND_OWN: Final = b"".join(sorted((AUTHORITY.identifier.digest, _DIGESTS[:32])))
_NEWER: Final = AUTHORITY.revocations(_4=NOW + 1).hex()
REVOCATIONS: Final[list[Row]] = [
    ("a byte behind it", _TWO, splice_at(begin=596, put="00"), _LIST),
    ("no history beside it", _TWO, remove_at(1), _LIST),
    ("the history of another authority", _TWO, set_at(1, to=GLOBEX.history), _LIST),
    ("a history that is torn", _TWO, splice_at(1, begin=300, drop=46), _HISTORY),
    ("the type of an attestation", _TWO, set_at(0, OPEN, 0, to=_OTHER[0]), _LIST),
    (
        "a signature over another list",
        _TWO,
        unsigned(set_at(*_FIELDS, 7, to=_DIGESTS[:32])),
        _LIST,
    ),
    ("no number", _TWO, remove_at(*_FIELDS, 4), _LIST),
    ("an issuer of 31 bytes", _TWO, set_at(*_FIELDS, 1, to=bytes(31)), _LIST),
    ("a trust domain that is none", _TWO, set_at(*_FIELDS, 2, to="a/b"), _LIST),
    (
        "another trust domain",
        _TWO,
        set_at(*_FIELDS, 2, to="globex"),
        Code.CHANNEL_WRONG_AUTHORITY,
    ),
    (
        "an authority that is not trusted",
        _TWO,
        give("anchors", ANCHORS[1:]),
        Code.CHANNEL_WRONG_AUTHORITY,
    ),
    ("a change of the issuer that is 4096", _TWO, set_at(*_FIELDS, 3, to=4096), _LIST),
    ("a key that the issuer lacks", _TWO, set_at(*_FIELDS, 3, to=2), _HISTORY),
    ("a number below zero", _TWO, set_at(*_FIELDS, 4, to=-1), _LIST),
    ("a number a day and a second ahead", _TWO, set_at(*_FIELDS, 4, to=NOW + DAY_S + 1), _LIST),
    (
        "a number below that of the list that is held",
        "what is held",
        give("known", _NEWER),
        Code.CHANNEL_REVOCATIONS_OUTDATED,
    ),
    (
        "another list under the number that is held",
        "what is held",
        set_at(*_FIELDS, 7, to=_DIGESTS[:32]),
        Code.CHANNEL_REVOCATIONS_OUTDATED,
    ),
    ("issued at a time that is text", _TWO, set_at(*_FIELDS, 5, to="now"), _LIST),
    (
        "issued in the future by more than a minute",
        _TWO,
        give("unix_s", NOW - 61),
        Code.CHANNEL_NOT_YET_VALID,
    ),
    ("a next update that is no integer", _TWO, set_at(*_FIELDS, 6, to=None), _LIST),
    (
        "a next update in 30 days and a second",
        _TWO,
        set_at(*_FIELDS, 6, to=NOW + 30 * DAY_S + 1),
        _LIST,
    ),
    ("63 bytes of identifiers", _TWO, set_at(*_FIELDS, 7, to=_DIGESTS[:-1]), _LIST),
    (
        "an identifier twice",
        _TWO,
        splice_at(*_FIELDS, 7, begin=0, put=_DIGESTS[:32].hex()),
        _LIST,
    ),
    (
        "identifiers in another order",
        _TWO,
        set_at(*_FIELDS, 7, to=_DIGESTS[32:] + _DIGESTS[:32]),
        _LIST,
    ),
    ("an authority that revokes itself", _TWO, set_at(*_FIELDS, 7, to=_AND_OWN), _LIST),
    (
        "a replaced key whose overlap is over",
        "of the authority's replaced key",
        give("unix_s", NOW + 29 * DAY_S),
        _HISTORY,
    ),
    (
        "a history that is shorter than what was seen of it",
        "of another authority",
        give("seen", [[str(GLOBEX.identifier), 1, bytes(32).hex()]]),
        Code.CHANNEL_HISTORY_OUTDATED,
    ),
]


_TICKET: Final = Code.ENROL_TICKET_MALFORMED
_ONE: Final = "for one gateway"


TICKETS: Final[list[Row]] = [
    ("8193 characters, white space included", _ONE, text_at(0, 0, " " * 8021), _TICKET),
    ("another prefix", _ONE, text_at(0, 4, "slt2"), _TICKET),
    ("a space within", _ONE, text_at(20, 0, " "), _TICKET),
    ("another checksum", _ONE, text_at(170, 1, "A"), _TICKET),
    ("no code", _ONE, remove_at(4), _TICKET),
    ("a trust domain in upper case", _ONE, set_at(1, to="Acme"), _TICKET),
    ("an authority of 31 bytes", _ONE, set_at(2, to=bytes(31)), _TICKET),
    ("17 gateways", _ONE, set_at(3, to=[GATEWAY] * 17), _TICKET),
    ("a gateway of two fields", _ONE, remove_at(3, 0, 2), _TICKET),
    ("a host that looks like an option", _ONE, set_at(3, 0, 0, to="-v"), _TICKET),
    ("a host that is a number", _ONE, set_at(3, 0, 0, to=7), _TICKET),
    ("port 0", _ONE, set_at(3, 0, 1, to=0), _TICKET),
    ("a gateway's identifier of 33 bytes", _ONE, set_at(3, 0, 2, to=bytes(33)), _TICKET),
    ("a code of 15 bytes", _ONE, set_at(4, to=TICKET_CODE[:-1]), _TICKET),
    ("an expiry after the year 9999", _ONE, set_at(5, to=YEAR_10000), _TICKET),
]


INVITATIONS: Final[list[Row]] = [
    ("a ticket's prefix", "to one gateway", text_at(0, 4, "slt1"), _TICKET),
    ("no gateway", "to one gateway", set_at(3, to=[]), _TICKET),
    ("a code beside it", "to one gateway", set_at(4, to=TICKET_CODE), _TICKET),
]
