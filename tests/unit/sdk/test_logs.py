import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from modelexport.logs import JsonFormatter, TextFormatter, announce, log, with_fields
from modelexport.matrix.support import Format, Precision, Target

ONNX = Target(Format.ONNX, Precision.FP16)


class Kept(logging.Handler):
    """Keeps the log records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler, level = Kept(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)
    log.setLevel(level)


def record(message: str, name: str = "modelexport_operator.runtime.watch_check", **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.WARNING, "", 0, message, (), None)
    made.created = 1767323045.678
    made.__dict__.update(extra)
    return made


def test_event_is_json_line_with_ordered_fields(kept: Kept) -> None:
    announce("event", level=logging.WARNING, export="team/shapes", target=ONNX, job=None, reason="OOMKilled")
    line = json.loads(JsonFormatter().format(kept.records[0]))
    assert list(line) == ["time", "level", "event", "export", "target", "reason"]
    assert (line["level"], line["event"], line["target"]) == ("warning", "event", "ONNX/FP16")


def test_library_log_keeps_message_and_gains_context() -> None:
    line = json.loads(JsonFormatter({"export": "team/shapes"}).format(record("two\nlines", "kopf.reactor")))
    assert line == {
        "time": "2026-01-02T03:04:05.678+00:00",
        "level": "warning",
        "export": "team/shapes",
        "event": "log",
        "logger": "kopf.reactor",
        "message": "two\nlines",
    }


def test_text_log_is_message_then_fields() -> None:
    fields = with_fields(export="team/shapes", message='it said "no"', empty="")
    assert TextFormatter().format(record("busy;\nagain in 0.2 s", **fields)) == (
        "2026-01-02T03:04:05.678+00:00 WARNING modelexport_operator.runtime.watch_check: busy; again in 0.2 s "
        "export=team/shapes "
        r'message="it said \"no\"" empty=""'
    )


def test_both_formats_show_exception_origin() -> None:
    try:
        raise KeyError("odd")
    except KeyError:
        made = record("a defect", exc_info=sys.exc_info())
    assert "KeyError: 'odd'" in json.loads(JsonFormatter().format(made))["traceback"]
    first, *others = TextFormatter().format(made).splitlines()
    assert first.endswith("a defect")
    assert others[-1] == "KeyError: 'odd'"
