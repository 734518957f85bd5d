"""The results of a conversion process: termination message, exit code, events and reports, with a tiny model."""

import errno
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from modelexport import names
from modelexport.api.quantization import Effort, Quantization
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.result import ConversionResult
from modelexport.api.spec import Calibration, DataRef, Model
from modelexport.matrix.options import InputType, Layout, Options
from modelexport.matrix.support import BACKENDS, Format, Precision, Recipe, Target, lookup
from modelexport_converter import __main__, pipeline, steps
from modelexport_converter.backends import Array, Backend, Run, load_backend
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.images import PreparedImages
from modelexport_converter.local import make_places
from modelexport_converter.model import LoadedModel
from modelexport_converter.norm_statistics import Deviation, Fit
from modelexport_converter.publishing import report
from modelexport_converter.runtime.outcome import Terminated
from modelexport_converter.runtime.threads import thread_count
from modelexport_converter.verification import reference_outputs
from modelexport_converter.verification.agreement import run_model
from modelexport_converter.verification.reference_outputs import ReferenceOutputs
from tiny_model import TinyBackend, tiny_model
from tiny_request import REQUEST

STATIC = replace(
    REQUEST,
    target=Target(Format.ONNX, Precision.INT8),
    recipe=Recipe.STATIC_WI8_AI8,
    calibration=Calibration(DataRef("s3://datasets/five.zip"), 5),
)


@dataclass
class Answer:
    """How a conversion ended: exit code, termination message, events."""

    code: int
    result: ConversionResult | None
    events: list[dict[str, Any]]

    def stages(self) -> list[str]:
        return [event["stage"] for event in self.events if event.get("state") == "finished"]


