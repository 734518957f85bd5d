"""The usual run converts representative cells; only ``ALL=1`` asks for every one, which is 500 tests more."""

import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]


def commands(*arguments: str) -> str:
    """Return the commands that make would run for some arguments."""
    command = ["make", "--dry-run", "--directory", str(REPOSITORY), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_usual_run_converts_representative_cells_only() -> None:
    assert "--all-cells" not in commands("test-converter")


def test_all_converts_every_cell() -> None:
    assert "--all-cells tests/converter" in commands("test-converter", "ALL=1")
