"""One seed is one story: which weather it has, and how it is told again."""

from typing import Final

from tests.simulation.story import Story
from tests.simulation.weathers import WEATHERS

_NAMES: Final = tuple(WEATHERS)


def weather_of(seed: int) -> str:
    return _NAMES[seed % len(_NAMES)]


def tell(seed: int, weather: str | None = None) -> Story:
    """Run a story. What breaks a promise says how to see it again."""
    weather = weather or weather_of(seed)
    try:
        story = Story(seed, WEATHERS[weather])
        story.run()
    except BaseException as error:
        error.add_note(f"again: python -m tests.simulation.replay {seed} {weather}")
        raise
    return story


def try_to_tell(seed: int) -> tuple[int, str]:
    """The seed, and what was broken in its story, if anything was."""
    try:
        tell(seed)
    except Exception as error:
        notes = "\n".join(getattr(error, "__notes__", ()))
        return seed, f"  {type(error).__name__}: {error}\n  {notes}"
    return seed, ""
