"""Builders for the OpenAPI v3 schemas of CRDs: every field has a description, and every value has a limit.

The limits are required: the API server multiplies them to estimate the cost of CEL rules, and rejects a CRD whose rules
could cost too much.
"""

from collections.abc import Sequence
from typing import Any

from modelexport.text import HIDDEN

Schema = dict[str, Any]
HIDDEN_PROBLEM = "contains an invisible character; retype it"


def text(description: str, limit: int, *rules: Schema, **more: Any) -> Schema:
    """Return a non-empty string of at most ``limit`` characters."""
    return {"type": "string", "description": description, "minLength": 1, "maxLength": limit, **more, **_rules(rules)}


def visible(description: str, limit: int, *rules: Schema, **more: Any) -> Schema:
    """Return a non-empty string without invisible characters, such as a name or a URI."""
    return text(description, limit, rule(f"!self.matches(r'{HIDDEN}')", HIDDEN_PROBLEM), *rules, **more)


def words(description: str, allowed: Sequence[str], **more: Any) -> Schema:
    """Return an enum; the API server lists its values when it rejects another."""
    return {"type": "string", "description": description, "enum": [str(word) for word in allowed], **more}


def integer(description: str, low: int, high: int, **more: Any) -> Schema:
    """Return an integer from ``low`` to ``high``."""
    kind = "int32" if high < 2**31 else "int64"
    return {"type": "integer", "format": kind, "description": description, "minimum": low, "maximum": high, **more}


def flag(description: str) -> Schema:
    """Return a boolean that defaults to false."""
    return {"type": "boolean", "description": description, "default": False}


def time(description: str) -> Schema:
    """Return a time in RFC 3339 format."""
    return {"type": "string", "format": "date-time", "description": description}


def record(description: str, properties: Schema, *rules: Schema, required: Sequence[str] = (), **more: Any) -> Schema:
    """Return an object with the given fields."""
    schema = {"type": "object", "description": description, "properties": properties, **more}
    return {**schema, **({"required": list(required)} if required else {}), **_rules(rules)}


def mapping(description: str, limit: int, values: Schema, *rules: Schema) -> Schema:
    """Return an object with free keys."""
    schema = {"type": "object", "description": description, "maxProperties": limit, "additionalProperties": values}
    return {**schema, **_rules(rules)}


def keyed_list(description: str, keys: Sequence[str], items: Schema, low: int, high: int) -> Schema:
    """Return a list whose items are unique by ``keys``; server-side apply merges it by them."""
    return {
        "type": "array",
        "description": description,
        "minItems": low,
        "maxItems": high,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": list(keys),
        "items": items,
    }


def plain_list(description: str, items: Schema, high: int) -> Schema:
    """Return a list that server-side apply replaces as a whole."""
    return {"type": "array", "description": description, "maxItems": high, "items": items}


def word_set(description: str, allowed: Sequence[str]) -> Schema:
    """Return a list of unique enum values."""
    items = {"type": "string", "enum": [str(word) for word in allowed]}
    return {**plain_list(description, items, len(allowed)), "x-kubernetes-list-type": "set"}


def text_set(description: str, items: Schema, low: int, high: int) -> Schema:
    """Return a list of unique strings."""
    return {**plain_list(description, items, high), "minItems": low, "x-kubernetes-list-type": "set"}


def rule(expression: str, message: str, **more: Any) -> Schema:
    """Return a CEL rule: if ``expression`` is false, the API server rejects the object with ``message``."""
    return {"rule": expression, "message": message, **more}


def cel_list(values: Sequence[str]) -> str:
    """Return a list of strings as a CEL literal."""
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"


def _rules(rules: Sequence[Schema]) -> Schema:
    return {"x-kubernetes-validations": list(rules)} if rules else {}
