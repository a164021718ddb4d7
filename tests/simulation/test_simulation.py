"""Meshes under chaos on seeds: the same seed is the same story, and all of it is right."""

import pytest

from tests.simulation.promises import Promises
from tests.simulation.seeds import tell
from tests.simulation.weathers import WEATHERS

PROVE_SEEDS = range(1_000, 3_200)
SEEDS_AT_ONCE = 20


@pytest.mark.parametrize(("seed", "weather"), list(enumerate(WEATHERS)))
def test_a_mesh_keeps_its_promises_in_any_weather(seed: int, weather: str) -> None:
    tell(seed, weather)


def test_the_same_seed_tells_the_same_story() -> None:
    first, second = (tell(3, "everything") for _ in range(2))

    assert len(first.told) > 50
    assert first.told == second.told


def test_a_broken_promise_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_it(*_: object) -> None:
        raise AssertionError("broken")

    monkeypatch.setattr(Promises, "delivered", break_it)
    with pytest.raises(AssertionError, match="broken") as broken:
        tell(3, "calm")

    assert broken.value.__notes__ == ["again: python -m tests.simulation.replay 3 calm"]


@pytest.mark.prove
@pytest.mark.parametrize("first", PROVE_SEEDS[::SEEDS_AT_ONCE])
def test_many_meshes_keep_their_promises(first: int) -> None:
    for seed in range(first, first + SEEDS_AT_ONCE):
        tell(seed)
