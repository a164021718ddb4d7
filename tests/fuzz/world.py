"""People with keys that are the same in every process, so that inputs keep their meaning."""

from collections.abc import Callable
from functools import cache
from typing import Any

from identity import NoiseKey, SigningKey, cose
from identity.cose import SignedMessage, SignedType
from tests.identity.helpers import NARROW, Person, World


def person(number: int) -> Person:
    return Person(
        SigningKey.from_private_bytes(bytes([number]) * 32),
        NoiseKey.from_private_bytes(bytes([number + 100]) * 32),
    )


@cache
def world() -> World:
    """authority → node → planner → helper, and somebody who verifies."""
    return World(*(person(number) for number in range(1, 6)))


@cache
def proofs() -> tuple[bytes, ...]:
    """What the helper, the planner, the authority and a stranger show."""
    here = world()
    links = here.helper_link(), here.planner_link(delegable=NARROW), here.node_link()
    return (
        here.helper.proof(*links),
        here.planner.proof(*links[1:]),
        here.authority.proof(),
        person(9).proof(),
    )


def signed(signed_type: SignedType) -> Callable[[Any], bytes]:
    """Puts a payload into a COSE message whose signature nobody has made."""

    def wrap(payload: Any) -> bytes:
        return SignedMessage(signed_type, cose.cbor.encode(payload), bytes(64)).encode()

    return wrap
