"""Words for OpenAPI v3 schemas as Kubernetes takes them: every one has a description, and everything has a limit.

Limits are not politeness: the API server multiplies them to estimate what a CEL rule may cost, and refuses a CRD whose
rules could cost too much.
"""

from collections.abc import Sequence
from typing import Any

from modelexport.text import HIDDEN

Schema = dict[str, Any]
HIDDEN_PROBLEM = "holds a character that cannot be seen; type it anew"


def text(description: str, limit: int, *rules: Schema, **more: Any) -> Schema:
    """A non-empty text of at most ``limit`` characters."""
    return {"type": "string", "description": description, "minLength": 1, "maxLength": limit, **more, **_rules(rules)}


def visible(description: str, limit: int, *rules: Schema, **more: Any) -> Schema:
    """A non-empty text that is shown as it is: a name or a URI."""
    return text(description, limit, rule(f"!self.matches(r'{HIDDEN}')", HIDDEN_PROBLEM), *rules, **more)


def words(description: str, allowed: Sequence[str], **more: Any) -> Schema:
    """One of several words; the API server names them all when it refuses another."""
    return {"type": "string", "description": description, "enum": [str(word) for word in allowed], **more}


def integer(description: str, low: int, high: int, **more: Any) -> Schema:
    """A whole number in an interval."""
    kind = "int32" if high < 2**31 else "int64"
    return {"type": "integer", "format": kind, "description": description, "minimum": low, "maximum": high, **more}


def flag(description: str) -> Schema:
    """True or false; false when it is left out."""
    return {"type": "boolean", "description": description, "default": False}


def time(description: str) -> Schema:
    """A moment in RFC 3339."""
    return {"type": "string", "format": "date-time", "description": description}


def record(description: str, properties: Schema, *rules: Schema, required: Sequence[str] = (), **more: Any) -> Schema:
    """An object of named fields."""
    schema = {"type": "object", "description": description, "properties": properties, **more}
    return {**schema, **({"required": list(required)} if required else {}), **_rules(rules)}


def mapping(description: str, limit: int, values: Schema, *rules: Schema) -> Schema:
    """An object with free keys."""
    schema = {"type": "object", "description": description, "maxProperties": limit, "additionalProperties": values}
    return {**schema, **_rules(rules)}


def keyed_list(description: str, keys: Sequence[str], items: Schema, low: int, high: int) -> Schema:
    """A list in which no two items agree in all keys; server-side apply merges it by them."""
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
    """A list that is replaced as a whole."""
    return {"type": "array", "description": description, "maxItems": high, "items": items}


def word_set(description: str, allowed: Sequence[str]) -> Schema:
    """A list of words, each at most once."""
    items = {"type": "string", "enum": [str(word) for word in allowed]}
    return {**plain_list(description, items, len(allowed)), "x-kubernetes-list-type": "set"}


def text_set(description: str, items: Schema, low: int, high: int) -> Schema:
    """A list of texts of which none stands twice."""
    return {**plain_list(description, items, high), "minItems": low, "x-kubernetes-list-type": "set"}


def rule(expression: str, message: str, **more: Any) -> Schema:
    """A CEL rule: ``expression`` has to be true, or the API server answers ``message``."""
    return {"rule": expression, "message": message, **more}


def cel_list(values: Sequence[str]) -> str:
    """A list of texts as a literal of CEL."""
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"


def _rules(rules: Sequence[Schema]) -> Schema:
    return {"x-kubernetes-validations": list(rules)} if rules else {}
