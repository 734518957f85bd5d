"""An operator process whose API server, or a proxy before it, gives invalid answers."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from security.api_server import ApiServer, served, wait_for
from testplane.process import Operator


def error(**fields: Any) -> bytes:
    return json.dumps({"type": "ERROR", "object": {"kind": "Status", **fields}}).encode() + b"\n"


WORDS: dict[str, dict[str, list[bytes]]] = {
    "errors": {
        "modelexports": [error(code=500, reason="InternalError", message="decoding")],
        "exportclasses": [error(code=403)],
        "pods": [error(code=500)],
        "jobs": [error(message="\x1b[31m")],
        "nodes": [error()],
    },
    "no errors": {
        "modelexports": [error(message="no code")],
        "exportclasses": [b"<html>bad gateway</html>\n"],
        "pods": [b"<html>bad gateway</html>\n"],
        "jobs": [b'{"type":"ADDED"}\n'],
        "nodes": [b"null\n"],
    },
    "half a line": {
        "modelexports": [b'{"type":"ADDED","object":{"metadata":'],
        "exportclasses": [b'{"type":"ADDED"'],
        "pods": [b'{"type":"ADDED","object":{"metadata":'],
        "jobs": [b"\xff\xfe"],
        "nodes": [b"{"],
    },
}


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_no_watch_event_ends_process(words: dict[str, list[bytes]], tmp_path: Path) -> None:
    api = ApiServer()
    api.words = dict(words)
    with served(api):
        operator = Operator(f"http://127.0.0.1:{api.port}", tmp_path)
        with operator.running():
            wait_for(lambda: all(api.watches[plural] > 1 for plural in words), operator)
            wait_for(lambda: operator.ask("/readyz")[0] == 200, operator)
            assert operator.process is not None
            operator.process.send_signal(signal.SIGTERM)
            assert operator.process.wait(60) == 0
    assert "\x1b" not in operator.log.read_text()


LISTS: dict[str, dict[str, Any]] = {
    "no JSON": {"text": "<html>bad gateway</html>"},
    "half a page": {"text": '{"metadata": {"resourceVersion": "5"}, "items": [{'},
    "no list": {"text": "[]"},
    "items that are no list": {"text": '{"metadata": {"resourceVersion": "5"}, "items": "many"}'},
    "an item without metadata": {"text": '{"metadata": {"resourceVersion": "5"}, "items": [{}]}'},
    "what is not packed": {"text": "{}", "headers": {"Content-Encoding": "gzip"}},
    "an error": {"text": "{}", "status": 500},
}


def test_no_list_response_ends_process(tmp_path: Path) -> None:
    api = ApiServer()
    plurals = ("modelexports", "exportclasses", "jobs", "pods", "nodes")
    for plural in plurals:
        first, *further = (web.Response(**answer) for answer in LISTS.values())
        api.lists[plural] = [first, None, *further]  # The very first list belongs to the start, which must succeed.
    with served(api):
        operator = Operator(f"http://127.0.0.1:{api.port}", tmp_path)
        with operator.started():
            wait_for(lambda: not any(api.lists.values()), operator, seconds=300)
            wait_for(lambda: operator.ask("/readyz")[0] == 200, operator, seconds=300)


def test_signal_during_kopf_restart_ends_process(tmp_path: Path) -> None:
    api = ApiServer()
    api.words = {"modelexports": [error(code=500)]}
    with served(api):
        operator = Operator(f"http://127.0.0.1:{api.port}", tmp_path)
        with operator.running():
            wait_for(lambda: "WatchingError" in operator.log.read_text(), operator)
            time.sleep(0.5)
            assert operator.process is not None
            operator.process.send_signal(signal.SIGTERM)
            assert operator.process.wait(60) == 0
