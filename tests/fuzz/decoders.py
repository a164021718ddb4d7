"""How a decoder becomes a target: read, encode again, compare; from raw bytes or from a tree."""

from collections.abc import Callable
from typing import Any, TypeVar

from identity import cbor
from tests.fuzz.program import Program
from tests.fuzz.target import INPUT_BYTES_MAX, Target, check_same
from tests.fuzz.trees import changed_tree

V = TypeVar("V")


def decoder(
    name: str,
    feeds: str,
    decode: Callable[[bytes], V],
    seeds: Callable[[], list[bytes]],
    *,
    error: type[Exception],
    encode: Callable[[V], bytes | None] | None = None,
    **options: Any,
) -> Target:
    """``encode`` gives the one encoding of what was read, or None where there are several."""

    def run(data: bytes) -> None:
        value = decode(data)
        encoded = None if encode is None else encode(value)
        if encoded is not None:
            check_same(encoded, data)

    return Target(name, feeds, run, seeds, error, **options)


def tree_of(
    target: Target,
    *,
    trees: Callable[[], list[Any]] | None = None,
    wrap: Callable[[Any], bytes] = cbor.encode,
) -> Target:
    """The same decoder behind well-formed CBOR: the input says how to change a seed's values.

    Bytes that a fuzzer changes blindly hardly ever are canonical CBOR, so that what lies behind
    the CBOR reader would see little of them. ``wrap`` puts a changed tree where it belongs, for
    what is sealed or signed within something else; ``trees`` are then what to change.
    """
    made: list[Any] = []

    def run(data: bytes) -> None:
        if not made:
            made.extend(_trees_of(target) if trees is None else trees())
        program = Program(data)
        tree = changed_tree(program.choose(made), program)
        try:
            encoded = wrap(tree)
        except ValueError:
            return  # It became too deep for CBOR as we write it.
        if len(encoded) <= INPUT_BYTES_MAX:
            target.run(encoded)

    return Target(
        f"{target.name}.tree",
        f"{target.feeds}, as well-formed CBOR",
        run,
        lambda: [bytes([number, 0]) for number in range(2)],
        target.error,
        bytes_max=256,
        is_program=True,
    )


def _trees_of(target: Target) -> list[Any]:
    return [cbor.decode_untrusted(data, bytes_max=1 << 20) for data in target.seeds()]
