"""What the tests of link share."""

from collections.abc import Callable

from identity import Code
from link import FrameError


def code_of_refusal(call: Callable[[], object]) -> Code | None:
    """The code of the FrameError that a call raised, None if it raised none. Others pass."""
    try:
        call()
    except FrameError as error:
        return error.code
    return None
