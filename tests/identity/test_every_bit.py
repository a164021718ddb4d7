"""No single bit of anything that is signed can change: it is refused, or it was never looked at.

What is never looked at are the signatures of changes that a verified credential pins: the pin is a
hash of the payloads, and commits to them. Such a bit changes nothing that is believed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import IdentityError
from tests.conformance import vector_cases
from tests.conformance.vector_cases import globex_link
from tests.conformance.vector_judge import JUDGES
from tests.conformance.vector_people import (
    CHILD,
    HELPER,
    NODE,
    PLANNER,
    child_link,
    helper_link,
    node_link,
    planner_link,
    proof,
)
from tests.identity.helpers import flip_bit

SAMPLES: Final = 60
DEEPEST: Final = proof(
    CHILD,
    child_link(),
    helper_link(),
    planner_link(),
    node_link(),
    further=[[globex_link(CHILD)]],
)
"""authority → node → agent → subagent → its child, of whom another authority says something."""


@dataclass(frozen=True)
class Signed:
    """An object, what a fresh verifier finds in it, and the bits that it need not look at."""

    data: bytes
    judge: Callable[[bytes], Any]
    spared: frozenset[int] = frozenset()

    @property
    def bits(self) -> int:
        return 8 * len(self.data)


def _case(section: str, what: str) -> Signed:
    [case] = [one for one in getattr(vector_cases, section)() if one["what"] == what]
    judge, inputs = JUDGES[section], case["inputs"]
    if section in ("tickets", "invitations"):
        text = case["encoded"]
        return Signed(text.encode(), lambda data: judge(data.decode("latin-1"), inputs))
    return Signed(bytes.fromhex(case["encoded"]), lambda data: judge(data, inputs))


def _deepest() -> Signed:
    [case] = [one for one in vector_cases.proofs() if one["what"] == "a subagent's child"]
    starts = [
        8 * DEEPEST.index(who.decoded.changes[0].signature)
        for who in (NODE, PLANNER, HELPER, CHILD)
    ]
    spared = frozenset(bit for start in starts for bit in range(start, start + 8 * 64))
    return Signed(DEEPEST, lambda data: JUDGES["proofs"](data, case["inputs"]), spared)


OBJECTS: Final[dict[str, Signed]] = {
    "a history": _case("histories", "eight changes"),
    "an attestation": _case("attestations", "of a channel's key"),
    "a credential": _case("credentials", "of an agent that may delegate"),
    "a proof of depth 4 with a further credential": _deepest(),
    "a revocation list": _case("revocations", "of two"),
    "a ticket": _case("tickets", "for one gateway"),
    "an invitation": _case("invitations", "to one gateway"),
}


def check(signed: Signed, bit: int) -> None:
    flipped = flip_bit(signed.data, bit)
    if bit in signed.spared:
        assert signed.judge(flipped) == signed.judge(signed.data)
        return
    with pytest.raises(IdentityError):
        signed.judge(flipped)


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_is_taken_as_it_is(name: str) -> None:
    assert OBJECTS[name].judge(OBJECTS[name].data)


@pytest.mark.parametrize("name", OBJECTS)
@settings(max_examples=SAMPLES)
@given(data=st.data())
def test_a_flipped_bit_is_refused(name: str, data: st.DataObject) -> None:
    signed = OBJECTS[name]

    check(signed, data.draw(st.integers(0, signed.bits - 1)))


@pytest.mark.prove
@pytest.mark.parametrize("of_a_byte", range(8))
@pytest.mark.parametrize("name", OBJECTS)
def test_every_flipped_bit_is_refused(name: str, of_a_byte: int) -> None:
    for bit in range(of_a_byte, OBJECTS[name].bits, 8):
        check(OBJECTS[name], bit)


def test_only_signatures_of_pinned_changes_are_spared() -> None:
    """Four of the sixteen signatures of a proof, and none in anything else."""
    spared = {name: len(signed.spared) for name, signed in OBJECTS.items() if signed.spared}

    assert spared == {"a proof of depth 4 with a further credential": 4 * 512}
