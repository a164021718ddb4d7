"""Messages cut into records, and put together again."""

from collections.abc import Iterator

from channel.errors import ChannelError
from channel.limits import FRAGMENT_BYTES_MIN, MESSAGE_BYTES_MAX, RECORD_PLAINTEXT_BYTES_MAX
from channel.wire import FLAG_MORE
from identity import Code


def fragments_of(data: bytes) -> Iterator[tuple[bytes | memoryview, int]]:
    """Yield (fragment, flags). A message that fits one record is not copied."""
    if len(data) <= RECORD_PLAINTEXT_BYTES_MAX:
        yield data, 0
        return
    whole = memoryview(data)
    for start in range(0, len(data), RECORD_PLAINTEXT_BYTES_MAX):
        end = start + RECORD_PLAINTEXT_BYTES_MAX
        yield whole[start:end], FLAG_MORE if end < len(data) else 0


class MessageAssembler:
    """The fragments of the one message that is on its way, bounded in bytes and in number."""

    def __init__(self) -> None:
        self._fragments: list[bytes] = []
        self.gathered_bytes = 0

    @property
    def is_between_fragments(self) -> bool:
        return bool(self._fragments)

    def add_untrusted(self, body: bytes, flags: int) -> bytes | None:
        """Take the body of a DATA record; return the message when it is whole."""
        self.gathered_bytes += len(body)
        if self.gathered_bytes > MESSAGE_BYTES_MAX:
            raise ChannelError(Code.CHANNEL_LIMIT_EXCEEDED, "a message is too long")
        if flags & FLAG_MORE:
            if len(body) < FRAGMENT_BYTES_MIN:
                raise ChannelError(Code.CHANNEL_BAD_RECORD, f"a fragment of {len(body)} bytes")
            self._fragments.append(body)
            return None
        if self._fragments:
            if not body:
                raise ChannelError(Code.CHANNEL_BAD_RECORD, "an empty last fragment")
            body = b"".join((*self._fragments, body))
        self.clear()
        return body

    def clear(self) -> None:
        self._fragments = []
        self.gathered_bytes = 0
