"""The page of an export in chromium: nothing of it runs, nothing is fetched, and it fits a phone."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from modelexport.api.result import read_artifact, read_verification
from modelexport.published import Published
from modelexport.report_page.page import render
from modelexport.report_page.target import read_target
from report_pages import HOSTILE, detections, make_report, oriented_detections

CHROMIUM = "/usr/bin/chromium"
LIGHT, DARK = (255, 255, 255), (15, 19, 24)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    classes = {f"{label} {name}": {"original": 0.8, "value": 0.7} for label, name in enumerate(["circle", HOSTILE])}
    report = make_report(detections()) | {
        "latency": {"seconds": 0.0123, "images": 63},
        "evaluation": {"classes": classes},
    }
    return write(report, tmp_path_factory.mktemp("page"))


def write(report: dict[str, Any], folder: Path) -> Path:
    artifact = read_artifact(report["artifact"], size="sizeBytes")
    published = Published(
        "ONNX/W8A16", "Succeeded", "", "static_wi8_ai16", artifact, read_verification(report["verification"])
    )
    path = folder / "report.html"
    path.write_text(render("shapes", [read_target(published, report)]), encoding="utf-8")
    return path


def browse(page: Path, *arguments: str) -> str:
    """What chromium writes to stdout about a page, in a profile and with a network of its own."""
    profile = page.with_name("profile")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    command += [f"--user-data-dir={profile}", "--proxy-server=127.0.0.1:9", *arguments, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=180)
    return done.stdout


def shoot(page: Path, width: int, *arguments: str) -> Image.Image:
    target = page.with_name("shot.png")
    browse(page, f"--screenshot={target}", f"--window-size={width},1600", *arguments)
    return Image.open(target).convert("RGB")


def test_hostile_class_name_stays_text_in_browser(page: Path) -> None:
    content = browse(page, "--dump-dom")
    assert "<title>shapes: report</title>" in content
    assert HOSTILE[:20].replace("<", "&lt;").replace(">", "&gt;") in content
    assert not re.search(r"<(script|img)", content.partition("</style>")[2])


FRAME = """<iframe src="{page}" width="360" height="600"></iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const root = frame.contentDocument.documentElement;
  document.title = {expression};
}};
</script>"""
"""Loads a page as wide as a phone and evaluates an expression of its root; the page itself runs no script."""
WIDTHS = "`${root.scrollWidth} of ${root.clientWidth}`"
CUT_LABELS = """[...root.querySelectorAll(".plots text")].filter(
  text => text.getBBox().x < 0 || text.getBBox().x + text.getBBox().width > text.ownerSVGElement.viewBox.baseVal.width
).map(text => text.textContent).join() || "none" """


def evaluate(page: Path, expression: str) -> str:
    """The value of an expression of the root of a page, in a frame."""
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.format(page=page.as_uri(), expression=expression), encoding="utf-8")
    content = browse(frame, "--dump-dom", "--allow-file-access-from-files")
    found = re.search(r"<title>(.+)</title>", content)
    assert found, content[:300]
    return found[1]


def test_page_fits_phone_without_scrolling_sideways(page: Path) -> None:
    content, width = map(int, evaluate(page, WIDTHS).split(" of "))
    assert content <= width
    assert 300 < width <= 360


def test_labels_of_plots_are_not_cut(page: Path) -> None:
    assert evaluate(page, CUT_LABELS) == "none"


OUTLINES = """[...root.querySelectorAll("polygon")].map(shape => {
  const box = shape.getBBox();
  return `${box.x} ${box.y} ${box.width} ${box.height} ${getComputedStyle(shape).fill}`;
}).join("; ")"""


def test_rotated_boxes_are_outlines_in_browser(tmp_path: Path) -> None:
    page = write(make_report(oriented_detections()), tmp_path)
    both, missed = "20 10 80 80 none", "-20 -30 60 80 none"
    assert evaluate(page, OUTLINES) == f"{both}; {missed}; {both}"
    colours = {colour for _, colour in shoot(page, 1000).getcolors(maxcolors=1 << 24) or ()}
    assert {(255, 176, 0), (63, 167, 255)} <= colours


@pytest.mark.parametrize(
    ("arguments", "background"), [((), LIGHT), (("--blink-settings=preferredColorScheme=0",), DARK)]
)
def test_page_is_styled_in_light_and_dark(page: Path, arguments: tuple[str, ...], background: tuple[int, ...]) -> None:
    shot = shoot(page, 1000, *arguments)
    assert shot.getpixel((2, 2)) == background
    colours = {colour for _, colour in shot.getcolors(maxcolors=1 << 24) or ()}
    assert (255, 176, 0) in colours, "the box of class 0 is not drawn: its style is refused"
