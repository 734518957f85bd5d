import re
from pathlib import Path

import pytest

from modelexport.api.reasons import Reason
from modelexport.crds import render
from modelexport.crds.reference import render_api, render_matrix, render_reasons
from modelexport.matrix.support import ARCHITECTURES, TARGETS

ROOT = Path(__file__).parents[3]


def test_generated_files_match_tables() -> None:
    assert render.main(["--check", str(ROOT)]) == 0


@pytest.mark.parametrize("name", ["crds/modelexports.yaml", "docs/reasons.md"])
def test_drift_is_found_and_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert render.main([str(tmp_path)]) == 0
    assert render.main(["--check", str(tmp_path)]) == 0
    (tmp_path / name).write_text("edited by hand")
    assert render.main(["--check", str(tmp_path)]) == 1
    assert f"{name} is out of date" in capsys.readouterr().err


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_row_gives_advice(reason: Reason) -> None:
    row = next(line for line in render_reasons().splitlines() if line.startswith(f"| `{reason}` |"))
    assert row.endswith(f"| {reason.policy.advice} |")


def test_every_matrix_cell_has_row_under_its_architecture() -> None:
    first, *sections = render_matrix().split("\n### ")
    assert [section.partition("\n")[0] for section in sections] == list(ARCHITECTURES)
    for section in sections:
        rows = [line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if re.match(r"\| \w+/", line)]
        assert rows == [str(target) for target in TARGETS]
    assert first.count("○") == 1 + 17 + 11 * 15 + 5 * len(ARCHITECTURES)  # once explained, ExecuTorch, and W8A16 in two


def test_api_page_documents_nested_fields_and_rules() -> None:
    page = render_api()
    assert "**`spec.targets[].format`**" in page
    assert "- an https:// URI needs the sha256 of the file" in page
