"""The JSON Schema of a policy file, for editors: what they complete, and what they underline.

The reader is stricter: it also knows which attributes are declared and what an expression means.
A test holds that both know the same keys.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from identity import RESERVED_ATTRIBUTES
from policy.cel_source import SOURCE_BYTES_MAX
from policy.documents import API_VERSION, KIND, RULES_MAX, TESTS_MAX
from policy.fields import (
    ATTRIBUTE_NAME,
    ATTRIBUTES_MAX,
    KINDS,
    NAME_CHARS_MAX,
    ROLES_OF_NODE,
    SERVICE_NAME,
    TOOL_NAME_CHARS_MAX,
)
from policy.limits import BURST_MAX, Per
from policy.obligations import Disclosure
from policy.reader import LIST_ITEMS_MAX, TEXT_CHARS_MAX
from policy.request import Action
from policy.terms import FIELD, MODES, RATE, RESULT_BYTES_MAX, RESULT_SECONDS_MAX

DRAFT: Final = "http://json-schema.org/draft-07/schema#"
IDENTIFIER_PATTERN: Final = "^sl1[02-9ac-hj-np-z]{58}$"

Schema = dict[str, Any]

_MODE: Final[Schema] = {"enum": list(MODES)}
_DISCLOSE: Final[Schema] = {"enum": [str(one) for one in Disclosure]}


def policy_schema() -> Schema:
    """A document of draft 7, which the editors' YAML servers read."""
    return {
        "$schema": DRAFT,
        "title": "Sidelink policy",
        **_mapping(
            {
                "apiVersion": {"const": API_VERSION},
                "kind": {"const": KIND},
                "metadata": _mapping(
                    {"name": _text(), "description": _text(), "mode": _MODE, "disclose": _DISCLOSE}
                ),
                "attributes": _attributes(),
                "rules": _list({"$ref": "#/definitions/rule"}, RULES_MAX, empty=True),
                "tests": _list({"$ref": "#/definitions/test"}, TESTS_MAX, empty=True),
            },
            required=("apiVersion", "kind"),
        ),
        "definitions": {
            "rule": _rule(),
            "test": _test(),
            "action": {"enum": [str(action) for action in Action]},
            "service": _pattern(SERVICE_NAME.pattern),
            "name": _pattern("agent://.+", "agent://domain/path; * is one segment, ** the rest."),
            "attribute": _one_or_more({"type": ["string", "integer", "boolean"]}),
        },
    }


