"""The page that conversions publish beside their files, whatever order they end in."""

import json
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.result import ConversionResult
from modelexport.api.spec import DataRef, Model
from modelexport.matrix.support import Format, Precision, Recipe, Target, Threshold
from modelexport_converter import steps
from modelexport_converter.failures import Failure
from modelexport_converter.publishing.page import publish_page
from modelexport_converter.stores.directory import DirectoryStore
from report_pages import detections, make_report

FOLDER = "s3://exports/default/shapes"
REPORTS = {name: f"{FOLDER}/{name.replace('/', '-').lower()}-1/report.json" for name in ("ONNX/INT8", "ONNX/FP16")}
REQUEST = ConversionRequest(
    export="default/shapes",
    model=Model("YOLOv8", DataRef("s3://checkpoints/a.pt")),
    target=Target(Format.ONNX, Precision.INT8),
    recipe=Recipe.STATIC_WI8_AI8,
    threshold=Threshold("agreement", 0.85),
    artifact_name="shapes-int8.onnx",
    output=f"{FOLDER}/onnx-int8-1/",
    spec_hash="0123456789",
)


class Store(DirectoryStore):
    """A directory; ``arriving`` is a target whose report comes while the first page is written."""

    arriving = ""
    uploads = 0

    def put(self, target: str, report: Mapping[str, Any] | None = None) -> None:
        precision = target.partition("/")[2]
        given = {**make_report(detections()), **(report or {})}
        given["request"]["target"]["precision"] = precision
        given["artifact"]["uri"] = REPORTS[target].replace("report.json", f"shapes-{precision.lower()}.onnx")
        path = self._path(REPORTS[target])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(given), encoding="utf-8")

    def upload(self, path: Path, uri: str, metadata: Mapping[str, str]) -> None:
        self.uploads += 1
        super().upload(path, uri, metadata)
        if self.arriving:
            self.put(self.arriving)
            self.arriving = ""

    def page(self) -> str:
        return self._path(REQUEST.shared_uri("report.html")).read_text(encoding="utf-8")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    return Store(tmp_path / "store")


def tags(page: str) -> set[str]:
    found: set[str] = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.add(tag)

    Reader().feed(page)
    return found


def write(store: Store, folder: Path, reports: Any = REPORTS) -> None:
    publish_page(store, REQUEST, {names.REPORTS_ENV: json.dumps(reports)}, folder)


def test_page_has_all_targets_and_says_which_are_missing(store: Store, tmp_path: Path) -> None:
    store.put("ONNX/INT8")
    write(store, tmp_path)
    assert REQUEST.shared_uri("report.html") == f"{FOLDER}/report.html"
    assert store.page().count("data:image/jpeg;base64,") == 2
    assert "There was no report when this page was written." in store.page()
    store.put("ONNX/FP16")
    write(store, tmp_path)
    assert store.page().count("data:image/jpeg;base64,") == 4
    assert "There was no report" not in store.page()
    assert store.uploads == 2


def test_report_that_comes_meanwhile_is_not_lost(store: Store, tmp_path: Path) -> None:
    store.put("ONNX/INT8")
    store.arriving = "ONNX/FP16"
    write(store, tmp_path)
    assert (store.uploads, store.page().count("data:image/jpeg;base64,")) == (2, 4)


def test_invalid_report_does_not_keep_others_from_page(store: Store, tmp_path: Path) -> None:
    store.put("ONNX/INT8")
    of_other = json.dumps(make_report()).encode()
    hostile = json.dumps(make_report() | {"versions": {"<script>": 3}}).encode()
    for content in (b"{", hostile, b"\xff" * 9, b"[" * 100_000, of_other):
        store._path(REPORTS["ONNX/FP16"]).parent.mkdir(exist_ok=True)
        store._path(REPORTS["ONNX/FP16"]).write_bytes(content)
        write(store, tmp_path)
        assert "is not a valid report" in store.page()
        assert "script" not in tags(store.page())
        assert store.page().count("data:image/jpeg;base64,") == 2


def test_without_reports_there_is_no_page(store: Store, tmp_path: Path) -> None:
    publish_page(store, REQUEST, {}, tmp_path)
    assert store.uploads == 0
    for wrong in ('["s3://a/b"]', "7", "{", json.dumps({str(index): "s3://a/b" for index in range(65)})):
        with pytest.raises(Failure, match="MODELEXPORT_REPORTS is not a JSON object of URIs"):
            publish_page(store, REQUEST, {names.REPORTS_ENV: wrong}, tmp_path)


def test_page_that_cannot_be_written_is_told_and_fails_nothing(tmp_path: Path) -> None:
    class Full(Store):
        def upload(self, path: Path, uri: str, metadata: Mapping[str, str]) -> None:
            raise Failure(Reason.STORAGE_FULL, "the disk is full")

    (tmp_path / "store").mkdir()
    store, result = Full(tmp_path / "store"), ConversionResult(Reason.SUCCEEDED, "verified and published")
    store.put("ONNX/INT8")
    environ = {names.REPORTS_ENV: json.dumps(REPORTS), names.WORK_DIR_ENV: str(tmp_path)}
    expected = "verified and published; report.html could not be written (StorageFull); use modelexport report"
    assert steps._with_page(store, environ, REQUEST, result) == replace(result, message=expected)
