"""Canonical CBOR: one encoding for each value, and whatever is not that encoding is refused.

RFC 8949 section 4.2.1, without floats, tags and simple values other than false, true and null.
Maps have integer or text keys. This is the only importer of cbor2.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

import cbor2

from identity.codes import Code
from identity.errors import CborError

DEPTH_MAX: Final = 8
INTEGER_MAX: Final = 2**64 - 1
INTEGER_MIN: Final = -(2**64)


class _EveryTag(Mapping[int, Any]):
    """Refuses each tag before cbor2 interprets it: some would compile a regular expression."""

    def __getitem__(self, tag: int) -> Callable[[Any], NoReturn]:
        return _refuse_tag

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 1  # Not empty, so that nobody takes it for "no decoders given".


def _refuse_tag(_decoder: Any) -> NoReturn:
    raise ValueError("tags are refused")


_EVERY_TAG: Final = _EveryTag()
_PLAIN: Final = frozenset((bytes, str, bool, type(None)))


def encode(value: Any) -> bytes:
    """The one encoding of a value. TypeError or ValueError for what has none: our own mistake."""
    return cbor2.dumps(_ordered(value, DEPTH_MAX))


def decode_untrusted(
    data: bytes,
    *,
    bytes_max: int,
    depth_max: int = DEPTH_MAX,
    code: Code = Code.CHANNEL_PROOF_INVALID,
) -> Any:
    """Decode bytes from a peer, or raise CborError with the code that the caller names."""
    if type(data) is not bytes or len(data) > bytes_max:
        raise CborError(code, f"not bytes, or more than {bytes_max} of them")
    try:
        value = cbor2.loads(
            data,
            semantic_decoders=_EVERY_TAG,
            max_depth=depth_max,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        )
        # Trailing bytes, long forms and wrong key order all show up as a different encoding.
        canonical = cbor2.dumps(_ordered(value, depth_max))
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise CborError(code, f"not canonical CBOR: {type(error).__name__}") from error
    if canonical != data:
        raise CborError(code, "not canonical CBOR: it does not encode to itself")
    return value


def _ordered(value: Any, depth: int) -> Any:
    """The same value with its maps in the order of their encoded keys."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise ValueError("an integer does not fit 64 bits")
        return value
    if depth == 0:
        raise ValueError("nested too deeply")
    # Most items are plain: they are passed over here, without a call for each.
    if kind is list or kind is tuple:
        return [item if type(item) in _PLAIN else _ordered(item, depth - 1) for item in value]
    if kind is dict:
        return {
            key: item if type(item := value[key]) in _PLAIN else _ordered(item, depth - 1)
            for key in sorted(value, key=_key_order)
        }
    raise TypeError(f"no canonical CBOR for {kind.__name__}")


def _key_order(key: Any) -> tuple[int, int, bytes]:
    # Bytewise order of the encoded keys, without encoding them: major type, then the number or
    # length (its shortest form sorts as it counts), then the text.
    if type(key) is int:
        return (0, key, b"") if key >= 0 else (1, -1 - key, b"")
    if type(key) is str:
        text = key.encode()
        return (2, len(text), text)
    raise TypeError(f"no canonical CBOR for a key of type {type(key).__name__}")
