"""From an engine's events to ours, with the pieces of a stream that arrived together joined.

An engine tells of each packet by itself; joined, one read is one parse and one call upwards.
"""

from collections.abc import Callable
from typing import Any

from transport.engine import EngineEvent, StreamData


def gather_events(
    take: Callable[[], Any],
    stream_data: type,
    translate: Callable[[Any], EngineEvent | None],
) -> list[EngineEvent]:
    """Empty ``take`` (None when it is empty). ``stream_data`` is the engine's own event class."""
    gathered: list[EngineEvent] = []
    pieces: list[bytes] = []
    stream = -1  # Whose pieces are being joined.
    while (event := take()) is not None:
        is_data = isinstance(event, stream_data)
        if pieces and not (is_data and event.stream_id == stream):
            gathered.append(StreamData(stream, b"".join(pieces), False))
            pieces = []
        if not is_data:
            translated = translate(event)
            if translated is not None:
                gathered.append(translated)
            continue
        stream = event.stream_id
        pieces.append(event.data)
        if event.end_stream:
            gathered.append(StreamData(stream, b"".join(pieces), True))
            pieces = []
    if pieces:
        gathered.append(StreamData(stream, b"".join(pieces), False))
    return gathered
