"""Agent URIs and name prefixes: the only place that parses and prints names.

    agent://<trust-domain>/<segment>[/<segment>…]

Lowercase ASCII. One name has one spelling: nothing is decoded, folded or trimmed.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from identity.codes import Code
from identity.errors import IdentityError

SCHEME: Final = "agent://"
SEGMENT_CHARS_MAX: Final = 63
PATH_SEGMENTS_MAX: Final = 8
URI_BYTES_MAX: Final = 255
# Names that were read last are not read again; those of agents that are gone take 0.4 KiB each.
NAMES_KEPT_MAX: Final = 1_024

_SEGMENT: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def validate_trust_domain(text: str) -> str:
    """Return the trust domain as it is, or raise IdentityError: it is one segment."""
    if type(text) is not str or not _SEGMENT.fullmatch(text):
        raise _malformed(f"not a trust domain: {_quote(text)}")
    return text


def _check(trust_domain: object, path: object, segments_min: int) -> None:
    # The parts are checked here and nowhere else, so that no unchecked name can exist.
    if type(trust_domain) is not str or not _SEGMENT.fullmatch(trust_domain):
        raise _malformed(f"not a trust domain: {_quote(trust_domain)}")
    if type(path) is not tuple or not segments_min <= len(path) <= PATH_SEGMENTS_MAX:
        raise _malformed(f"a name has {segments_min} to {PATH_SEGMENTS_MAX} segments")
    uri_bytes = len(SCHEME) + len(trust_domain)
    for segment in path:
        if type(segment) is not str or not _SEGMENT.fullmatch(segment):
            raise _malformed(f"not a segment of a name: {_quote(segment)}")
        uri_bytes += 1 + len(segment)
    if uri_bytes > URI_BYTES_MAX:
        raise _malformed(f"a name is at most {URI_BYTES_MAX} bytes")


@dataclass(frozen=True, slots=True, order=True)
class AgentUri:
    """The name of an agent or a node. Raises IdentityError unless every part is well formed."""

    trust_domain: str
    path: tuple[str, ...]

    def __post_init__(self) -> None:
        _check(self.trust_domain, self.path, segments_min=1)

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}/{'/'.join(self.path)}"

    @classmethod
    def parse(cls, text: str) -> "AgentUri":
        if type(text) is not str:
            raise _malformed("a name is text")
        return _parse_uri(text)

    @classmethod
    def in_domain(cls, trust_domain: str, path: str) -> "AgentUri":
        """The URI of a path such as `finance/planner` within a trust domain."""
        # Not by joining texts: a slash in the trust domain must not become a segment.
        return cls(trust_domain, tuple(path.split("/")))


@dataclass(frozen=True, slots=True, order=True)
class NamePrefix:
    """All names that begin with these whole segments; without a path, the whole trust domain."""

    trust_domain: str
    path: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(self.trust_domain, self.path, segments_min=0)

    def __str__(self) -> str:
        return "/".join((f"{SCHEME}{self.trust_domain}", *self.path))

    @classmethod
    def parse(cls, text: str) -> "NamePrefix":
        return cls(*_split(text))

    def covers(self, name: "AgentUri | NamePrefix") -> bool:
        """True for the prefix itself and whatever lies below it, by whole segments."""
        return name.trust_domain == self.trust_domain and name.path[: len(self.path)] == self.path


@lru_cache(maxsize=NAMES_KEPT_MAX)
def _parse_uri(text: str) -> AgentUri:
    return AgentUri(*_split(text))


def _split(text: str) -> tuple[str, tuple[str, ...]]:
    if type(text) is not str or len(text) > URI_BYTES_MAX or not text.startswith(SCHEME):
        raise _malformed(f"a name starts with {SCHEME} and is at most {URI_BYTES_MAX} bytes")
    trust_domain, *path = text[len(SCHEME) :].split("/")
    return trust_domain, tuple(path)


def _quote(value: object) -> str:
    return ascii(value)[:80]


def _malformed(detail: str) -> IdentityError:
    return IdentityError(Code.CHANNEL_WRONG_NAME, detail)
