"""Tells the story of one seed again: python -m tests.simulation.replay SEED [WEATHER]."""

import sys

from tests.simulation.seeds import weather_of
from tests.simulation.story import Story
from tests.simulation.weathers import WEATHERS


def main() -> None:
    seed = int(sys.argv[1])
    story = Story(seed, WEATHERS[sys.argv[2] if len(sys.argv) > 2 else weather_of(seed)])
    try:
        story.run()
    finally:
        print("\n".join(story.told))


if __name__ == "__main__":
    main()
