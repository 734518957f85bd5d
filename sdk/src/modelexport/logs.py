"""How operator and converter log: as events with fields, the same words in both, one line of JSON or of text each.

``export`` is always namespace/name, ``target`` format/precision, ``job`` the name of the Job and ``reason`` a word of
the closed list: one query finds the whole story of an object. What a line says is cleaned, wherever it comes from.
"""

import json
import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from modelexport.text import clean, clean_lines

log = logging.getLogger("modelexport")


def announce(event: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log an event with its fields."""
    log.log(level, event, extra=with_fields(**fields))


def with_fields(**fields: Any) -> Mapping[str, Any]:
    """Return the ``extra`` of a log call by which fields stand beside its message; those that are ``None`` do not."""
    return {"fields": {key: value for key, value in fields.items() if value is not None}}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON; ``context`` is in every line."""

    def __init__(self, context: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._context = context or {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; an event of ours has its own name, any other line is a ``log``."""
        message = clean_lines(record.getMessage())
        ours = {"event": message}
        others = {"event": "log", "logger": record.name, "message": message}
        line = {"time": _time_of(record), "level": record.levelname.lower(), **self._context}
        line |= ours if record.name == log.name else others
        line |= _fields_of(record)
        if record.exc_info:
            line["traceback"] = clean_lines(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Formats a record as one line for people: the message first, then its fields as ``key=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, and the lines of its traceback."""
        words = [_time_of(record), record.levelname, f"{record.name}:", clean(record.getMessage())]
        words += [f"{key}={_quote(str(value))}" for key, value in _fields_of(record).items()]
        traceback = [clean_lines(self.formatException(record.exc_info))] if record.exc_info else []
        return "\n".join([" ".join(words), *traceback])


def _fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return {clean(key): _cleaned(value) for key, value in fields.items()}


def _cleaned(value: Any) -> Any:
    """A value of a field without what must not be shown: whatever is no number that JSON has is text, or holds some."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {clean(str(key)): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return clean(str(value))


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _quote(text: str) -> str:
    """Quote what would not read as one word."""
    return text if text and not set(text) & set(' "=\n\t') else json.dumps(text, ensure_ascii=False)
