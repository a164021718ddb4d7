"""Meshes under chaos on seeds: the same seed is the same story, and all of it is right."""

import pytest

from tests.simulation.story import Chaos, Story
from tests.simulation.weathers import WEATHERS

SHORT = Chaos(seconds=8)
PROVE_SEEDS = range(1_000, 1_100)


def run(seed: int, chaos: Chaos, weather: str) -> Story:
    try:
        story = Story(seed, chaos)
        story.run()
    except BaseException as error:
        error.add_note(f"seed {seed}; replay: python -m tests.simulation.replay {seed} {weather}")
        raise
    return story


@pytest.mark.parametrize(("seed", "weather"), list(enumerate(WEATHERS)))
def test_a_mesh_keeps_its_promises_in_any_weather(seed: int, weather: str) -> None:
    run(seed, WEATHERS[weather], weather)


def test_the_same_seed_tells_the_same_story() -> None:
    first, second = (run(3, SHORT, "everything") for _ in range(2))

    assert len(first.told) > 50
    assert first.told == second.told


@pytest.mark.prove
@pytest.mark.parametrize("weather", WEATHERS)
@pytest.mark.parametrize("seed", PROVE_SEEDS)
def test_many_meshes_keep_their_promises(seed: int, weather: str) -> None:
    run(seed, WEATHERS[weather], weather)
