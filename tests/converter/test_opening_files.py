"""The programs of docs/reading-files.md, each in a process that has nothing of ours on its path."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from modelexport.matrix.support import BACKENDS, Format, Recipe
from modelexport_converter.publishing.packing import pack
from trained.cells import produce

PAGE = (Path(__file__).parents[2] / "docs/reading-files.md").read_text(encoding="utf-8")
ALONE = "import sys; assert not any('modelexport' in name for name in sys.modules)"
CLASSIFIER = "YOLOv8-CLS"


def programs() -> dict[str, str]:
    """The blocks of code by the last words in bold that begin a paragraph before them."""
    parts = PAGE.split("```python\n")
    names = [re.findall(r"^\*\*(\w+)\*\*", part, re.MULTILINE)[-1] for part in parts[:-1]]
    return {name: part.partition("```")[0] for name, part in zip(names, parts[1:], strict=True)}


PROGRAMS = programs()


def run_program(fmt: Format, recipe: Recipe, folder: Path) -> str:
    pack(produce(CLASSIFIER, fmt, recipe), folder / f"shapes-fp32{BACKENDS[fmt].suffix}")
    command = [sys.executable, "-I", "-W", "error::UserWarning", "-c", f"{PROGRAMS[fmt]}{ALONE}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_format_except_core_ml_has_a_program() -> None:
    assert set(PROGRAMS) == set(Format) - {Format.COREML}


@pytest.mark.parametrize(
    "fmt", [pytest.param(fmt, marks=pytest.mark.xdist_group(f"{CLASSIFIER}-{fmt}")) for fmt in sorted(PROGRAMS)]
)
def test_program_of_page_opens_a_file(fmt: Format, tmp_path: Path) -> None:
    assert run_program(fmt, Recipe.FP32, tmp_path) == "probabilities (1, 3)\n"
