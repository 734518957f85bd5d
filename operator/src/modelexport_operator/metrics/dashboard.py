"""Builds the Grafana dashboard from a short description of its panels. Pure; ``render`` writes it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDTH = 24
"""Columns of Grafana's grid."""
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """One panel: its queries, each with a legend, its unit (in Grafana's spelling) and its width in columns.

    ``$namespace`` in a query is the viewer's selection, a pattern that matches everything by default.
    """

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    description: str = ""


@dataclass(frozen=True)
class Row:
    """A row title above its panels."""

    title: str
    panels: tuple[Panel, ...]


def _stat(title: str, query: str, unit: str = "short", width: int = 4) -> Panel:
    return Panel(title, ((query, ""),), unit, "stat", width)


HERE = '{namespace=~"$namespace"}'
MEAN = "namespace_architecture_format_precision:modelexport_conversion_seconds"
ROWS = (
    Row(
        "Now",
        (
            _stat("Operators", f"count(modelexport_build_info{HERE})", width=2),
            _stat("Leaders", f"sum(modelexport_leader{HERE})", width=2),
            _stat("Targets that wait", f"sum(namespace:modelexport_waiting_targets:sum{HERE})"),
            _stat("Targets that run", f"sum(namespace:modelexport_running_targets:sum{HERE})"),
            _stat(
                "Oldest target",
                'max(modelexport_oldest_target_seconds{namespace=~"$namespace", state!="Suspended"})',
                "s",
            ),
            _stat(
                "Published in an hour",
                'sum(increase(modelexport_conversions_total{namespace=~"$namespace", outcome="Succeeded"}[1h]))',
            ),
            _stat(
                "Failed in an hour",
                'sum(increase(modelexport_conversions_total{namespace=~"$namespace", outcome="Failed"}[1h]))',
            ),
        ),
    ),
    Row(
        "Exports and targets",
        (
            Panel(
                "ModelExports by state",
                ((f"sum by (state) (max by (namespace, state) (modelexport_exports{HERE}))", "{{state}}"),),
            ),
            Panel(
                "Open targets by state",
                (
                    (
                        f"sum by (state) (max by (namespace, format, precision, state) (modelexport_targets{HERE}))",
                        "{{state}}",
                    ),
                ),
            ),
            Panel(
                "Running targets",
                (
                    (
                        "sum by (format, precision) (max by (namespace, format, precision) "
                        '(modelexport_targets{namespace=~"$namespace", state="Running"}))',
                        "{{format}}/{{precision}}",
                    ),
                ),
            ),
            Panel(
                "Oldest target by reason",
                (
                    (
                        f"max by (state, reason) (modelexport_oldest_target_seconds{HERE})",
                        "{{state}}: {{reason}}",
                    ),
                ),
                "s",
                description="Since the Job of the target started, or else since the last change of its ModelExport.",
            ),
            Panel(
                "Ended in an hour by reason",
                ((f"sum by (reason) (increase(modelexport_conversions_total{HERE}[1h])) > 0", "{{reason}}"),),
            ),
            Panel(
                "Share of ends by who has to act",
                ((f"namespace_fault:modelexport_conversions:ratio1h{HERE}", "{{fault}}"),),
                "percentunit",
                description="Every reason says who has to act: no one, the author of the ModelExport or the platform.",
            ),
        ),
    ),
    Row(
        "Conversions",
        (
            Panel(
                "Verification failures in an hour",
                (
                    (
                        f"namespace_format_precision:modelexport_verification_failures:increase1h{HERE}",
                        "{{format}}/{{precision}}",
                    ),
                ),
            ),
            Panel(
                "Loss of accuracy, 95 of 100",
                (
                    (
                        "histogram_quantile(0.95, sum by (le, format, precision) "
                        f"(rate(modelexport_target_accuracy_drop_bucket{HERE}[1h])))",
                        "{{format}}/{{precision}}",
                    ),
                ),
                description="Of the targets that are evaluated on labelled images: mAP50-95, mIoU or top-1.",
            ),
            Panel(
                "Time of a conversion, 95 of 100",
                (
                    (
                        "histogram_quantile(0.95, sum by (le, format, precision) "
                        f"(rate(modelexport_conversion_seconds_bucket{HERE}[1h])))",
                        "{{format}}/{{precision}}",
                    ),
                ),
                "s",
                description="The converter's own time, without any waiting.",
            ),
            Panel(
                "Time of a target, 95 of 100",
                (
                    (
                        "histogram_quantile(0.95, sum by (le, format, precision) "
                        f"(rate(modelexport_target_seconds_bucket{HERE}[1h])))",
                        "{{format}}/{{precision}}",
                    ),
                ),
                "s",
                description="The time that users wait: from the start to the end of the Job.",
            ),
            Panel(
                "Time of a conversion against its own history",
                (
                    (f"{MEAN}:mean1h{HERE}", "{{architecture}} {{format}}/{{precision}}: last hour"),
                    (f"{MEAN}:mean7d{HERE}", "{{architecture}} {{format}}/{{precision}}: 7 days before"),
                ),
                "s",
                width=24,
            ),
        ),
    ),
    Row(
        "Operator",
        (
            Panel(
                "Time of a sync",
                tuple(
                    (
                        f"histogram_quantile({share}, sum by (le) "
                        f"(rate(modelexport_sync_seconds_bucket{HERE}[$__rate_interval])))",
                        words,
                    )
                    for share, words in (("0.5", "half"), ("0.95", "95 of 100"))
                ),
                "s",
            ),
            Panel(
                "Failed syncs, to be retried",
                ((f"sum by (error) (rate(modelexport_sync_errors_total{HERE}[$__rate_interval]))", "{{error}}"),),
                "reqps",
            ),
            Panel("Exports in the work queue", ((f"max(modelexport_queue_depth{HERE})", "exports"),)),
            Panel(
                "Objects that the watches have not reported",
                ((f"max by (resource) (modelexport_watch_lag_objects{HERE})", "{{resource}}"),),
            ),
            Panel("Objects in the cache", ((f"max by (resource) (modelexport_kept_objects{HERE})", "{{resource}}"),)),
            Panel(
                "Time since",
                (
                    (f"time() - max(modelexport_last_sync_timestamp_seconds{HERE})", "last sync"),
                    (f"time() - max(modelexport_last_watch_check_timestamp_seconds{HERE})", "last watch check"),
                ),
                "s",
            ),
            Panel(
                "Memory",
                (
                    (
                        f"process_resident_memory_bytes and on (instance, job) modelexport_queue_depth{HERE}",
                        "{{instance}}",
                    ),
                ),
                "bytes",
            ),
        ),
    ),
)


