"""Messages that travel in runs, seen one by one."""

from collections.abc import Iterable
from typing import Any

from sidelink.wire import TELL, Deliver, DeliverRun

from sidecar.envelope import Envelope, Tell, TellRun


def deliveries_of(frames: Iterable[Any]) -> list[Any]:
    """The frames of a session, with a Deliver for each message of a run."""
    apart: list[Any] = []
    for frame in frames:
        if isinstance(frame, DeliverRun):
            apart += [
                Deliver(
                    frame.agent,
                    0,
                    TELL,
                    frame.sender,
                    frame.sender_identifier,
                    frame.attributes,
                    body,
                    frame.content_type,
                    0,
                )
                for body in frame.bodies
            ]
        else:
            apart.append(frame)
    return apart


def envelopes_of(batch: Iterable[Envelope]) -> list[Envelope]:
    """The envelopes of a batch, with a Tell for each message of a run."""
    apart: list[Envelope] = []
    for envelope in batch:
        if isinstance(envelope, TellRun):
            apart += [
                Tell(envelope.first_id + 2 * index, body, envelope.content_type)
                for index, body in enumerate(envelope.bodies)
            ]
        else:
            apart.append(envelope)
    return apart