@dataclass
class Bench:
    """Converts a tiny model step by step in this process; ``left`` lists the scratch files of the last conversion."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    left: list[Path] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.root / "store"

    def __call__(self, request: ConversionRequest = REQUEST, backend: Backend | None = None, **environ: str) -> Answer:
        self.monkeypatch.setattr(pipeline, "load_backend", lambda fmt: backend or TinyBackend())
        self.monkeypatch.setattr(pipeline, "load_model", lambda work: tiny_model())
        message, stream, code = self.root / "message.json", io.StringIO(), 0
        message.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            places = make_places(Path(folder)) | {names.TERMINATION_LOG_ENV: str(message)}
            ours = {names.REQUEST_ENV: request.to_json(), names.STORE_ENV: str(self.store)}
            public = {names.REQUEST_ENV: request.public().to_json()}
            for step in (names.FETCH, names.CONVERT, names.PUBLISH):
                code = code or __main__.main(
                    (public if step == names.CONVERT else ours) | places | environ, stream, step
                )
            self.left = list(Path(places[names.WORK_DIR_ENV]).iterdir())
        result = ConversionResult.from_json(message.read_text(encoding="utf-8")) if message.exists() else None
        return Answer(code, result, [json.loads(line) for line in stream.getvalue().splitlines()])

    def put(self, name: str, images: Sequence[Image.Image], broken: int = 0) -> None:
        """Write an archive of images and of some files that are no images."""
        with zipfile.ZipFile(self.store / "datasets" / name, "w") as archive:
            for index, image in enumerate(images):
                buffer = io.BytesIO()
                image.save(buffer, "PNG")
                archive.writestr(f"{index}.png", buffer.getvalue())
            for index in range(broken):
                archive.writestr(f"broken-\x1b[2J{index}.png", b"nothing")

    def published(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.store)) for path in (self.store / "exports").rglob("*") if path.is_file()
        )

    def report(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((next((self.store / "exports").rglob("report.json"))).read_text("utf-8"))
        return content


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for folder in ("store/checkpoints", "store/datasets"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "store/checkpoints/tiny.pt").write_bytes(b"weights")
    bench = Bench(tmp_path, monkeypatch)
    bench.put("five.zip", [noise(index) for index in range(5)])
    return bench


def test_conversion_publishes_file_and_report(bench: Bench) -> None:
    answer = bench()
    assert (answer.code, bench.published()) == (
        0,
        ["exports/default/tiny/onnx-fp32-0123456789/" + name for name in ("report.json", "tiny-fp32.onnx")],
    )
    result = answer.result
    assert result is not None
    assert result.artifact is not None
    assert result.verification is not None
    assert (result.reason, result.recipe, result.reused) == (Reason.SUCCEEDED, "fp32", False)
    assert result.artifact.uri == f"{REQUEST.output}tiny-fp32.onnx"
    assert result.verification.value == "1.000000"
    assert result.report_uri == f"{REQUEST.output}report.json"
    assert result.peak_memory_mib is not None
    assert result.peak_memory_mib > 50


def test_every_stage_is_logged_and_timed(bench: Bench) -> None:
    answer = bench()
    stages = ["fetch", "start", "load", "convert", "quantise", "inspect", "verify", "publish"]
    assert answer.stages() == stages
    assert list(bench.report()["seconds"]) == [*stages, "total"]
    assert {(event["export"], event["target"]) for event in answer.events} == {("default/tiny", "ONNX/FP32")}
    assert all(event["time"].endswith("+00:00") and event["level"] == "info" for event in answer.events)
    assert not any("job" in event for event in answer.events)


def test_cluster_log_lines_name_job(bench: Bench) -> None:
    answer = bench(REQUEST, None, **{names.JOB_ENV: "tiny-onnx-fp32-0123456789"})
    assert {event["job"] for event in answer.events} == {"tiny-onnx-fp32-0123456789"}


def test_report_describes_file_usage(bench: Bench) -> None:
    bench(STATIC)
    found = bench.report()
    assert found["schemaVersion"] == 3
    assert found["scheme"] == "static_wi8_ai8"
    assert found["model"]["classNames"] == ["a", "b", "c", "d"]
    assert found["model"]["weights"] == "the whole checkpoint"
    assert found["model"]["outputs"] == [
        {
            "name": "scores",
            "shape": [1, 4],
            "type": "float32",
            "axes": ["batch", "class"],
            "meaning": "Probability of each class.",
        }
    ]
    assert found["model"]["preprocessing"]["resize"] == "letterbox"
    assert found["model"]["weightTypes"] == {"int8": 112}
    assert found["agreements"] == {"scores": 1.0}
    assert found["floatLayers"] == []
    assert 0 < found["latency"]["seconds"] < 10
    assert found["latency"]["images"] >= 1
    assert found["device"] == "cpu"
    assert set(found["sources"]) == {"checkpoint", "calibration"}
    makers = {"modelexport", "torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "pillow"}
    assert set(found["versions"]) == makers


def test_file_that_loses_too_much_is_recovered(bench: Bench) -> None:
    backend = TinyBackend(recovers={0: 0.5, 4: 0.4, 8: 0.0})
    answer = bench(STATIC, backend)
    assert answer.result is not None
    assert answer.result.quantization is not None
    assert answer.code == 0
    assert answer.result.message.startswith("verified and published; 8 layers stay in float; if the hardware")
    found = bench.report()
    assert found["quantization"] == answer.result.quantization.to_dict()
    made = found["quantization"]
    assert (made["effort"], made["floatLayers"], made["sizeRatio"]) == ("MixedPrecision", 8, "0.2500")
    assert [(rung["rung"], rung["floatLayers"]) for rung in made["rungs"]] == [
        ("Ranges", 0),
        ("MixedPrecision", 4),
        ("MixedPrecision", 8),
    ]
    assert float(made["rungs"][0]["agreement"]) < float(made["rungs"][1]["agreement"]) < 1
    assert found["floatLayers"] == [f"conv{index}" for index in range(8)]
    assert found["floatLayerShares"] == [0.1] * 8
    assert backend.calls.count("convert") == backend.calls.count("calibrate") == 1
    again = bench(STATIC).result
    assert again is not None
    assert (again.reused, again.quantization) == (True, answer.result.quantization)


def test_rungs_share_answers_of_original(bench: Bench) -> None:
    model, runs = tiny_model(), list[int]()
    model.module.register_forward_hook(lambda *_: runs.append(1))
    bench.monkeypatch.setattr(pipeline, "check_model", lambda work, *_: model)
    bench(replace(STATIC, quantization=Quantization(Effort.RANGES)), TinyBackend(recovers={0: 0.5}))
    once, images = len(runs), 5
    bench(STATIC, TinyBackend(recovers={0: 0.5, 4: 0.5, 8: 0.5, 16: 0.5}))
    assert len(runs) - once == once + 3 * images  # those of the files, which TinyBackend runs by the module


def test_first_rung_is_logged_and_no_other_follows(bench: Bench) -> None:
    backend = TinyBackend()
    answer = bench(STATIC, backend)
    assert [event["rung"] for event in answer.events if event["event"] == "rung"] == ["Ranges"]
    assert backend.calls.count("quantise static_wi8_ai8") == 1
    assert bench.report()["quantization"]["rungs"][0]["agreement"] == "1.000000"


def test_failure_says_what_was_tried(bench: Bench) -> None:
    noises = {0: 0.5, 4: 0.45, 8: 0.4, 16: 0.42}
    answer = bench(STATIC, TinyBackend(recovers=noises))
    assert answer.result is not None
    assert answer.result.reason is Reason.VERIFICATION_FAILED
    message = answer.result.message
    assert "; tried Ranges (fidelity " in message or "; tried Ranges (agreement " in message
    assert message.endswith("maxFloatLayers is 16")
    assert answer.result.quantization is not None
    assert answer.result.quantization.float_layers == 8
    assert len(answer.result.quantization.rungs) == 4
    assert bench.published() == []


def test_deadline_ends_recovery(bench: Bench) -> None:
    backend = TinyBackend(recovers={0: 0.5, 4: 0.0})
    answer = bench(STATIC, backend, **{names.DEADLINE_ENV: "0"})
    assert answer.result is not None
    assert answer.result.message.endswith("the deadline of the Job leaves no time for another rung")
    assert bench(STATIC, backend, **{names.DEADLINE_ENV: "3600"}).code == 0


def test_other_recipes_have_no_rungs(bench: Bench) -> None:
    answer = bench()
    assert answer.result is not None
    assert answer.result.quantization is None
    assert "quantization" not in bench.report()


def test_options_go_through_the_whole_conversion(bench: Bench) -> None:
    options = Options(dynamic_batch=True, layout=Layout.NHWC, input_type=InputType.UINT8)
    own = Calibration(DataRef("s3://datasets/five.zip"), 5)
    answer = bench(replace(REQUEST, options=options, calibration=own), load_backend(Format.ONNX))
    assert answer.code == 0, answer.result
    found = bench.report()
    assert found["request"]["options"] == {"dynamicBatch": True, "layout": "NHWC", "inputType": "uint8"}
    axes = ["batch", "height", "width", "RGB"]
    described = {"name": "image", "shape": [None, 32, 32, 3], "type": "uint8", "axes": axes}
    assert found["model"]["input"] == {**described, "inputSize": None, "quantization": None}
    assert found["model"]["outputs"][0]["shape"] == [None, 4]
    assert found["model"]["preprocessing"] == {"resize": "letterbox", "channels": 3, "pixelRange": "0-255"}
    assert found["agreements"]["scores"] > 0.9999


def test_scale_of_quantised_input_is_in_the_report(bench: Bench) -> None:
    own, options = Calibration(DataRef("s3://datasets/five.zip"), 5), Options(input_type=InputType.INT8)
    target = replace(STATIC.target, format=Format.LITERT)
    answer = bench(replace(STATIC, target=target, options=options, calibration=own), load_backend(Format.LITERT))
    assert answer.code == 0, answer.result
    scale = bench.report()["model"]["input"]["quantization"]
    assert scale["scale"] > 0
    assert -128 <= scale["zeroPoint"] <= 127


def test_file_of_any_size_goes_through_the_conversion(bench: Bench) -> None:
    own, options = Calibration(DataRef("s3://datasets/five.zip"), 5), Options(dynamic_size=True, dynamic_batch=True)
    answer = bench(replace(REQUEST, options=options, calibration=own), load_backend(Format.ONNX))
    assert answer.code == 0, answer.result
    found = bench.report()["model"]["input"]
    assert (found["shape"], found["inputSize"]) == ([None, 3, None, None], [32, 32])


@pytest.mark.parametrize("images", ["five.zip", "one.zip"])
def test_file_that_fails_in_another_size_is_refused(images: str, bench: Bench) -> None:
    bench.put("one.zip", [noise(0)])
    onnx = load_backend(Format.ONNX)

    def open_file(model: LoadedModel, path: Path) -> Run:
        run = onnx.open_file(model, path)

        def run_in_one_size(image: Array) -> tuple[Array, ...]:
            if image.shape != model.input_shape:
                raise RuntimeError(f"no image of {image.shape[2:]}")
            return run(image)

        return run_in_one_size

    fixed: Any = SimpleNamespace(
        convert=onnx.convert, quantise=onnx.quantise, inspect=onnx.inspect, open_file=open_file
    )
    own, options = Calibration(DataRef(f"s3://datasets/{images}"), 5), Options(dynamic_size=True)
    result = bench(replace(REQUEST, options=options, calibration=own), fixed).result
    assert result is not None
    assert result.reason == Reason.VERIFICATION_FAILED
    assert "no image of (64, 32)" in result.message


def test_time_of_our_evaluator_is_no_latency(bench: Bench) -> None:
    cell = lookup(STATIC.model.architecture, STATIC.target)
    evaluated = replace(cell, backend=replace(cell.backend, has_runtime=False))
    bench.monkeypatch.setattr(pipeline, "lookup", lambda *_: evaluated)
    bench(STATIC)
    assert bench.report()["latency"] is None
    assert [fmt for fmt, row in BACKENDS.items() if not row.has_runtime] == ["CoreML"]


def test_report_gives_origin_of_reference(bench: Bench) -> None:
    model = replace(tiny_model(), assumptions=("activation SiLU", "strides"), warnings=("it looks wrong",))
    bench.monkeypatch.setattr(pipeline, "check_model", lambda work, *_: model)
    proof = "verified against a rebuilt network (assumed: activation SiLU, …; see verification.assumptions)"
    for text in (f"{proof} and published", f"an equal conversion had published this file already, {proof}"):
        result = bench().result
        assert result is not None
        assert result.verification is not None
        assert result.message.startswith(f"{text}; warning: it looks wrong")
        assert result.verification.to_dict() == bench.report()["verification"]
        assert (result.verification.reference, result.verification.assumptions) == (
            "Rebuilt",
            ("activation SiLU", "strides"),
        )
    failed = bench(replace(REQUEST, output="s3://exports/b/"), TinyBackend(noise=0.5)).result
    assert failed is not None
    assert failed.verification is not None
    assert failed.verification.reference == "Rebuilt"


def test_reference_runs_once_per_image(bench: Bench) -> None:
    model, kept, runs = tiny_model(), [], []

    def check(work: pipeline.Conversion, _: LoadedModel, outputs: ReferenceOutputs) -> LoadedModel:
        for image in PreparedImages(work.dataset.verification, model.preprocessing, model.input_size):
            outputs.keep(image, model.module(torch.from_numpy(image)))
            kept.append(image)
        model.module.register_forward_hook(lambda *_: runs.append(1))
        return model

    bench.monkeypatch.setattr(pipeline, "check_model", check)
    assert bench().code == 0
    assert len(runs) == len(kept) > 0  # those of the file, which TinyBackend runs by the module, too


@pytest.mark.parametrize(("shared", "ran"), [(True, 0), (False, 5)])
def test_targets_of_local_run_share_original(bench: Bench, shared: bool, ran: int) -> None:
    runs: list[Any] = []

    def count_and_run(*arguments: Any) -> Any:
        runs.append(1)
        return run_model(*arguments)

    bench.monkeypatch.setattr(reference_outputs, "run_model", count_and_run)
    folder = {names.SHARED_DIR_ENV: str(bench.root / "shared")} if shared else {}
    assert bench(STATIC, None, **folder).code == 0
    assert len(runs) == 5
    half = replace(STATIC, target=Target(Format.ONNX, Precision.FP16), recipe=Recipe.FP16, output="s3://exports/half/")
    assert bench(half, None, **folder).code == 0
    assert len(runs) == 5 + ran


@pytest.mark.parametrize(("shared", "ran"), [(True, 0), (False, 1)])
def test_targets_of_local_run_share_fit(bench: Bench, shared: bool, ran: int) -> None:
    fit, measured, checked = Fit((Deviation("first", 0.1, 1.1),), 8), [], []

    def measure(*_: Any) -> Fit:
        measured.append(1)
        return fit

    def check(work: pipeline.Conversion, model: LoadedModel, outputs: ReferenceOutputs) -> LoadedModel:
        checked.append(check_model(work, model, outputs).fit)
        return model

    check_model = pipeline.check_model
    bench.monkeypatch.setattr(pipeline, "measure", measure)
    bench.monkeypatch.setattr(pipeline, "check_model", check)
    folder = {names.SHARED_DIR_ENV: str(bench.root / "shared")} if shared else {}
    for output in ("s3://exports/one/", "s3://exports/other/"):
        assert bench(replace(REQUEST, output=output), None, **folder).code == 0
    assert checked == [fit, fit]
    assert len(measured) == 1 + ran


def own(name: str, samples: int = 64, request: ConversionRequest = STATIC) -> ConversionRequest:
    return replace(request, calibration=Calibration(DataRef(f"s3://datasets/{name}"), samples))


def test_report_lists_used_images(bench: Bench) -> None:
    assert bench(STATIC).code == 0
    assert bench.report()["images"] == {
        "source": "spec.calibration.dataset",
        "calibrated": 5,
        "apart": False,
        "unreadable": [],
        "repeated": 0,
        "verified": 5,
        "withEvidence": 3,
    }


def test_skipped_images_are_reported_everywhere(bench: Bench) -> None:
    bench.put("torn.zip", [noise(index) for index in range(110)], broken=1)
    answer = bench(own("torn.zip"))
    left_out = "broken-0.png in s3://datasets/torn.zip cannot be read as an image (it is not of the kinds BMP"
    assert answer.result is not None
    assert answer.result.message.startswith(f"verified and published; left out 1 of the images: {left_out}")
    (event,) = (event for event in answer.events if event["event"] == "image left out")
    assert event["message"].startswith(left_out)
    found = bench.report()["images"]
    assert [text[: len(left_out)] for text in found["unreadable"]] == [left_out]
    assert (found["calibrated"], found["apart"]) == (64, True)
    assert found["verified"] >= found["withEvidence"] >= 8


@pytest.mark.parametrize("request_", [STATIC, REQUEST], ids=["INT8", "FP32"])
def test_uninformative_images_are_refused(bench: Bench, request_: ConversionRequest) -> None:
    black = [Image.new("RGB", (32, 32 + index)) for index in range(8)]
    bench.put("black.zip", black)
    bench.put("mixed.zip", [*black, noise(1), noise(2)])
    answer = bench(own("black.zip", request=request_))
    assert answer.result is not None
    assert answer.result.reason is Reason.VERIFICATION_FAILED
    assert "returns the same output for all images (a single one), so they do not prove" in answer.result.message
    assert bench.published() == []
    assert bench(own("mixed.zip", request=request_)).code == 0, "the way out that the message names"


def test_uninformative_built_in_images_are_reported(bench: Bench) -> None:
    answer = bench()
    assert answer.result is not None
    assert answer.result.message.startswith("verified and published; the model returns the same output for all")
    assert answer.result.message.endswith("provide images of the model's domain in spec.calibration")
    found = bench.report()["images"]
    assert (found["source"], found["verified"], found["withEvidence"]) == ("built-in", 4, 0)
    again = bench()
    assert again.result is not None
    assert again.result.reused
    assert "4 built-in ones, which prove little" in again.result.message


def test_report_with_other_images_is_not_reused(bench: Bench) -> None:
    bench(STATIC)
    path = next(bench.store.rglob("report.json"))
    path.write_text(path.read_text("utf-8").replace('"schemaVersion": 3', '"schemaVersion": 2', 1), "utf-8")
    answer = bench(STATIC)
    assert answer.result is not None
    assert not answer.result.reused


def test_calibration_images_are_used_by_static_recipe_only(bench: Bench) -> None:
    static, half = TinyBackend(), TinyBackend()
    bench(STATIC, static)
    bench(
        replace(STATIC, target=Target(Format.ONNX, Precision.FP16), recipe=Recipe.FP16, output="s3://exports/b/"), half
    )
    assert (static.samples, half.samples) == (5, 0)


def test_finished_conversion_is_reused(bench: Bench) -> None:
    first, backend = bench(), TinyBackend()
    again = bench(backend=backend)
    assert first.result is not None
    assert again.result is not None
    assert (again.code, again.result.reused, backend.calls) == (0, True, [])
    assert again.result.artifact == first.result.artifact
    assert again.result.verification == first.result.verification
    assert again.stages() == ["fetch"]


def change_checkpoint(bench: Bench) -> None:
    (bench.store / "checkpoints/tiny.pt").write_bytes(b"other weights")


def cut_artifact(bench: Bench) -> None:
    next(bench.store.rglob("*.onnx")).write_bytes(b"")


def remove_artifact(bench: Bench) -> None:
    next(bench.store.rglob("*.onnx")).unlink()


def break_report(bench: Bench) -> None:
    next(bench.store.rglob("report.json")).write_text("[1", encoding="utf-8")


def upgrade(bench: Bench) -> None:
    bench.monkeypatch.setattr(report, "__version__", "99.0")


def install(bench: Bench, package: str, version: str | None = "99.0") -> None:
    """Let a package have another version, or be absent."""
    installed = metadata.version

    def find(name: str) -> str:
        if name != package:
            return installed(name)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    bench.monkeypatch.setattr(metadata, "version", find)


def upgrade_tool(bench: Bench) -> None:
    install(bench, "onnx-ir")


def forget_reference(bench: Bench) -> None:
    """Rewrite a report as an earlier version wrote it, without the kind of reference."""
    path = next(bench.store.rglob("report.json"))
    content = json.loads(path.read_text())
    del content["verification"]["reference"]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "happen", [change_checkpoint, cut_artifact, remove_artifact, break_report, upgrade, upgrade_tool, forget_reference]
)
def test_changed_input_repeats_conversion(bench: Bench, happen: Callable[[Bench], None]) -> None:
    bench()
    happen(bench)
    backend = TinyBackend()
    again = bench(backend=backend)
    assert again.result is not None
    assert (again.code, again.result.reused, backend.calls) == (0, False, ["convert"])


@pytest.mark.parametrize("version", ["99.0", None])
@pytest.mark.parametrize("package", ["coremltools", "litert-converter", "tensorflow-cpu", "torchvision", "pycocotools"])
def test_package_that_made_no_part_of_the_file_is_no_matter(bench: Bench, package: str, version: str | None) -> None:
    bench(STATIC)
    install(bench, package, version)
    again = bench(STATIC).result
    assert again is not None
    assert again.reused


def test_image_reader_matters_where_images_calibrate(bench: Bench) -> None:
    static = replace(STATIC, output="s3://exports/default/tiny/onnx-int8-0123456789/")
    assert bench().code == bench(static).code == 0
    install(bench, "pillow")
    plain, calibrated = bench().result, bench(static).result
    assert plain is not None
    assert calibrated is not None
    assert (plain.reused, calibrated.reused) == (True, False)


def test_builder_of_the_network_matters_where_it_builds() -> None:
    def of(architecture: str) -> set[str]:
        return set(report.versions_of(replace(REQUEST, model=replace(REQUEST.model, architecture=architecture))))

    assert of("FasterRCNN") - of("YOLOv8") == of("DeepLabV3") - of("UNet") == {"torchvision"}


def test_builds_of_tensorflow_count_as_one_package(bench: Bench) -> None:
    before = report.tool_versions(("tensorflow",))
    installed = metadata.version

    def of_arm64(name: str) -> str:
        if name == "tensorflow-cpu":
            raise metadata.PackageNotFoundError(name)
        return installed("tensorflow-cpu" if name == "tensorflow" else name)

    bench.monkeypatch.setattr(metadata, "version", of_arm64)
    assert report.tool_versions(("tensorflow",)) == before
    assert "tensorflow" in before


def test_shared_file_is_that_of_the_same_tools(bench: Bench, tmp_path: Path) -> None:
    shared, backend = str(tmp_path / "shared"), TinyBackend()
    bench(REQUEST, TinyBackend(), **{names.SHARED_DIR_ENV: shared})
    install(bench, "coremltools")
    bench(STATIC, backend, **{names.SHARED_DIR_ENV: shared})
    assert "convert" not in backend.calls
    install(bench, "onnxscript")
    bench(replace(STATIC, spec_hash="abcdef0123"), backend, **{names.SHARED_DIR_ENV: shared})
    assert "convert" in backend.calls


def test_fp32_file_is_shared_by_conversions_of_format(bench: Bench, tmp_path: Path) -> None:
    shared, full, static = str(tmp_path / "shared"), TinyBackend(), TinyBackend()
    bench(REQUEST, full, **{names.SHARED_DIR_ENV: shared})
    bench(STATIC, static, **{names.SHARED_DIR_ENV: shared})
    assert (full.calls, static.calls) == (["convert"], ["quantise static_wi8_ai8", "calibrate"])
    change_checkpoint(bench)
    other = TinyBackend()
    bench(STATIC, other, **{names.SHARED_DIR_ENV: shared})
    assert other.calls[0] == "convert", "the file of another checkpoint was taken"


def test_incomplete_shared_file_is_never_used(bench: Bench, tmp_path: Path) -> None:
    shared = {names.SHARED_DIR_ENV: str(tmp_path / "shared")}
    assert bench(REQUEST, TinyBackend(RuntimeError("broken")), **shared).code == 70
    assert bench(REQUEST, TinyBackend(), **shared).code == 0


def test_deviating_file_is_reported_but_not_published(bench: Bench) -> None:
    answer = bench(backend=TinyBackend(noise=0.5))
    assert answer.result is not None
    assert (answer.code, answer.result.reason) == (65, Reason.VERIFICATION_FAILED)
    assert answer.result.verification is not None
    assert float(answer.result.verification.value) < 0.9
    assert not (bench.store / "exports").exists()


@pytest.mark.parametrize(
    ("error", "code", "reason", "message"),
    [
        (RuntimeError("no op\nfor you"), 70, Reason.CONVERSION_FAILED, "cannot convert the model: no op for you"),
        (ValueError("x" * 9000), 70, Reason.CONVERSION_FAILED, "x…"),
        (MemoryError(), 75, Reason.OOM_KILLED, "ran out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 75, Reason.OOM_KILLED, "can't allocate"),
        (
            OSError(errno.ENOSPC, "full", "/work/a"),
            70,
            Reason.STORAGE_FULL,
            "no space left on this node's disk for /work/a",
        ),
        (KeyError("lost"), 70, Reason.CONVERSION_FAILED, "'lost'"),
        (Failure(Reason.CHECKPOINT_MISMATCH, "another model"), 65, Reason.CHECKPOINT_MISMATCH, "another model"),
    ],
)
def test_every_exception_maps_to_reason(
    bench: Bench, error: Exception, code: int, reason: Reason, message: str
) -> None:
    answer = bench(backend=TinyBackend(error))
    assert answer.result is not None
    assert (answer.code, answer.result.reason) == (code, reason)
    assert message in answer.result.message
    assert (bench.root / "message.json").stat().st_size <= names.TERMINATION_MESSAGE_LIMIT
    assert not bench.left, "scratch space is left"


def test_internal_error_logs_traceback(bench: Bench) -> None:
    bench.monkeypatch.setattr(steps, "fetch_inputs", None)
    answer = bench()
    assert answer.result is not None
    assert (answer.code, answer.result.reason) == (75, Reason.INTERNAL_ERROR)
    assert any("Traceback" in event.get("traceback", "") for event in answer.events)


@pytest.mark.parametrize(
    ("change", "reason", "stages"),
    [
        ({"model": Model("YOLOv8", DataRef("s3://checkpoints/absent.pt"))}, Reason.CHECKPOINT_NOT_FOUND, []),
        ({"model": Model("YOLOv8", DataRef("s3://absent/tiny.pt"))}, Reason.BUCKET_NOT_FOUND, []),
        ({"model": Model("YOLOv8", DataRef("s3://checkpoints/tiny.pt", "0" * 64))}, Reason.DIGEST_MISMATCH, []),
        ({"calibration": Calibration(DataRef("s3://datasets/absent.zip"))}, Reason.CALIBRATION_NOT_FOUND, []),
        ({"calibration": Calibration(DataRef("s3://checkpoints/tiny.pt"))}, Reason.CALIBRATION_INVALID, ["fetch"]),
    ],
)
def test_bad_input_is_user_fault_before_conversion_starts(
    bench: Bench, change: Mapping[str, Any], reason: Reason, stages: list[str]
) -> None:
    answer = bench(replace(STATIC, **change))
    assert answer.result is not None
    assert answer.result.reason is reason
    assert answer.stages() == stages


def test_unreadable_request_is_reported(bench: Bench) -> None:
    answer = bench(REQUEST, None, **{names.REQUEST_ENV: '{"schemaVersion": 99}'})
    assert answer.result is not None
    assert (answer.code, answer.result.reason) == (70, Reason.CLASS_INVALID)
    assert "schemaVersion 99" in answer.result.message


def test_terminated_conversion_leaves_no_file_and_no_message(bench: Bench) -> None:
    answer = bench(backend=TinyBackend(Terminated()))
    assert (answer.code, answer.result) == (143, None)
    assert not bench.left
    assert not (bench.store / "exports").exists()


def test_missing_termination_log_keeps_exit_code(bench: Bench) -> None:
    answer = bench(REQUEST, None, **{names.TERMINATION_LOG_ENV: str(bench.root / "absent/log")})
    assert answer.code == 0
    assert any(event["event"] == "no termination message" for event in answer.events)


@pytest.mark.parametrize(
    ("limit", "told", "expected"),
    [("max 100000", None, None), ("100000 100000", None, 1), ("50000 100000", None, 1), ("max 100000", "3", 3)],
)
def test_thread_count_follows_environment_then_container_limit(
    tmp_path: Path, limit: str, told: str | None, expected: int | None
) -> None:
    (tmp_path / "cpu.max").write_text(limit, encoding="ascii")
    environ = {names.THREADS_ENV: told} if told else {}
    assert thread_count(environ, tmp_path / "cpu.max") == (expected or len(os.sched_getaffinity(0)))
