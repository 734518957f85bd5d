"""The page of an export: what it shows, and that nothing in a report becomes markup."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from modelexport.api.result import Accuracy, read_artifact, read_verification
from modelexport.api.rungs import QuantizationResult, Rung
from modelexport.cli import main
from modelexport.errors import BadInput
from modelexport.published import Published, of_cluster
from modelexport.report_page.page import render
from modelexport.report_page.target import Target, read_target
from report_pages import (
    HOSTILE,
    OUTPUT,
    describe_detector,
    detections,
    make_answer,
    make_report,
    make_sample,
    oriented_detections,
)


class Page(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.style = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "style" and not self.style:
            self.style = data
        else:
            self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def target_of(report: dict[str, Any]) -> Target:
    artifact = read_artifact(report["artifact"], size="sizeBytes")
    proof = read_verification(report["verification"])
    return read_target(Published("ONNX/INT8", "Succeeded", "", "static_wi8_ai8", artifact, proof), report)


def page_of(*reports: dict[str, Any], name: str = "shapes") -> Page:
    return Page(render(name, [target_of(report) for report in reports]))


def test_page_shows_numbers_and_answers_of_both_sides() -> None:
    page = page_of(make_report(detections()))
    text = "".join(page.texts)
    for part in ("boxes 0.9412", "0.981559 ≥ 0.85", "3.00", "50.2", "844", "ef" * 32, "ab" * 32, "torch", "2.14.1"):
        assert part in text
    captions = [str(svg["aria-label"]) for svg in page.of("svg")][-2:]
    assert captions == [
        f"original: circle 0.91, missed {HOSTILE[:59]}… 0.91",
        "ONNX/INT8: circle 0.91, invented square 0.91",
    ]
    assert [box["class"] for box in page.of("rect")][-4:] == [
        "box hue0",
        "box hue2 alone",
        "box hue0",
        "box hue1 alone",
    ]
    assert len(page.of("circle")) == 4
    assert [path["d"] for path in page.of("path")] == ["M75.0 22.5h25.0v1.9h-25.0z M75.0 24.4h30.0v1.9h-30.0z"]


def test_rotated_boxes_are_drawn_by_their_corners() -> None:
    page = page_of(make_report(oriented_detections()))
    shapes = [(shape["class"], shape["points"]) for shape in page.of("polygon")]
    both = ("box hue0", "60.0,10.0 100.0,50.0 60.0,90.0 20.0,50.0")
    assert shapes == [both, ("box hue1 alone", "-20.0,20.0 10.0,-30.0 40.0,0.0 10.0,50.0"), both]
    assert not [box for box in page.of("rect") if str(box["class"]).startswith("box")]
    marks = [text for text in page.of("text") if text.get("class") == "mark"]
    assert [(mark["x"], mark["y"]) for mark in marks] == [("20.0", "8.5"), ("0.0", "7.0"), ("20.0", "8.5")]


def test_names_and_texts_never_become_markup() -> None:
    report = make_report(detections())
    report["versions"][HOSTILE[:200]] = report["model"]["weights"] = HOSTILE
    report["request"]["model"]["checkpoint"]["uri"] = f"s3://a/{HOSTILE}"
    page = page_of(report, name=HOSTILE)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img", "iframe", "a", "link", "object"})
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert HOSTILE in "".join(page.texts)


def test_page_lists_the_tools_of_all_files() -> None:
    first, second = (make_report() | {"versions": versions} for versions in ({"torch": "2", "onnx": "1"}, {"jax": "0"}))
    upgraded = make_report() | {"versions": {"torch": "3", "onnx": "1"}}
    texts = page_of(first, second, upgraded).texts
    start = texts.index("Versions")
    assert texts[start + 1 : start + 7] == ["jax", "0", "onnx", "1", "torch", "2, 3"]


def test_policy_allows_only_own_style_and_embedded_images() -> None:
    page = page_of(make_report(detections()))
    (policy,) = (meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert "style" not in {name for _, attributes in page.tags for name in attributes}
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("href", "src")]
    assert links
    assert all(str(link).startswith("data:image/jpeg;base64,") for link in links)
    assert not re.search(r"url\(|@import", page.style)


def test_classes_and_pixels_are_named_on_image() -> None:
    classified = make_sample(make_answer(0), make_answer(1, same=False), file=(make_answer(0),))
    divided = make_sample(make_answer(1, runs=[3, 0, 64]), file=(make_answer(7, runs=[3, 0, 64], same=False),))
    marks = [text for text in page_of(make_report(classified, divided)).texts if text.startswith(("✗", "circle", "sq"))]
    assert marks == ["circle 0.91", "✗ square 0.91", "circle 0.91", "square", "✗ class 7"]


def test_report_of_earlier_version_is_shown_without_answers() -> None:
    report = make_report()
    for key in ("samples", "peakMemoryMiB", "seconds", "model", "versions", "sources"):
        del report[key]
    del report["verification"]["fidelity"]
    assert "Fidelity not in this report." in page_of(report).texts


def test_accuracy_and_float_layers_are_shown_if_reported() -> None:
    without = "".join(page_of(make_report()).texts)
    assert "Accuracy" not in without
    assert "stay in float" not in without
    layers = {"floatLayers": ["model.22.cv3", HOSTILE], "floatLayerShares": [0.25, 0.105]}
    target = target_of(make_report() | layers)
    accuracy = Accuracy("mAP50-95", "0.6100", "0.6000", "0.0100", "0.02", 64, ("0.0050", "0.0150"))
    rungs = (Rung("Ranges", 0, "0.3880", 20, "0.95", None, "0.03"), Rung("MixedPrecision", 4, "0.3890", 9))
    made = QuantizationResult("MixedPrecision", 4, "0.3890", rungs, "maxFloatLayers is 4")
    target = replace(target, published=replace(target.published, accuracy=accuracy, quantization=made))
    texts = Page(render("shapes", [target])).texts
    assert f"Accuracy {accuracy.describe()}." in texts
    start = texts.index("Layer")
    assert texts[start : start + 6] == ["Layer", "Share of the noise", "model.22.cv3", "25.0%", HOSTILE, "10.5%"]
    start = texts.index("Files that were tried, in their order; maxFloatLayers is 4:")
    assert texts[start + 8 : start + 15] == ["Ranges", "0", "0.03", "-", "0.95", "0.3880", "20"]
    assert "0.6000 (drop 0.0100)" in texts
    assert "Accuracy (mAP50-95)" in texts


def measured(fmt: str, *drops: float, latency: float | None = 0.0123) -> Target:
    """A target whose classes lose so much."""
    classes = {f"{label} class-{label}": {"original": 0.9, "value": 0.9 - drop} for label, drop in enumerate(drops)}
    report = make_report() | {"evaluation": {"classes": classes}}
    if latency is not None:
        report["latency"] = {"seconds": latency, "images": 63}
    target = target_of(report)
    return replace(target, published=replace(target.published, target=f"{fmt}/INT8"))


def test_classes_that_lose_most_come_first_and_are_bounded() -> None:
    targets = [measured("ONNX", *(0.001 * label for label in range(30))), measured("LiteRT", 0.5, -0.1)]
    page = Page(render("shapes", targets))
    texts = [text.strip() for text in page.texts]
    rows = [text for text in texts if re.fullmatch(r"\d+ class-\d+", text)]
    assert rows == ["0 class-0", *(f"{label} class-{label}" for label in range(29, 10, -1))]
    first = texts.index("0 class-0")
    assert texts[first + 1 : first + 4] == ["0.9000", "0.9000 (+0.0000)", "0.4000 (-0.5000)"]
    assert any(text.endswith("The largest loss comes first. 10 others lose less.") for text in texts)


def test_latency_is_plotted_except_that_of_our_evaluator() -> None:
    page = Page(render("shapes", [measured("ONNX"), measured("CoreML", latency=None)]))
    labels = [str(svg["aria-label"]) for svg in page.of("svg")]
    assert "Milliseconds per image, to compare files of one format: ONNX/INT8 12.3" in labels
    assert any("CoreML/INT8: no latency. We run these files in an evaluator of ours" in text for text in page.texts)
    assert "no latency" not in "".join(page_of(make_report()).texts)


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency": {"seconds": "1"}},
        {"latency": {"seconds": float("inf")}},
        {"evaluation": {"classes": {"a": {"original": 2, "value": 1}}}},
        {"evaluation": {"classes": {"a": [1, 1]}}},
        {"evaluation": {"classes": {str(label): {"original": 1, "value": 1} for label in range(20_001)}}},
    ],
    ids=["text", "infinite", "above 1", "list", "endless"],
)
def test_invalid_measurements_of_report_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"latency|evaluation"):
        target_of(make_report() | wrong)


def test_target_that_lost_accuracy_is_shown_with_numbers() -> None:
    proof = read_verification(make_report()["verification"])
    failed = Published("ONNX/INT8", "AccuracyLost", "it lost too much", verification=proof)
    texts = Page(render("shapes", [Target(failed)])).texts
    assert "AccuracyLost it lost too much" in texts
    assert f"Fidelity {proof.fidelity}." in texts


def test_failed_target_is_shown_with_its_message() -> None:
    page = Page(render("shapes", [Target(Published("ONNX/INT8", "Failed (VerificationFailed)", "no <b>"))]))
    assert "Failed (VerificationFailed) no <b>" in page.texts


WRONG: dict[str, dict[str, Any]] = {
    "image with markup": {"image": '"><script>'},
    "image of any length": {"image": "A" * (1 << 18)},
    "size as text": {"size": ["1", "1"]},
    "three sizes": {"size": [1, 1, 1]},
    "answers as an object": {"model": {}},
    "label as text": {"model": [make_answer(0) | {"label": "<b>"}]},
    "box at infinity": {"model": [make_answer(0, 0, 0, 1, float("inf"))]},
    "corners at infinity": {"model": [make_answer(0, corners=[float("nan")] * 8)]},
    "corners far away": {"model": [make_answer(0, corners=[-(1 << 21)] * 8)]},
    "nine corners": {"model": [make_answer(0, corners=[0] * 9)]},
    "runs outside of the grid": {"model": [make_answer(0, runs=[65, 0, 1])]},
    "endless runs": {"model": [make_answer(0, runs=[1] * 20_000)]},
    "endless answers": {"model": [make_answer(0)] * 65},
}


@pytest.mark.parametrize("case", WRONG)
def test_invalid_sample_is_refused(case: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        target_of(make_report(detections() | WRONG[case]))


def test_get_names_page_of_status_or_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / OUTPUT.removeprefix("s3://")
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(make_report()), encoding="utf-8")
    arguments = ["get", "shapes", "--store", str(tmp_path)]
    assert main(arguments) == 0
    assert "Page" not in capsys.readouterr().out
    (folder.parent / "report.html").write_text("page", encoding="utf-8")
    assert main(arguments) == 0
    assert "Page           s3://exports/default/shapes/report.html" in capsys.readouterr().out.splitlines()
    assert main([*arguments, "-o", "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["page_uri"] == "s3://exports/default/shapes/report.html"
    entry = {"format": "ONNX", "precision": "INT8", "state": "Running", "reason": "Running"}
    (listed,) = of_cluster({"status": {"pageURI": "s3://a/b/report.html", "targets": [entry]}})
    assert listed.page_uri == "s3://a/b/report.html"
    with pytest.raises(BadInput, match="pageURI"):
        of_cluster({"status": {"pageURI": "javascript:alert(1)", "targets": [entry]}})


def test_report_of_local_run_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "store" / OUTPUT.removeprefix("s3://")
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(make_report(detections())), encoding="utf-8")
    written = tmp_path / "page.html"
    arguments = ["report", "shapes", "--store", str(tmp_path / "store"), "--output", str(written)]
    assert main(arguments) == 0
    assert capsys.readouterr().out.strip() == str(written)
    assert "boxes 0.9412" in written.read_text(encoding="utf-8")
    assert main([*arguments[:-1], str(tmp_path / "missing/page.html")]) == 2
    (folder / "report.json").write_text(json.dumps(make_report() | {"samples": 3}), encoding="utf-8")
    assert main(arguments) == 2
    assert "samples is not a list of at most 6 items; run the export again" in capsys.readouterr().err


def test_page_has_a_program_for_each_language() -> None:
    page = page_of(make_report() | {"model": describe_detector()})
    summaries = [text for text in page.texts if text.startswith("A program")]
    assert summaries == [f"A program that opens the file in {language}" for language in ("Python", "C++")]
    assert any('session.run(names, {"image": image})' in text for text in page.texts)


def test_program_of_local_run_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / OUTPUT.removeprefix("s3://")
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(make_report() | {"model": describe_detector()}), encoding="utf-8")
    arguments = ["program", "shapes", "--store", str(tmp_path), "--target", "onnx/int8"]
    assert main(arguments) == 0
    assert 'InferenceSession("shapes-int8.onnx")' in capsys.readouterr().out
    assert main([*arguments, "--language", "C++"]) == 0
    assert "#include <onnxruntime_cxx_api.h>" in capsys.readouterr().out
    assert main([*arguments, "--language", "Swift"]) == 2
    assert "ONNX/INT8 is not opened in Swift; use one of Python, C++" in capsys.readouterr().err
    (folder / "report.json").write_text(json.dumps(make_report()), encoding="utf-8")
    assert main(arguments) == 2
    assert "the report of ONNX/INT8 is invalid" in capsys.readouterr().err
