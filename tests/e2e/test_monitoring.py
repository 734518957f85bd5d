"""A real Prometheus scrapes the installed operator, found by the annotations of its Pods."""

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.support import Body, Workspace, build_export
from integration.prometheus import start_prometheus
from testcluster.bootstrap import kubectl
from testcluster.credentials import CA_FILE, PKI
from testcluster.installation import SYSTEM_NAMESPACE
from testcluster.layout import API_SERVER, REPOSITORY
from testplane.control_plane import wait_until

pytestmark = pytest.mark.own_cluster("the certificates of the test cluster")

RULES = REPOSITORY / "helm/modelexport-operator/files/rules.yaml"
CREDENTIALS = {"ca_file": str(CA_FILE), "cert_file": str(PKI / "admin.crt"), "key_file": str(PKI / "admin.key")}


def discover_annotated_pods() -> dict[str, Any]:
    """Resolve the usual annotations of Pods as a Prometheus does; Debian's is built without Kubernetes discovery.

    Scrapes go through the API server, since only it reaches the addresses of Pods.
    """
    pods = json.loads(kubectl("get", "pods", f"--namespace={SYSTEM_NAMESPACE}", "--output=json"))["items"]
    return {
        "scheme": "https",
        "tls_config": CREDENTIALS,
        "static_configs": [
            {"targets": [API_SERVER.removeprefix("https://")], "labels": _label(pod["metadata"])}
            for pod in pods
            if pod["metadata"].get("annotations", {}).get("prometheus.io/scrape") == "true"
        ],
    }


def _label(metadata: Body) -> dict[str, str]:
    namespace, name, port = metadata["namespace"], metadata["name"], metadata["annotations"]["prometheus.io/port"]
    path = f"/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics"
    return {"namespace": namespace, "pod": name, "__metrics_path__": path}


def test_prometheus_scrapes_operator_and_counts_conversions(space: Workspace, tmp_path: Path) -> None:
    counter = 'modelexport_conversions_total{format="ONNX", precision="FP32", reason="Succeeded"}'
    done = f"last_over_time({counter}[1m])"  # A busy machine misses a scrape now and then.
    with start_prometheus(tmp_path, discover_annotated_pods(), RULES.read_text()) as prometheus:
        wait_until(
            "the operator to be scraped", lambda: prometheus.values(f'up{{namespace="{SYSTEM_NAMESPACE}"}}') == [1]
        )
        before = sum(prometheus.values(done))
        space.apply(build_export("model", className=space.create_class()))
        space.wait("mx/model", "condition=Ready")
        wait_until("the conversion to be scraped", lambda: sum(prometheus.values(done)) == before + 1)
        assert [rule["name"] for rule in prometheus.rules() if rule["health"] != "ok"] == []
        assert prometheus.firing() == set()
