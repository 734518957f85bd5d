from pathlib import Path

from benchmarks.pages.scale import draw_scale
from unit.benchmarks.test_scale_page import results


def test_scale_plot_is_deterministic(tmp_path: Path) -> None:
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    for path in (first, second):
        draw_scale(results(), path)
    assert first.read_text().startswith("<?xml")
    assert first.read_bytes() == second.read_bytes()
