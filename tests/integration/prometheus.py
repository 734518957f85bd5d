"""A real Prometheus on a free port of loopback, which scrapes one operator every second."""

import json
import math
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from integration.control_plane import free_port, run_process, wait_until

PROGRAM = "/usr/bin/prometheus"
NAMESPACE = "modelexport-system"
"""Where the operator is said to run."""
INTERVAL = "1s"


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    address: str

    def ask(self, path: str, **parameters: object) -> Any:
        """Ask its API and return the data of the answer."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.address}/api/v1/{path}?{query}", timeout=30) as response:
            return json.load(response)["data"]

    def values(self, query: str) -> list[float]:
        """What a query says now, one value per series."""
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
def start_prometheus(folder: Path, target: int, rules: str) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes a port of loopback and evaluates rules, and end it; its data go with the folder."""
    address = f"127.0.0.1:{free_port()}"
    (folder / "rules.yaml").write_text(rules)
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(_config(target)))
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


def _config(target: int) -> dict[str, Any]:
    scraped = {"targets": [f"127.0.0.1:{target}"], "labels": {"namespace": NAMESPACE}}
    return {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "modelexport", "static_configs": [scraped]}],
    }


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
            return True
    except OSError:
        return False
