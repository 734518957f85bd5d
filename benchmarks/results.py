"""Stores the measurements: JSON files beside the page made from them."""

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "benchmarks.md"
CELLS = DOCS / "benchmarks/cells.json"
FINISHED = DOCS / "benchmarks/finished.json"
OPERATOR = DOCS / "benchmarks/operator.json"
SCALE = DOCS / "benchmarks/scale.json"
WATCHES = DOCS / "benchmarks/watches.json"
WRONG_FILES = DOCS / "benchmarks/wrong_files.json"
SCALE_PLOT = DOCS / "benchmarks/scale.svg"


def read_results(path: Path) -> dict[str, Any]:
    """Return the results of an earlier run, or an empty dict."""
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return results


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Save measurements, with numbers rounded to four digits after the point."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(results), indent=1) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
