"""Liveness: an operator whose watches are silent is unhealthy, even while its process runs."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from integration.api import EXPORTS, Api
from integration.control_plane import write_kubeconfig
from integration.kubelet import play_kubelet
from integration.process import SOURCES, Operator
from integration.proxy import Proxy
from ports import free_port
from unit.operator.objects import make_export

OFTEN = {"MODELEXPORT_WATCH_CHECK_SECONDS": "0.5", "MODELEXPORT_WATCH_LAG_TOLERANCE_SECONDS": "1"}


def begin_export(api: Api) -> None:
    body = make_export("ONNX/FP16")
    body["metadata"] = {"name": "shapes"}
    api.create(EXPORTS, body)


def wait_to_be_healthy(api: Api, operator: Operator) -> None:
    """Wait until it is healthy: with so short a tolerance, a busy machine looks like a silent watch."""
    api.wait_for("the operator to be healthy", lambda: operator.ask("/healthz") == (200, "ok\n"))


@pytest.fixture
def listening(proxy: Proxy, tmp_path: Path) -> Iterator[Operator]:
    """An operator that checks its watches often."""
    operator = Operator(proxy.address, tmp_path, **OFTEN)
    with operator.running():
        yield operator
    proxy.deaf_to = ""


@pytest.mark.parametrize("plural", ["modelexports", "jobs"])
def test_stale_watch_fails_liveness_and_restart_recovers(api: Api, proxy: Proxy, tmp_path: Path, plural: str) -> None:
    operator = Operator(proxy.address, tmp_path, **OFTEN)
    deaf = re.compile(rf"the watch is behind by (\d+ \w+, )*\d+ {plural}")
    with operator.running():
        wait_to_be_healthy(api, operator)
        proxy.deaf_to = plural
        begin_export(api)
        api.wait_for("the lag to be noticed", lambda: deaf.search(operator.ask("/healthz")[1]))
        assert operator.ask("/healthz")[0] == 503
        assert operator.ask("/readyz")[0] == 503
        assert re.search(rf'modelexport_watch_lag_objects{{resource="{plural}"}} [1-9]', operator.ask("/metrics")[1])
    proxy.deaf_to = ""
    with operator.running(), play_kubelet(api):
        api.wait_for_reason("Succeeded")
        wait_to_be_healthy(api, operator)


def test_object_deleted_during_stale_watch_is_forgotten(api: Api, proxy: Proxy, listening: Operator) -> None:
    begin_export(api)
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")
    known = 'modelexport_exports{state="Succeeded"} 1.0'
    api.wait_for("the export to be counted", lambda: known in listening.ask("/metrics")[1])
    proxy.deaf_to = "modelexports"
    api.delete(EXPORTS, "shapes")
    api.wait_for("the export to be forgotten", lambda: known not in listening.ask("/metrics")[1])


def test_metrics_parse_in_prometheus_and_name_no_object(api: Api, listening: Operator) -> None:
    begin_export(api)
    with play_kubelet(api):
        api.wait_for_reason("Succeeded")
    api.wait_for("the conversion to be timed", lambda: "conversion_seconds_bucket{" in listening.ask("/metrics")[1])
    status, text = listening.ask("/metrics")
    assert status == 200
    for metric in ("sync_seconds_count", "queue_depth", "conversion_seconds_bucket", "conversions_total", "exports"):
        assert f"modelexport_{metric}" in text
    assert api.namespace not in text
    assert "shapes" not in text
    memory = re.search(r"^process_resident_memory_bytes (\S+)", text, re.MULTILINE)
    assert memory is not None
    assert float(memory[1]) < 150e6


def test_all_invalid_settings_are_reported_at_startup() -> None:
    wrong = {"MODELEXPORT_WORKERS": "many", "MODELEXPORT_HTTP_PORT": "0", "PYTHONPATH": SOURCES}
    command = [sys.executable, "-m", "modelexport_operator"]
    done = subprocess.run(command, env={**os.environ, **wrong}, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert "MODELEXPORT_WORKERS='many'" in done.stderr
    assert "MODELEXPORT_HTTP_PORT='0'" in done.stderr


class NotFound(BaseHTTPRequestHandler):
    """Answers 404 to every request."""

    def do_GET(self) -> None:  # http.server prescribes the name.
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def bare_server(tmp_path: Path) -> Iterator[Path]:
    """The kubeconfig of an API server without our kinds."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), NotFound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{server.server_port}")
    yield tmp_path / "kubeconfig"
    server.shutdown()
    server.server_close()


def test_operator_without_crds_reports_it(bare_server: Path) -> None:
    environment = {
        **os.environ,
        "KUBECONFIG": str(bare_server),
        "PYTHONPATH": SOURCES,
        "MODELEXPORT_HTTP_PORT": str(free_port()),
    }
    command = [sys.executable, "-m", "modelexport_operator"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 78
    assert "kubectl apply -f crds/" in done.stderr
