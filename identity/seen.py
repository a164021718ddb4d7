"""How far each identity's history was seen: a replaced key cannot come back by leaving it out."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Protocol

from identity.codes import Code
from identity.errors import IdentityError
from identity.history import ChangeHistory, Pin
from identity.identifier import Identifier

# At a fifth of a KiB each. Only identities that have rotated are remembered.
SEEN_MAX: Final = 65_536


class SeenHistories(Protocol):
    """Remembers the newest verified point of histories that have more than one change."""

    def pin_of(self, identifier: Identifier) -> Pin | None: ...
    def saw(self, identifier: Identifier, pin: Pin) -> None:
        """Called with a verified pin that is newer than the one remembered."""
        ...


class SeenInMemory:
    """A bounded number of them; what grew least recently is forgotten first."""

    def __init__(self, seen_max: int = SEEN_MAX) -> None:
        self._pins: OrderedDict[Identifier, Pin] = OrderedDict()
        self._seen_max = seen_max
        self._news: set[Identifier] = set()

    def pin_of(self, identifier: Identifier) -> Pin | None:
        return self._pins.get(identifier)

    def saw(self, identifier: Identifier, pin: Pin) -> None:
        self._pins[identifier] = pin
        self._pins.move_to_end(identifier)
        self._news.add(identifier)
        while len(self._pins) > self._seen_max:
            forgotten, _ = self._pins.popitem(last=False)
            self._news.add(forgotten)

    def take_news(self) -> dict[Identifier, Pin | None]:
        """What has changed since this was called last: new pins, and None for what was forgotten.

        For whoever keeps them where they outlive the process; who could not, gives them back.
        """
        news, self._news = self._news, set()
        return {identifier: self._pins.get(identifier) for identifier in news}

    def give_back(self, news: Iterable[Identifier]) -> None:
        """What was taken could not be kept: it is news again."""
        self._news.update(news)


def check_seen(seen: SeenHistories, history: ChangeHistory) -> Pin | None:
    """The pin that was seen, or IdentityError for a history that is older, or forks from it."""
    pin = seen.pin_of(history.identifier)
    if pin is None:
        return None
    if history.change_number < pin.change_number:
        raise IdentityError(
            Code.CHANNEL_HISTORY_OUTDATED,
            f"a history of {history.change_number} changes, and {pin.change_number} were seen",
        )
    history.check_pin(pin)
    return pin


def note_seen(seen: SeenHistories, history: ChangeHistory) -> None:
    """Remember a verified history, if it says more than what is remembered."""
    if history.change_number == 0:
        return
    pin = seen.pin_of(history.identifier)
    if pin is None or pin.change_number < history.change_number:
        seen.saw(history.identifier, history.pin)
