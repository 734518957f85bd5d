"""Where the measurements are kept: JSON files beside the page that is written from them."""

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "benchmarks.md"
CELLS = DOCS / "benchmarks/cells.json"
OPERATOR = DOCS / "benchmarks/operator.json"


def read_results(path: Path) -> dict[str, Any]:
    """Return what an earlier run has measured; empty where there was none."""
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return results


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Keep measurements, numbers to four digits after the point."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(results), indent=1) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
