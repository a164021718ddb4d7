"""Patterns of names: `*` stands for one segment, `**` at the end for one or more."""

import re
from dataclasses import dataclass
from typing import Final

from identity import AgentUri, IdentityError, NamePrefix
from identity.uri import PATH_SEGMENTS_MAX, SCHEME

ONE: Final = "*"
REST: Final = "**"
_PLAIN: Final = re.compile(r"[^*]+")


class PatternError(Exception):
    """A pattern that cannot be read. The text says why."""


@dataclass(frozen=True, slots=True)
class NamePattern:
    """``segments`` has None for `*`; ``rest`` is whether `**` follows."""

    trust_domain: str
    segments: tuple[str | None, ...]
    rest: bool

    @classmethod
    def parse(cls, text: str) -> "NamePattern":
        """Raises PatternError."""
        if not text.startswith(SCHEME):
            raise PatternError(f"a name begins with {SCHEME}")
        trust_domain, *segments = text[len(SCHEME) :].split("/")
        rest = bool(segments) and segments[-1] == REST
        if rest:
            segments.pop()
        if len(segments) + rest > PATH_SEGMENTS_MAX:
            raise PatternError(f"a name has at most {PATH_SEGMENTS_MAX} segments")
        if not segments and not rest:
            raise PatternError(f"a name has a path; all of {trust_domain} is {text}/{REST}")
        for part in segments:
            if part == REST:
                raise PatternError("** can only come last")
            if part != ONE and not _PLAIN.fullmatch(part):
                raise PatternError("* stands for a whole segment, not for a part of one")
        try:
            # The one place that knows what a segment is checks all but the stars.
            NamePrefix(trust_domain, tuple(part for part in segments if part != ONE))
        except IdentityError as error:
            raise PatternError(error.detail) from None
        return cls(trust_domain, tuple(None if part == ONE else part for part in segments), rest)

    def __str__(self) -> str:
        segments = [part or ONE for part in self.segments]
        return f"{SCHEME}{'/'.join([self.trust_domain, *segments, *([REST] if self.rest else [])])}"

    @property
    def exact(self) -> AgentUri | None:
        """The only name that matches, if there is just one."""
        plain = tuple(part for part in self.segments if part is not None)
        if self.rest or len(plain) != len(self.segments):
            return None
        return AgentUri(self.trust_domain, plain)

    def matches(self, name: AgentUri) -> bool:
        path, segments = name.path, self.segments
        fixed = len(segments)
        long_enough = len(path) > fixed if self.rest else len(path) == fixed
        if not long_enough or name.trust_domain != self.trust_domain:
            return False
        # A loop, and by number: all() and zip(strict=False) take longer than what they are for.
        for at, part in enumerate(segments):  # noqa: SIM110
            if part is not None and part != path[at]:
                return False
        return True

    def covers(self, prefix: NamePrefix) -> bool:
        """Whether every name of the prefix is meant, its own included: `acme/a/**` has `acme/a`."""
        if not self.rest:
            return False
        return len(prefix.path) >= len(self.segments) and self._agrees(prefix)

    def overlaps(self, prefix: NamePrefix) -> bool:
        """Whether any name of the prefix is meant."""
        if not self.rest and len(prefix.path) > len(self.segments):
            return False
        return self._agrees(prefix)

    def _agrees(self, prefix: NamePrefix) -> bool:
        return prefix.trust_domain == self.trust_domain and all(
            part is None or part == actual
            for part, actual in zip(self.segments, prefix.path, strict=False)
        )
