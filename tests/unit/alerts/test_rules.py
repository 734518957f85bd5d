"""Static checks of rules, runbooks and dashboard; tests/integration loads them into Prometheus."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelexport_operator.metrics.definitions import METRICS, Kind

ROOT = Path(__file__).parents[3]
FILES = ROOT / "helm/modelexport-operator/files"
RUNBOOKS = ROOT / "docs/runbooks"
GROUPS: list[dict[str, Any]] = yaml.safe_load((FILES / "rules.yaml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDS = {rule["record"]: rule for rule in RULES if "record" in rule}
DASHBOARD = json.loads((FILES / "dashboard.json").read_text())
SUFFIXES = {Kind.COUNTER: ("",), Kind.GAUGE: ("",), Kind.HISTOGRAM: ("_bucket", "_sum", "_count")}
SERIES = {f"{metric.name}{suffix}": metric for metric in METRICS for suffix in SUFFIXES[metric.kind]}


def queries() -> Iterator[str]:
    """Every query of rules and dashboard."""
    yield from (rule["expr"] for rule in RULES)
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def test_operator_docs_list_every_alert_with_severity() -> None:
    page = (ROOT / "docs/operator.md").read_text()
    told = re.findall(r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| (\w+) \|", page, re.MULTILINE)
    assert told == [(name, name, rule["labels"]["severity"]) for name, rule in ALERTS.items()]


@pytest.mark.parametrize("name", ALERTS)
def test_alert_has_severity_impact_and_runbook(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{name}.md")
    assert rule["annotations"]["description"].endswith(".")


@pytest.mark.parametrize("name", ALERTS)
def test_runbook_explains_alert_and_remedy(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    parts = ("**Meaning.**", "**Impact.**", "## Diagnosis", "    kubectl ", "## Resolution")
    positions = [text.find(part) for part in parts]
    assert -1 not in positions
    assert positions == sorted(positions)


def test_every_runbook_and_test_has_alert() -> None:
    assert {path.stem for path in RUNBOOKS.iterdir()} == set(ALERTS)
    assert {path.stem for path in (ROOT / "tests/alerts").iterdir()} == set(ALERTS)


@pytest.mark.parametrize("page", sorted(RUNBOOKS.iterdir()), ids=lambda path: path.stem)
def test_runbook_references_exist(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / link).exists(), link
    for name in re.findall(r"`((?:modelexport|process)_\w+|\w+:modelexport_\w+:\w+)`", text):
        assert name in SERIES or name in RECORDS, name


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_every_query_uses_known_or_recorded_metrics(query: str) -> None:
    names = set(re.findall(r"\b(?:modelexport|process)_\w+|\b\w+:modelexport_\w+:\w+", re.sub(r'"[^"]*"', '""', query)))
    recorded = {name for name in names if ":" in name}
    assert recorded <= set(RECORDS)
    plain = {name for name in names - recorded if not any(name in record for record in recorded)}
    assert plain <= set(SERIES)
    assert names


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_query_labels_exist_on_its_metrics(query: str) -> None:
    for name, matchers in re.findall(r"\b((?:modelexport|process)_\w+)\{([^}]*)\}", query):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', matchers)))
        bounds = {"le"} if name.endswith("_bucket") else set()
        known = {*SERIES[name].labels, "namespace", "instance", "job", *bounds} if name in SERIES else labels
        assert labels <= known, name


def test_every_operator_metric_is_used_by_rule_or_panel() -> None:
    text = "\n".join(queries())
    unread = {metric.name for metric in METRICS if metric.name.startswith("modelexport_") and metric.name not in text}
    assert unread == set()


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_is_tested_firing_and_not_firing(name: str) -> None:
    groups = yaml.safe_load((ROOT / f"tests/alerts/{name}.yaml").read_text())["tests"]
    checks = [[check["exp_alerts"] for check in group["alert_rule_test"]] for group in groups]
    assert any(alerts for group in checks for alerts in group)
    assert any(not any(group) for group in checks)
    assert all(check["alertname"] == name for group in groups for check in group["alert_rule_test"])


def test_panels_have_unique_ids_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
