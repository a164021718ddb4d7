"""Readers for decoded CBOR: each value has exactly the expected type and bounds, or an error."""

from dataclasses import dataclass
from typing import Any, Final

from identity.codes import Code
from identity.errors import CborError

UNIX_S_MAX: Final = 253_402_300_799  # The end of the year 9999.


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the parts of one kind of object; every failure carries that object's code."""

    code: Code

    def mapping(
        self, value: Any, required: frozenset[int], optional: frozenset[int] = frozenset()
    ) -> dict[int, Any]:
        """A map with all of the required keys and none but the optional ones beside them."""
        if type(value) is not dict:
            raise self.error("not a map")
        # cbor.decode_untrusted leaves integer and text keys only; neither compares equal wrongly.
        keys = value.keys()
        if not (required <= keys and keys <= required | optional):
            raise self.error("a map with missing or unknown keys")
        return value

    def array(self, value: Any, count_max: int, count_min: int = 0) -> list[Any]:
        if type(value) is not list or not count_min <= len(value) <= count_max:
            raise self.error(f"not an array of {count_min} to {count_max} items")
        return value

    def integer(self, value: Any, maximum: int = UNIX_S_MAX, minimum: int = 0) -> int:
        # `type(…) is`, because a bool is an int in Python and nowhere else.
        if type(value) is not int or not minimum <= value <= maximum:
            raise self.error(f"not an integer from {minimum} to {maximum}")
        return value

    def byte_string(self, value: Any, bytes_max: int, bytes_min: int = 0) -> bytes:
        if type(value) is not bytes or not bytes_min <= len(value) <= bytes_max:
            raise self.error(f"not a byte string of {bytes_min} to {bytes_max} bytes")
        return value

    def fixed_bytes(self, value: Any, length: int) -> bytes:
        return self.byte_string(value, length, length)

    def text(self, value: Any, bytes_max: int) -> str:
        if type(value) is not str or len(value.encode()) > bytes_max:
            raise self.error(f"not a text of at most {bytes_max} bytes")
        return value

    def error(self, detail: str) -> CborError:
        return CborError(self.code, detail)
