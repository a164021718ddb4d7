"""Every target with the inputs it begins with, with large ones, and for a while with others."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.fuzz import engine_hypothesis
from tests.fuzz.engine_hypothesis import Outcome
from tests.fuzz.findings import inputs_of
from tests.fuzz.guard import run_exactly, run_input
from tests.fuzz.registry import TARGETS
from tests.fuzz.target import INPUT_BYTES_MAX, Target

BY_NAME = {target.name: target for target in TARGETS}
FED_BY_PEERS = {
    name: target
    for name, target in BY_NAME.items()
    if not (target.is_program or target.is_own_file)
}
PROVE_RUNS = 150
PROVE_SECONDS = 0.75

# What costs readers more than its length: nesting, repetition, lengths that promise much.
SHAPES: dict[str, bytes] = {
    "zeros": b"\0",
    "ones": b"\xff",
    "arrays in arrays, in CBOR": b"\x81",
    "maps in maps, in CBOR": b"\xa1",
    "empty arrays, in CBOR": b"\x80",
    "small bytes, in CBOR": b"\x40",
    "arrays in arrays, in msgpack": b"\x91",
    "maps in maps, in msgpack": b"\x81\xa0",
    "brackets": b"[",
    "pairs of brackets": b"[],",
    "braces": b'{"a":',
    "quotes": b'"',
    "backslashes": b"\\",
    "digits": b"9",
    "letters": b"a",
    "spaces": b" ",
    "lines": b"\n",
    "lines of a list": b"- \n",
    "nested lists": b"- ",
    "keys": b"a: \n",
    "anchors": b"&a ",
    "slashes": b"/",
    "dots": b".",
    "text beyond ASCII": "é".encode(),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What is logged of hostile inputs would be most of what they cost."""
    wrapper = structlog.make_filtering_bound_logger(logging.CRITICAL)
    before = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=wrapper)
    yield
    structlog.configure(wrapper_class=before)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_seeds_and_the_kept_inputs_pass_and_the_first_seed_is_taken(name: str) -> None:
    target = BY_NAME[name]
    taken = [run_exactly(target, data) for data in inputs_of(target)]

    assert taken[0], "a valid input that is refused leads nowhere"


@pytest.mark.prove
@pytest.mark.parametrize("name", FED_BY_PEERS)
def test_a_large_input_of_any_shape_costs_a_decoder_little(name: str) -> None:
    target = FED_BY_PEERS[name]
    for shape in SHAPES.values():
        for seed in (b"", target.seeds()[0]):
            data = seed + shape * (INPUT_BYTES_MAX // len(shape))
            run_exactly(target, data[:INPUT_BYTES_MAX])


@pytest.mark.prove
@pytest.mark.parametrize("name", BY_NAME)
def test_no_input_that_hypothesis_makes_is_a_finding(name: str, tmp_path: Path) -> None:
    target = BY_NAME[name]
    outcome = _hypothesis(target, tmp_path)
    log = tmp_path / f"{name}.log"

    assert outcome.finding is None, log.read_text()
    assert outcome.runs > len(inputs_of(target))


def _hypothesis(target: Target, work: Path) -> Outcome:
    return engine_hypothesis.run(target, seconds=PROVE_SECONDS, runs=PROVE_RUNS, work=work)


def test_what_a_seed_means_does_not_depend_on_what_ran_before() -> None:
    """Otherwise a finding could not be replayed."""
    for target in TARGETS:
        if target.is_machine:
            data = target.seeds()[-1]
            assert run_input(target, data) == run_input(target, data)
