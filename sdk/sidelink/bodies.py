"""Message bodies: plain Python values as msgpack, or bytes and text as they are."""

from typing import Final

import msgspec

from sidelink.errors import BodyError
from sidelink.wire import CONTENT_TYPE_CHARACTERS_MAX, MESSAGE_BYTES_MAX

MSGPACK: Final = "application/msgpack"
_TEXT_PREFIX: Final = "text/"

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder()


def encode_body(body: object, content_type: str | None) -> tuple[bytes, str]:
    """The bytes to send and their content type. Raises BodyError.

    Without a content type, or with msgpack's, the body is any tree of None, booleans, 64-bit
    integers, floats, text, bytes, lists and dicts; with another, it is bytes or text.
    """
    if content_type is None or (content_type == MSGPACK and not isinstance(body, bytes)):
        content_type = MSGPACK
        try:
            data = _encoder.encode(body)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise BodyError("message.body_invalid", f"not plain values: {error}") from error
    elif len(content_type) > CONTENT_TYPE_CHARACTERS_MAX or not content_type.isascii():
        raise BodyError("message.body_invalid", f"not a content type: {content_type!r:.200}")
    elif type(body) is bytes:
        data = body
    elif isinstance(body, bytes | bytearray | memoryview):
        data = bytes(body)
    elif isinstance(body, str):
        data = _encode_text(body)
    else:
        raise BodyError(
            "message.body_invalid",
            f"a body of type {content_type} is bytes or text, not {type(body).__name__}",
        )
    if len(data) > MESSAGE_BYTES_MAX:
        raise BodyError(
            "message.too_large",
            f"a body of {len(data)} bytes, more than {MESSAGE_BYTES_MAX}",
            remedy="Send it in parts, or put it where the receiver can fetch it.",
        )
    return data, content_type


def decode_body_untrusted(data: bytes, content_type: str) -> object:
    """What `encode_body` was given; bytes for a type that is neither msgpack nor text.

    Raises BodyError when the bytes are not what the content type says.
    """
    try:
        if content_type == MSGPACK:
            return _decoder.decode(data)
        if content_type.startswith(_TEXT_PREFIX):
            return data.decode()
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise BodyError("message.body_invalid", f"not {content_type}: {error}") from error
    return data


def _encode_text(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BodyError("message.body_invalid", f"not text: {error}") from error
