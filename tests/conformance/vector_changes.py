"""One stated change of a valid object: how an invalid case of the vectors comes to be.

The same is told to strangers in conformance/README.md. Whatever was signed and holds the change is
signed again, by the key that had signed it; so the change is the only thing that is wrong.
"""

import base64
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from identity import SigningKey
from identity.cbor import decode_untrusted, encode
from identity.cose import SignedType, sign_detached
from identity.keys import SIGNATURE_BYTES

OPEN: Final = "cbor"
"""A step of a path: into the value that a byte string holds."""
BYTES_MAX: Final = 1 << 20

Edit = Callable[[Any], Any]


def set_at(*at: Any, to: Any) -> dict[str, Any]:
    return {"set": list(at), "to": encode(to).hex()}


def remove_at(*at: Any) -> dict[str, Any]:
    return {"remove": list(at)}


def splice_at(*at: Any, begin: int, drop: int = 0, put: str = "") -> dict[str, Any]:
    return {"splice": list(at), "begin": begin, "drop": drop, "put": put}


def unsigned(change: dict[str, Any]) -> dict[str, Any]:
    return change | {"signed_again": False}


def text_at(begin: int, drop: int = 0, put: str = "") -> dict[str, Any]:
    return {"text": [begin, drop, put]}


def give(name: str, value: Any) -> dict[str, Any]:
    """Not the object is changed, but what its verifier knows."""
    return {"input": name, "to": value}


class Changer:
    """Applies changes to objects of these keys' holders."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        self._keys = keys

    def apply(self, data: bytes, change: dict[str, Any]) -> bytes:
        if "input" in change:
            return data
        signs = change.get("signed_again", True)
        if "splice" in change:
            begin, end = change["begin"], change["begin"] + change["drop"]
            put = bytes.fromhex(change["put"])
            return self._edit(
                data, _opened(change["splice"]), lambda old: old[:begin] + put + old[end:], signs
            )
        if "remove" in change:
            *at, last = change["remove"]
            return self._edit(data, [OPEN, *at], lambda tree: _without(tree, last), signs)
        if not change["set"]:
            return bytes.fromhex(change["to"])
        value = decode_untrusted(bytes.fromhex(change["to"]), bytes_max=BYTES_MAX)
        return self._edit(data, _opened(change["set"]), lambda _: value, signs)  # type: ignore[no-any-return]

    def apply_to_ticket(self, text: str, change: dict[str, Any]) -> str:
        """Likewise for a text with a prefix and a checksum, whose body is CBOR."""
        if "text" in change:
            begin, drop, put = change["text"]
            return text[:begin] + put + text[begin + drop :]
        prefix, encoded = text[:4], text[4:]
        body = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))[:-4]
        body = self.apply(body, change)
        return prefix + ticket_text(body)

    def _edit(self, value: Any, at: list[Any], edit: Edit, signs: bool) -> Any:
        """``value`` with what stands at a path edited, and signed again on the way back."""
        if not at:
            return edit(value)
        step, *rest = at
        if step == OPEN:
            tree = decode_untrusted(value, bytes_max=BYTES_MAX)
            return encode(self._edit(tree, rest, edit, signs))
        changed = _with(value, step, self._edit(_get(value, step), rest, edit, signs))
        return self._signed_again(value, changed) if signs else changed

    def _signed_again(self, before: Any, after: Any) -> Any:
        kind = _payload_of(before)
        if kind is None:
            return after
        signed_type, place, signatures = kind
        if before[place] == after[place]:
            return after
        for number in signatures:
            [key] = [
                one
                for one in self._keys
                if sign_detached(one, signed_type, before[place]) == before[number]
            ]
            after = _with(after, number, sign_detached(key, signed_type, after[place]))
        return after


def ticket_text(body: bytes) -> str:
    whole = body + hashlib.sha256(body).digest()[:4]
    return base64.urlsafe_b64encode(whole).decode().rstrip("=")


def _payload_of(tree: Any) -> tuple[SignedType, int, tuple[int, ...]] | None:
    """Of something signed: its type, where its payload is and where its signatures are."""
    if not isinstance(tree, list):
        return None
    if len(tree) == 4 and tree[1] == {} and isinstance(tree[0], bytes):
        header = decode_untrusted(tree[0], bytes_max=BYTES_MAX)
        return SignedType(header[16]), 2, (3,)
    is_change = len(tree) in (2, 3) and all(isinstance(item, bytes) for item in tree)
    if is_change and all(len(item) == SIGNATURE_BYTES for item in tree[1:]):
        return SignedType.CHANGE, 0, tuple(range(1, len(tree)))
    return None


def _opened(at: list[Any]) -> list[Any]:
    return [OPEN, *at] if at else []


def _get(tree: Any, step: Any) -> Any:
    """None for what is about to be added."""
    if isinstance(tree, dict):
        return tree.get(step)
    return tree[step] if step < len(tree) else None


def _with(tree: Any, step: Any, value: Any) -> Any:
    if isinstance(tree, dict):
        return tree | {step: value}
    # One behind the last is added.
    return [*tree[:step], value, *tree[step + 1 :]]


def _without(tree: Any, step: Any) -> Any:
    if isinstance(tree, dict):
        return {key: value for key, value in tree.items() if key != step}
    return [*tree[:step], *tree[step + 1 :]]
