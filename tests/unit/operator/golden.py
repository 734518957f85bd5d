"""Reads golden files, compares values with them and updates them."""

import os
from pathlib import Path
from typing import Any

import yaml

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = sorted(str(path.parent.relative_to(GOLDEN)) for path in GOLDEN.rglob("modelexport.yaml"))
"""Folders of all cases, grouped by topic, for example ``deletion/unreachable-store``."""


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def check(path: Path, value: Any) -> None:
    """Compare a value with its golden file; ``MODELEXPORT_UPDATE_GOLDEN=1`` writes the file first."""
    text = yaml.safe_dump(value, sort_keys=False, width=140, allow_unicode=True)
    if os.environ.get("MODELEXPORT_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
