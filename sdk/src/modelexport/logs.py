"""Logging of operator and converter: events with fields, one line of JSON or text each.

Both use the same fields: ``export`` is namespace/name, ``target`` format/precision, ``job`` the name of the Job and
``reason`` a word of the closed list, so one query finds all lines of an object. All values are cleaned.
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
    """Return the ``extra`` argument of a log call that adds fields to its message; ``None`` values are left out."""
    return {"fields": {key: value for key, value in fields.items() if value is not None}}


def parse_event(line: bytes) -> dict[str, Any]:
    """Return the event in a line of the converter's log, or an empty one if the line is not an event."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON, with the fields of ``context`` in every line."""

    def __init__(self, context: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._context = context or {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; records of other loggers become the event ``log``."""
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
    """Formats a record as one readable line: the message, then its fields as ``key=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, and the lines of its traceback; a value with spaces, quotes or = is quoted."""
        words = [_time_of(record), record.levelname, f"{record.name}:", clean(record.getMessage())]
        for key, value in _fields_of(record).items():
            text = str(value)
            is_plain = text and not set(text) & set(' "=\n\t')
            words.append(f"{key}={text if is_plain else json.dumps(text, ensure_ascii=False)}")
        traceback = [clean_lines(self.formatException(record.exc_info))] if record.exc_info else []
        return "\n".join([" ".join(words), *traceback])


def _fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return {clean(key): _cleaned(value) for key, value in fields.items()}


def _cleaned(value: Any) -> Any:
    """Return a cleaned value; all values but ``None``, booleans and finite numbers become cleaned strings."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {clean(str(key)): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return clean(str(value))


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