def render_dashboard() -> str:
    """Return the dashboard as Grafana reads it."""
    data_source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    namespace = {
        "name": "namespace",
        "label": "Operator in",
        "type": "query",
        "datasource": DATA_SOURCE,
        "query": "label_values(modelexport_build_info, namespace)",
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
    dashboard = {
        "uid": "modelexport",
        "title": "ModelExport",
        "tags": ["modelexport"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [data_source, namespace]},
        "panels": list(_lay_out(ROWS)),
    }
    return json.dumps(dashboard, indent=1) + "\n"


def _lay_out(rows: Sequence[Row]) -> Iterator[dict[str, object]]:
    """Place panels from left to right, and each row below the previous one."""
    number, top = 1, 0
    for row in rows:
        yield {"id": number, "type": "row", "title": row.title, "gridPos": _place(0, top, WIDTH, 1), "panels": []}
        number, top, left, height = number + 1, top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > WIDTH:
                top, left = top + height, 0
            height = 4 if panel.kind == "stat" else 8
            targets = [
                {"refId": chr(ord("A") + index), "datasource": DATA_SOURCE, "expr": query, "legendFormat": legend}
                for index, (query, legend) in enumerate(panel.queries)
            ]
            yield {
                "id": number,
                "type": panel.kind,
                "title": panel.title,
                **({"description": panel.description} if panel.description else {}),
                "datasource": DATA_SOURCE,
                "gridPos": _place(left, top, panel.width, height),
                "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
                "targets": targets,
            }
            number, left = number + 1, left + panel.width
        top += height


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}
