"""Whether a program is ready, and if not, what it still waits for, by name."""

from collections.abc import Callable
from typing import Final

AWAITED_MAX: Final = 64


class Readiness:
    """A program is ready when nothing is awaited and no check has a complaint."""

    def __init__(self) -> None:
        self._awaited: dict[str, None] = {}
        self._checks: list[Callable[[], str | None]] = []

    def wait_for(self, name: str) -> None:
        """Not ready until ``arrived(name)``: "gateway", say, or "credential"."""
        if len(self._awaited) >= AWAITED_MAX:
            raise ValueError(f"more than {AWAITED_MAX} things awaited")
        self._awaited[name] = None

    def arrived(self, name: str) -> None:
        """Harmless for what was not awaited."""
        self._awaited.pop(name, None)

    def check(self, complaint: Callable[[], str | None]) -> None:
        """Asked each time somebody looks; None means that all is well."""
        self._checks.append(complaint)

    def awaited(self) -> list[str]:
        """In the order in which they were named; complaints last."""
        complaints = (complaint() for complaint in self._checks)
        return [*self._awaited, *(text for text in complaints if text is not None)]