def _rule() -> Schema:
    return _mapping(
        {
            "name": {"type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX},
            "description": _text(),
            "effect": {"enum": ["allow", "deny"]},
            "actions": _one_or_more({"$ref": "#/definitions/action"}),
            "from": _selector("Who asks."),
            "to": _selector("Whom or what it concerns.", _service(_one_or_more)),
            "tools": _one_or_more(_text(TOOL_NAME_CHARS_MAX)),
            "prompts": _one_or_more(_text(TOOL_NAME_CHARS_MAX)),
            "resources": _one_or_more(_pattern("[a-z][a-z0-9+.-]*:.*", "As in file:///docs/*.")),
            "when": {
                "type": "string",
                "minLength": 1,
                "maxLength": SOURCE_BYTES_MAX,
                "description": "A CEL expression that must hold.",
            },
            "limit": _limit(),
            "mode": _MODE,
            "disclose": _DISCLOSE,
            "redact": _one_or_more(_pattern(FIELD.pattern, "As in customer.phones.*.number.")),
            "audit_args": _one_or_more(_pattern(FIELD.pattern)),
            "max_bytes": {"type": "integer", "minimum": 1, "maximum": RESULT_BYTES_MAX},
            "max_seconds": {"type": "integer", "minimum": 1, "maximum": RESULT_SECONDS_MAX},
        },
        required=("name", "effect", "actions"),
    )


def _limit() -> Schema:
    return _mapping(
        {
            "rate": _pattern(RATE.pattern, "As in 50/s, 30/min, 5/h or 1/d."),
            "burst": {"type": "integer", "minimum": 1, "maximum": BURST_MAX},
            "per": {"enum": [str(one) for one in Per]},
        },
        required=("rate",),
    )


def _test() -> Schema:
    return _mapping(
        {
            "name": _text(),
            "action": {"$ref": "#/definitions/action"},
            "from": _party("Who asks, made up."),
            "to": _party("Whom or what it concerns, made up.", _service(lambda one: one)),
            "tool": _text(),
            "prompt": _text(),
            "resource": _text(),
            "args": {"type": "object"},
            "result": {"type": "object"},
            "size": {"type": "integer", "minimum": 0},
            "prefix": {"$ref": "#/definitions/name"},
            "at": _text(),
            "expect": {"enum": ["allow", "deny"]},
            "rule": _text(),
        },
        required=("name", "action", "expect"),
    )


def _selector(what: str, more: Mapping[str, Schema] | None = None) -> Schema:
    fields = {
        "identifier": _one_or_more({"type": "string", "pattern": IDENTIFIER_PATTERN}),
        "issuer": _one_or_more({"type": "string", "pattern": IDENTIFIER_PATTERN}),
        "kind": _one_or_more({"enum": list(KINDS)}),
        "name": _one_or_more({"$ref": "#/definitions/name"}),
        "role_of_node": _one_or_more({"enum": list(ROLES_OF_NODE)}),
        "trust_domain": _one_or_more(_text()),
    }
    return _people(what, fields, more)


def _party(what: str, more: Mapping[str, Schema] | None = None) -> Schema:
    """The same keys, each with one value."""
    fields: dict[str, Schema] = {
        "identifier": {"type": "string", "pattern": IDENTIFIER_PATTERN},
        "issuer": {"type": "string", "pattern": IDENTIFIER_PATTERN},
        "kind": {"enum": list(KINDS)},
        "name": {"$ref": "#/definitions/name"},
        "role_of_node": {"enum": list(ROLES_OF_NODE)},
        "trust_domain": _text(),
    }
    return _people(what, fields, more)


def _people(what: str, fields: Mapping[str, Schema], more: Mapping[str, Schema] | None) -> Schema:
    """Any other key is an attribute, which the file declares."""
    return {
        "type": "object",
        "description": what,
        "properties": {**fields, **(more or {})},
        "propertyNames": {"pattern": f"^{ATTRIBUTE_NAME.pattern}$"},
        "additionalProperties": {"$ref": "#/definitions/attribute"},
    }


def _service(many: Any) -> dict[str, Schema]:
    return {"service": many({"$ref": "#/definitions/service"})}


def _attributes() -> Schema:
    reserved = sorted({*RESERVED_ATTRIBUTES, "service"})
    return {
        "type": ["object", "null"],
        "description": "Each attribute that rules use, with its type.",
        "maxProperties": ATTRIBUTES_MAX,
        "propertyNames": {
            "pattern": f"^{ATTRIBUTE_NAME.pattern}$",
            "not": {"enum": reserved},
        },
        "additionalProperties": {"enum": ["text", "int", "bool", "list"]},
    }


def _mapping(properties: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    schema: Schema = {
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
    }
    return schema | ({"required": list(required)} if required else {})


def _list(items: Schema, items_max: int, *, empty: bool = False) -> Schema:
    if empty:  # Also when all that stood there is commented out.
        return {"type": ["array", "null"], "items": items, "maxItems": items_max}
    return {"type": "array", "items": items, "minItems": 1, "maxItems": items_max}


def _one_or_more(one: Schema) -> Schema:
    return {"anyOf": [one, _list(one, LIST_ITEMS_MAX)]}


def _text(characters_max: int = TEXT_CHARS_MAX) -> Schema:
    return {"type": "string", "minLength": 1, "maxLength": characters_max}


def _pattern(pattern: str, description: str | None = None) -> Schema:
    schema: Schema = {"type": "string", "pattern": f"^{pattern}$"}
    return schema if description is None else schema | {"description": description}
