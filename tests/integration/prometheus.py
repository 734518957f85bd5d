"""A real Prometheus on a free loopback port, which scrapes operators every second."""

import json
import math
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from testcluster.ports import free_port
from testplane.control_plane import run_process, wait_until

PROGRAM = "/usr/bin/prometheus"
NAMESPACE = "modelexport-system"
"""Where the operator is said to run."""
INTERVAL = "1s"


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    address: str

    def ask(self, path: str, **parameters: object) -> Any:
        """Query its API, and return the data of the answer."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.address}/api/v1/{path}?{query}", timeout=60) as response:
            return json.load(response)["data"]

    def values(self, query: str) -> list[float]:
        """The current values of a query, one per series."""
        return [float(series["value"][1]) for series in self.ask("query", query=query)["result"]]

    def has_shown(self, query: str, start: float, end: float) -> bool:
        """Whether a panel with this query shows any number between two times."""
        result = self.ask("query_range", query=query, start=start, end=end, step=1)["result"]
        return any(math.isfinite(float(value)) for series in result for _, value in series["values"])

    def rules(self) -> list[dict[str, Any]]:
        """All rules with their health and their last error."""
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}


@contextmanager
def start_prometheus(folder: Path, discovery: Mapping[str, Any], rules: str) -> Iterator[Prometheus]:
    """Run a Prometheus with its data in a folder until the context ends.

    Args:
        folder: an empty folder.
        discovery: the part of a ``scrape_config`` that selects the targets.
        rules: the file of rules to evaluate.
    """
    address = f"127.0.0.1:{free_port()}"
    (folder / "rules.yaml").write_text(rules)
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(_config(discovery)))
    command = [
        PROGRAM,
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with run_process(command, folder / "prometheus.log"):
        prometheus = Prometheus(f"http://{address}")
        wait_until("Prometheus", lambda: _is_ready(address))
        yield prometheus


def scrape_port(port: int) -> Mapping[str, Any]:
    """Discover one operator that runs as a process of this machine."""
    return {"static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": NAMESPACE}}]}


def _config(discovery: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "modelexport", **discovery}],
    }


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=30):
            return True
    except OSError:
        return False
