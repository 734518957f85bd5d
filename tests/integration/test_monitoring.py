"""Rules, dashboard and alerts on the metrics that a real Prometheus scrapes from the real operator during exports."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from integration.api import EXPORTS, Api
from integration.control_plane import ControlPlane, wait_until
from integration.kubelet import End, fail, find_no_node, play_kubelet, refuse, run, succeed
from integration.process import Operator
from integration.prometheus import NAMESPACE, Prometheus, scrape_port, start_prometheus
from modelexport.api.result import Accuracy
from testcluster.layout import REPOSITORY
from unit.operator.objects import make_export, result_text

FILES = REPOSITORY / "helm/modelexport-operator/files"
SHORTER = {
    "[7d] offset 1h": "[2m] offset 5s",
    "[1d]": "[1m]",
    "[1h]": "[2m]",
    "[30m]": "[10s]",
    "[15m]": "[10s]",
    "[5m]": "[5s]",
}
"""What the durations of the rules become: an hour is two minutes, in which a busy machine comes to see the alerts."""
ACCURACY = Accuracy("mAP50-95", "0.9", "0.896", "0.004", "0.01", 512, ("0.001", "0.007"))
ENDS: dict[str, list[End]] = {
    "ONNX/FP16": [partial(succeed, answer=result_text(accuracy=ACCURACY.to_dict()))],
    "LiteRT/INT8": [refuse()],
    "ONNX/FP32": [fail(70, result_text("StorageDenied", "403"))],
    "CoreML/FP32": [run],
    "CoreML/INT8": [find_no_node],
}
ENDING = ("ONNX/FP16", "LiteRT/INT8", "ONNX/FP32")


@pytest.fixture(scope="module")
def watched(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """A separate operator, so that stopping it disturbs no other test."""
    often = {"MODELEXPORT_WATCH_CHECK_SECONDS": "1", "MODELEXPORT_WATCH_LAG_TOLERANCE_SECONDS": "5"}
    return Operator(plane.address, tmp_path_factory.mktemp("watched"), plane.certificate, **often)


@pytest.fixture(scope="module")
def prometheus(watched: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    with start_prometheus(folder, scrape_port(watched.port), shorten_rules()) as prometheus:
        yield prometheus


def shorten_rules() -> str:
    text = re.sub(r"for: \d+m", "for: 1s", (FILES / "rules.yaml").read_text())
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    assert not re.search(r"\d[mhd]\]", text.replace("[1m]", "").replace("[2m]", ""))
    return text


def dashboard_queries() -> dict[str, str]:
    """The queries of the dashboard, as Grafana sends them, by the title of their panel."""
    panels = json.loads((FILES / "dashboard.json").read_text())["panels"]
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        .replace("$__rate_interval", "5s")
        .replace("$namespace", NAMESPACE)
        for panel in panels
        for target in panel.get("targets", ())
    }


def order(api: Api, count: int, *targets: str) -> None:
    for _ in range(count):
        body = make_export(*targets)
        body["metadata"] = {"generateName": "shapes-"}
        api.create(EXPORTS, body)


def wait_for_ends(prometheus: Prometheus, count: int) -> None:
    """Wait until Prometheus has counted that many ended targets."""
    wait_until(f"{count} ends to be scraped", lambda: sum(prometheus.values("modelexport_conversions_total")) >= count)


def test_all_rules_and_panels_have_data_and_alerts_fire(api: Api, watched: Operator, prometheus: Prometheus) -> None:
    start = time.time()
    with watched.running(), play_kubelet(api, ENDS):
        order(api, 1, *ENDS)
        wait_for_ends(prometheus, 3)
        order(api, 12, *ENDING)
        wait_for_ends(prometheus, 39)
        time.sleep(5)  # The past ends five seconds ago.
        order(api, 4, *ENDING)
        wait_for_ends(prometheus, 51)

        records = [rule["name"] for rule in prometheus.rules() if rule["type"] == "recording"]
        wait_until("data of every recording rule", lambda: all(map(prometheus.values, records)))
        queries = dashboard_queries()
        empty = [title for title, query in queries.items() if not prometheus.has_shown(query, start, time.time())]
        assert empty == []
        assert [rule["name"] for rule in prometheus.rules() if rule["health"] != "ok" or rule.get("lastError")] == []

        failures = {"ModelExportSystemFaults", "ModelExportVerificationFailures"}
        wait_until("the alerts of the failures and no others", lambda: prometheus.firing() == failures)
    wait_until("the operator to be missed", lambda: "ModelExportOperatorDown" in prometheus.firing())


def test_scraped_metrics_name_no_object(api: Api, watched: Operator, prometheus: Prometheus) -> None:
    with watched.running(), play_kubelet(api, ENDS):
        order(api, 1, *ENDS)
        running = 'modelexport_targets{format="CoreML", precision="FP32", state="Running"}'
        wait_until("the new export to be scraped", lambda: any(prometheus.values(running)))
        labels = prometheus.ask("series", **{"match[]": '{job="modelexport"}'})
        values = {value for series in labels for value in series.values()}
    assert not {value for value in values if "shapes" in value or api.namespace in value}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "tests/alerts").iterdir()), ids=lambda path: path.stem)
def test_alert_fires_exactly_when_it_should(path: Path) -> None:
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_accepts_rules_and_metrics(watched: Operator, api: Api) -> None:
    check = ["promtool", "check", "rules", "--lint=all", "--lint-fatal", str(FILES / "rules.yaml")]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with watched.running():
        text = watched.ask("/metrics")[1]
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
