"""Reads policies: one file, or several that are one bundle. All of it is good, or none of it is."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from identity import RESERVED_ATTRIBUTES
from policy.bundles import BASELINE_PREFIX, MANDATORY_PREFIX
from policy.cel import ValueType
from policy.condition import ConditionCompiler
from policy.errors import PolicyError, YamlError
from policy.fields import ATTRIBUTE_NAME, ATTRIBUTES_MAX
from policy.model import PolicyDocument, Rule
from policy.reader import Place, Reader, kind_of, otherwise, quoted
from policy.rules import RuleReader
from policy.strict_yaml import Path, load_strict
from policy.terms import Terms, read_defaults

API_VERSION: Final = "sidelink/v1"
KIND: Final = "Policy"
RULES_MAX: Final = 10_000
TESTS_MAX: Final = 10_000
FILES_MAX: Final = 256
_VERSION_CHARS: Final = 16
_TAKEN_PREFIXES: Final = (
    (BASELINE_PREFIX, "built-in rules"),
    (MANDATORY_PREFIX, "the trust domain's own rules"),
)

_DECLARABLE: Final = (ValueType.TEXT, ValueType.INT, ValueType.BOOL, ValueType.LIST)
_TOP_KEYS: Final = ("apiVersion", "kind", "metadata", "attributes", "rules", "tests")
_METADATA_KEYS: Final = ("name", "description", "mode", "disclose")


@dataclass(frozen=True, slots=True)
class PolicySource:
    """One file of a bundle. ``name`` is for messages only."""

    name: str
    text: str


def version_of(texts: Sequence[str]) -> str:
    """One name for these texts, in whatever order they came and whatever their files are called."""
    digest = hashlib.sha256()
    for text in sorted(texts):
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()[:_VERSION_CHARS]


def read_policy(text: str, file: str) -> PolicyDocument | None:
    """None for a text without any content. Raises PolicyError."""
    documents = read_bundle([PolicySource(file, text)], may_be_built_in=True)
    return documents[0] if documents else None


def read_bundle(
    sources: Sequence[PolicySource], *, may_be_built_in: bool = False
) -> tuple[PolicyDocument, ...]:
    """The documents of all files that have any content. Raises PolicyError.

    Attributes that one file declares hold in all; names of rules are unique across them.
    """
    if len(sources) > FILES_MAX:
        raise PolicyError(
            sources[FILES_MAX].name,
            1,
            1,
            f"the policy has {len(sources)} files; at most {FILES_MAX} are read.",
            "Put rules that belong together into one file.",
        )
    declared = _Declarations()
    opened = [one for one in map(_open, sources) if one is not None]
    for top, reader in opened:
        declared.read(top, reader)
    conditions = ConditionCompiler(declared.attributes)
    places: dict[str, Place] = {}
    documents: list[PolicyDocument] = []
    for top, reader in opened:
        name, defaults = _read_metadata(top, reader)
        builder = RuleReader(reader, conditions, places, defaults)
        listed = reader.items(_filled(top, "rules", []), ("rules",), "rules", RULES_MAX)
        rules: list[Rule] = []
        for index, rule in enumerate(listed):
            if len(places) >= RULES_MAX:
                raise reader.error(
                    ("rules", index),
                    f"the files have more than {RULES_MAX} rules together.",
                    "Make rules that say the same of several into one, with a list.",
                )
            rules.append(builder.read(rule, ("rules", index)))
        if not may_be_built_in:
            _check_names(rules, reader)
        tests = reader.items(_filled(top, "tests", []), ("tests",), "tests", TESTS_MAX)
        documents.append(
            PolicyDocument(
                name, defaults, declared.attributes, tuple(rules), tuple(tests), reader, frozenset()
            )
        )
    names = frozenset(places)
    return tuple(replace(document, rule_names=names) for document in documents)


def _open(source: PolicySource) -> tuple[dict[str, Any], Reader] | None:
    """The keys at the top of one file, if it has any content."""
    try:
        data, positions = load_strict(source.text, source.name)
    except YamlError as error:
        raise PolicyError(
            error.file, error.line, error.column, error.problem, error.remedy
        ) from None
    if data is None:
        return None
    reader = Reader(positions, source.name)
    top = reader.mapping(data, (), "the policy")
    reader.known_keys(top, (), "the policy", _TOP_KEYS)
    for key, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        value = reader.required(top, key, (), "the policy")
        if value != expected:
            raise reader.error(
                (key,),
                f"{key} is {kind_of(value)}, not {quoted(expected)}.",
                f"Write `{key}: {expected}`.",
            )
    return top, reader


def _filled(top: dict[str, Any], key: str, empty: Any) -> Any:
    """The value; a key whose contents are all commented out counts as empty."""
    value = top.get(key)
    return empty if value is None else value


def _read_metadata(top: dict[str, Any], reader: Reader) -> tuple[str | None, Terms]:
    """The name, and what holds for rules that do not say it themselves."""
    if "metadata" not in top:
        return None, Terms()
    path: Path = ("metadata",)
    metadata = reader.mapping(top["metadata"], path, "metadata")
    reader.known_keys(metadata, path, "metadata", _METADATA_KEYS)
    for key, value in metadata.items():
        reader.text(value, (*path, key), f"metadata.{key}")
    return metadata.get("name"), read_defaults(metadata, path, reader)


class _Declarations:
    """The attributes of all files: the same one may be declared twice, if it is of one type."""

    def __init__(self) -> None:
        self.attributes: dict[str, ValueType] = {}
        self._places: dict[str, Place] = {}

    def read(self, top: dict[str, Any], reader: Reader) -> None:
        path: Path = ("attributes",)
        declared = reader.mapping(_filled(top, "attributes", {}), path, "attributes")
        for name, kind in declared.items():
            here = (*path, name)
            _check_attribute_name(name, here, reader)
            choice = ValueType(
                reader.choice(kind, here, f"the type of {name}", [str(one) for one in _DECLARABLE])
            )
            place = reader.place_of(here)
            first = self._places.setdefault(name, place)
            if self.attributes.setdefault(name, choice) is not choice:
                raise reader.error(
                    here,
                    f"{name} is declared as {choice} here, and as {self.attributes[name]} "
                    f"{first.seen_from(place)}.",
                    "An attribute has one type in all files: make them the same.",
                )
        if len(self.attributes) > ATTRIBUTES_MAX:
            raise reader.error(
                path,
                f"{len(self.attributes)} attributes are declared.",
                f"Declare {ATTRIBUTES_MAX} at most.",
            )


def _check_attribute_name(name: str, path: Path, reader: Reader) -> None:
    if name in RESERVED_ATTRIBUTES or name == "service":
        raise reader.error_of_key(
            path, f"{name} has a meaning of its own in rules.", "Remove it, or rename it."
        )
    if not ATTRIBUTE_NAME.fullmatch(name):
        lower = name.lower().replace("-", "_").replace(" ", "_")
        better = lower if ATTRIBUTE_NAME.fullmatch(lower) else None
        raise reader.error_of_key(
            path,
            f"{quoted(name)} is no attribute name.",
            otherwise(better, "Use lowercase letters, digits and _, beginning with a letter."),
        )


def _check_names(rules: Sequence[Rule], reader: Reader) -> None:
    for index, rule in enumerate(rules):
        for prefix, whose in _TAKEN_PREFIXES:
            if rule.name.startswith(prefix):
                raise reader.error(
                    ("rules", index, "name"),
                    f"names that begin with {quoted(prefix)} are those of {whose}.",
                    "Give the rule another name.",
                )
