"""The options of a target: each file is run, and answers as the model does."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from converter.test_backends import READERS, read_specification
from modelexport.api.result import Reference
from modelexport.matrix.options import (
    OPSETS,
    DeploymentTarget,
    InputKind,
    InputType,
    Layout,
    Options,
    PreprocessingPlace,
)
from modelexport.matrix.support import BACKENDS, Format, Recipe
from modelexport_converter.architectures.shared.detection import BOXES, SCORES
from modelexport_converter.architectures.suppression import suppress_boxes
from modelexport_converter.backends import Array, FileContents, Run, load_backend, load_input_adapter
from modelexport_converter.coreml import load_model as load_package
from modelexport_converter.failures import Failure
from modelexport_converter.file_input import Batches, check_options, to_file_input
from modelexport_converter.model import LoadedModel, Output, Preprocessing
from modelexport_converter.publishing.report import describe_model
from modelexport_converter.verification.agreement import compare
from modelexport_converter.verification.inspection import check_facts
from trained.cells import eval_inputs, load_model

HEIGHT, WIDTH = 16, 24
EVERY_RECIPE = [Recipe.FP32, Recipe.FP16, Recipe.DYNAMIC_WI8_AFP32, Recipe.STATIC_WI8_AI8, Recipe.STATIC_WI8_AI16]
CORE_ML = [Recipe.FP32, Recipe.FP16, Recipe.WEIGHT_ONLY_WI8_AFP16]
WEIGHTS_ONLY = [Recipe.FP32, Recipe.FP16, Recipe.WEIGHT_ONLY_WI8_AFP32]
PIXELS = Options(layout=Layout.NHWC, input_type=InputType.UINT8)
FLOAT_PIXELS = Options(preprocessing=PreprocessingPlace.INSIDE)
BYTES_FIRST = Options(input_type=InputType.UINT8)
CHANNELS_LAST = Options(layout=Layout.NHWC)


class Net(torch.nn.Module):
    """A network that reads its input in two ways, so that more than one operator depends on the layout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 64, 3, stride=2)
        self.linear = torch.nn.Linear(64, 4)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        pooled = torch.relu(self.conv(image)).mean((2, 3))
        return (torch.softmax(self.linear(pooled) + image[:, :1].mean((2, 3)), 1),)


def build(options: Options, **changes: Any) -> LoadedModel:
    torch.manual_seed(0)
    output = Output("probabilities", ("batch", "class"), "Probability of each class.")
    how = Preprocessing("stretch", mean=(0.48, 0.45, 0.4), std=(0.22, 0.23, 0.25))
    module = Net().eval().requires_grad_(False)
    return replace(
        LoadedModel(module, (HEIGHT, WIDTH), (output,), ("a", "b", "c", "d"), how, options=options), **changes
    )


def prepared_images(count: int = 6) -> list[Array]:
    """Images of other brightness and colour each, as the pipeline prepares them."""
    generator, how = np.random.default_rng(0), build(Options()).preprocessing
    colours = generator.integers(0, 256, (count, 1, 1, 3))
    raw = np.clip(colours + generator.integers(-40, 40, (count, HEIGHT, WIDTH, 3)), 0, 255)
    mean, std = (np.asarray(values, np.float32) for values in (how.mean, how.std))
    prepared = ((raw.astype(np.float32) / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    return [np.ascontiguousarray(image[None]) for image in prepared]


def produce(fmt: Format, recipe: Recipe, options: Options, folder: Path) -> tuple[LoadedModel, Path]:
    """Convert as the pipeline does."""
    model, network = build(options), build(options.of_network(fmt))
    backend, suffix = load_backend(fmt), BACKENDS[fmt].suffix.removesuffix(".zip")
    base = BACKENDS[fmt].base(recipe)
    backend.convert(network, base, path := folder / f"base{suffix}")
    if BACKENDS[fmt].quantises(recipe):
        backend.quantise(network, path, recipe, prepared_images(), path := folder / f"quantised{suffix}")
    if options != network.options:
        load_input_adapter(fmt)(model, path, path := folder / f"adapted{suffix}")
    return model, path


def check_answers(model: LoadedModel, run: Run, tolerance: float) -> None:
    for image in prepared_images():
        with torch.inference_mode():
            (expected,) = model.module(torch.from_numpy(image))
        np.testing.assert_allclose(run(image)[0], expected.numpy(), atol=tolerance)


def check_file(fmt: Format, recipe: Recipe, options: Options, folder: Path) -> tuple[LoadedModel, Path, FileContents]:
    model, path = produce(fmt, recipe, options, folder)
    facts = load_backend(fmt).inspect(path)
    check_facts(facts, model, recipe)
    check_answers(model, load_backend(fmt).open_file(model, path), 1e-5 if recipe is Recipe.FP32 else 0.02)
    return model, path, facts


INPUTS = [
    pytest.param(fmt, recipe, options, id=f"{fmt}-{recipe}-{options}")
    for fmt in (Format.ONNX, Format.LITERT)
    for recipe, options in (
        (Recipe.FP32, PIXELS),
        (Recipe.FP32, FLOAT_PIXELS),
        (Recipe.FP32, BYTES_FIRST),
        (Recipe.FP32, CHANNELS_LAST),
        (Recipe.FP16, PIXELS),
        (Recipe.DYNAMIC_WI8_AFP32, PIXELS),
        (Recipe.STATIC_WI8_AI8, PIXELS),
        (Recipe.STATIC_WI8_AI16, PIXELS),
    )
]


@pytest.mark.parametrize(("fmt", "recipe", "options"), INPUTS)
def test_changed_input_gives_the_answers_of_the_model(
    fmt: Format, recipe: Recipe, options: Options, tmp_path: Path
) -> None:
    model, path, facts = check_file(fmt, recipe, options, tmp_path)
    last, whole = options.layout is Layout.NHWC, options.input_type is InputType.UINT8
    shape = (1, HEIGHT, WIDTH, 3) if last else (1, 3, HEIGHT, WIDTH)
    assert (facts.inputs, facts.input_types) == ({"image": shape}, {"image": "uint8" if whole else "float32"})
    usage = READERS[fmt](path)
    entry = json.loads(usage["input"])
    assert (entry["shape"], entry["type"]) == (list(shape), "uint8" if whole else "float32")
    steps = {"resize": "stretch", "channels": 3, "pixelRange": "0-255"}
    assert (json.loads(usage["preprocessing"]) == steps) is model.options.takes_pixels
    reported = describe_model(model, facts)
    assert (reported["input"]["shape"], reported["input"]["type"]) == (shape, entry["type"])
    assert reported["input"]["axes"] == (
        ("batch", "height", "width", "RGB") if last else ("batch", "RGB", "height", "width")
    )


def test_litert_camera_frame_needs_no_transpose(tmp_path: Path) -> None:
    def count(options: Options) -> int:
        folder = tmp_path / str(options)
        folder.mkdir()
        return (
            load_backend(Format.LITERT)
            .inspect(produce(Format.LITERT, Recipe.FP32, options, folder)[1])
            .op_types["TRANSPOSE"]
        )

    assert count(CHANNELS_LAST) <= count(BYTES_FIRST)


def test_file_runs_for_its_user_with_plain_pixels(tmp_path: Path) -> None:
    model, path = produce(Format.ONNX, Recipe.FP32, PIXELS, tmp_path)
    (image, *_) = prepared_images()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    frame = to_file_input(model, image)
    assert (frame.shape, str(frame.dtype)) == ((1, HEIGHT, WIDTH, 3), "uint8")
    (found,) = session.run(None, {"image": frame})
    np.testing.assert_allclose(found, model.module(torch.from_numpy(image))[0].numpy(), atol=1e-5)


RECIPES: Mapping[Format, Sequence[Recipe]] = {
    Format.ONNX: EVERY_RECIPE,
    Format.LITERT: EVERY_RECIPE,
    Format.COREML: CORE_ML,
    Format.PYTORCH: WEIGHTS_ONLY,
    Format.TENSORFLOW: WEIGHTS_ONLY,
    Format.EXECUTORCH: (Recipe.FP32, Recipe.STATIC_WI8_AI8),
}
SEVERAL_IMAGES = [
    pytest.param(fmt, recipe, options, id=f"{fmt}-{recipe}-{options}")
    for fmt, recipes in RECIPES.items()
    for recipe in recipes
    for options in (Options(batch=2), *([Options(dynamic_batch=True)] if fmt is Format.ONNX else []))
]


@pytest.mark.parametrize(("fmt", "recipe", "options"), SEVERAL_IMAGES)
def test_several_images_at_once_get_their_own_answers(
    fmt: Format, recipe: Recipe, options: Options, tmp_path: Path
) -> None:
    model, path, facts = check_file(fmt, recipe, options, tmp_path)
    size = options.batch or 0
    shape = (size, HEIGHT, WIDTH, 3) if facts.channels_last else (size, 3, HEIGHT, WIDTH)
    assert facts.inputs == {"image": shape}
    assert facts.outputs == {"probabilities": (size, 4)}
    assert describe_model(model, facts)["outputs"][0]["shape"] == (size or None, 4)
    assert json.loads(READERS[fmt](path)["input"])["shape"] == [size or None, *shape[1:]]


@pytest.mark.parametrize("fmt", [Format.COREML, Format.PYTORCH, Format.TENSORFLOW, Format.EXECUTORCH])
@pytest.mark.parametrize("options", [FLOAT_PIXELS, replace(FLOAT_PIXELS, batch=3)], ids=str)
def test_other_formats_scale_and_normalise_pixels_too(fmt: Format, options: Options, tmp_path: Path) -> None:
    for recipe in RECIPES[fmt][: 1 if options.batch else None]:
        (folder := tmp_path / recipe).mkdir()
        model, path, _ = check_file(fmt, recipe, options, folder)
        steps = {"resize": "stretch", "channels": 3, "pixelRange": "0-255"}
        assert json.loads(READERS[fmt](path)["preprocessing"]) == steps
        unprepared = replace(model, options=replace(options, preprocessing=None))
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            check_answers(model, load_backend(fmt).open_file(unprepared, path), 0.02)


def test_dynamic_batch_takes_pixels_too(tmp_path: Path) -> None:
    _, _, facts = check_file(Format.ONNX, Recipe.FP32, replace(PIXELS, dynamic_batch=True), tmp_path)
    assert facts.inputs == {"image": (0, HEIGHT, WIDTH, 3)}


SIZES = [
    pytest.param(recipe, options, id=f"{recipe}-{options}")
    for recipe in EVERY_RECIPE
    for options in (Options(dynamic_size=True), replace(PIXELS, dynamic_size=True, dynamic_batch=True))
]


@pytest.mark.parametrize(("recipe", "options"), SIZES)
def test_file_of_any_size_answers_in_every_size(recipe: Recipe, options: Options, tmp_path: Path) -> None:
    model, path, facts = check_file(Format.ONNX, recipe, options, tmp_path)
    first = 0 if options.dynamic_batch else 1
    assert facts.inputs == {"image": (first, 0, 0, 3) if options.channels_last else (first, 3, 0, 0)}
    assert describe_model(model, facts)["input"]["inputSize"] == (HEIGHT, WIDTH)
    run = load_backend(Format.ONNX).open_file(model, path)
    for image in prepared_images(2):
        other = np.ascontiguousarray(np.concatenate([image, image[:, :, :8]], 2)[..., 8:])
        expected = model.module(torch.from_numpy(other))[0].numpy()
        np.testing.assert_allclose(run(other)[0], expected, atol=1e-5 if recipe is Recipe.FP32 else 0.02)


@pytest.mark.parametrize("opset", range(OPSETS[0], OPSETS[1] + 1))
def test_every_opset_is_as_asked_and_runs(opset: int, tmp_path: Path) -> None:
    _, path, _ = check_file(Format.ONNX, Recipe.FP32, Options(opset=opset), tmp_path)
    content = onnx.load(path)
    onnx.checker.check_model(content, full_check=True)
    assert [entry.version for entry in content.opset_import if not entry.domain] == [opset]


@pytest.mark.parametrize("opset", OPSETS)
def test_int8_runs_at_the_oldest_and_newest_opset(opset: int, tmp_path: Path) -> None:
    _, path, _ = check_file(Format.ONNX, Recipe.STATIC_WI8_AI8, Options(opset=opset), tmp_path)
    assert [entry.version for entry in onnx.load(path).opset_import if not entry.domain] == [opset]


@pytest.mark.parametrize("recipe", CORE_ML)
def test_core_ml_takes_an_image(recipe: Recipe, tmp_path: Path) -> None:
    _, path, facts = check_file(Format.COREML, recipe, Options(input=InputKind.IMAGE), tmp_path)
    assert facts.image_inputs == {"image": "RGB"}
    assert json.loads(READERS[Format.COREML](path)["input"])["type"] == "image"


@pytest.mark.parametrize(
    ("recipe", "system"),
    [
        pytest.param(recipe, system, id=f"{recipe}-{system}")
        for recipe in CORE_ML
        for system in DeploymentTarget
        if (recipe, system) != (Recipe.WEIGHT_ONLY_WI8_AFP16, DeploymentTarget.IOS15)
    ],
)
def test_core_ml_file_runs_from_the_system_asked_for(recipe: Recipe, system: DeploymentTarget, tmp_path: Path) -> None:
    options = Options(input=InputKind.IMAGE, deployment_target=system)
    model, path, facts = check_file(Format.COREML, recipe, options, tmp_path)
    assert facts.deployment_target == system
    assert READERS[Format.COREML](path)["minimum_deployment_target"] == system
    assert describe_model(model, facts)["metadata"]["minimum_deployment_target"] == system


def test_core_ml_file_of_a_newer_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="it needs iOS16 instead of iOS15"):
        check_file(
            Format.COREML, Recipe.WEIGHT_ONLY_WI8_AFP16, Options(deployment_target=DeploymentTarget.IOS15), tmp_path
        )


CLASSES = Options(classifier=True, input=InputKind.IMAGE)


@pytest.mark.parametrize(
    ("recipe", "options"),
    [*((recipe, CLASSES) for recipe in CORE_ML), (Recipe.FP16, Options(classifier=True))],
    ids=str,
)
def test_core_ml_classifier_names_the_classes(recipe: Recipe, options: Options, tmp_path: Path) -> None:
    model, path, facts = check_file(Format.COREML, recipe, options, tmp_path)
    assert facts.outputs == {"classLabel": (), "classLabel_probs": (4,)}
    description = read_specification(path).description
    assert description.predictedFeatureName == "classLabel"
    assert description.predictedProbabilitiesName == "classLabel_probs"
    kinds = {output.name: output.type.WhichOneof("Type") for output in description.output}
    assert kinds == {"classLabel": "stringType", "classLabel_probs": "dictionaryType"}
    preview = READERS[Format.COREML](path).get("com.apple.coreml.model.preview.type")
    assert preview == ("imageClassifier" if options.input else None)
    reported = [(output["name"], output["type"], output["axes"]) for output in describe_model(model, facts)["outputs"]]
    assert reported == [("classLabel", "string", ()), ("classLabel_probs", "dictionary", ("class",))]
    assert [one["name"] for one in json.loads(READERS[Format.COREML](path)["outputs"])] == list(facts.outputs)


def test_classifier_of_the_trained_network_keeps_answers(tmp_path: Path) -> None:
    model = replace(load_model("YOLOv8-CLS"), options=CLASSES)
    backend = load_backend(Format.COREML)
    backend.convert(model, Recipe.FP16, path := tmp_path / "classes.mlpackage")
    check_facts(backend.inspect(path), model, Recipe.FP16)
    images = eval_inputs("YOLOv8-CLS")[:6]
    assert compare(model, backend.open_file(model, path), images).value > 0.99
    answers = [load_package(path).run({"image": to_file_input(model, image)}) for image in images]
    best = [model.class_names[int(model.module(torch.from_numpy(image))[0].argmax())] for image in images]
    assert [answer["classLabel"] for answer in answers] == best
    assert len(set(best)) > 1


@pytest.mark.parametrize(
    ("label", "by_name", "message"),
    [
        pytest.param("a", {"a": 0.4, "b": 0.6}, "the file answers a where b is more probable", id="label"),
        pytest.param("b", {"a": 0.4, "c": 0.6}, "the file names the classes a, c in place of a, b", id="names"),
    ],
)
def test_classifier_of_wrong_names_is_refused(label: str, by_name: dict[str, float], message: str) -> None:
    from modelexport_converter.backends.vision import read_classes

    with pytest.raises(ValueError, match=message):
        read_classes(build(CLASSES, class_names=("a", "b")), {"classLabel": label, "classLabel_probs": by_name})


def test_classifier_needs_different_class_names() -> None:
    check_options(build(CLASSES))
    with pytest.raises(
        Failure, match=r"two classes have the name 'a', .*; remove the option classifier, or rename one"
    ):
        check_options(build(CLASSES, class_names=("a", "b", "a", "c")))


def test_core_ml_refuses_images_with_alpha() -> None:
    check_options(build(Options(input=InputKind.IMAGE)))
    model = build(Options(input=InputKind.IMAGE), preprocessing=Preprocessing("stretch").taking(4))
    with pytest.raises(Failure, match=r"images of 4 channels .* remove the option input, or set it to Tensor"):
        check_options(model)


@pytest.mark.parametrize(
    "options", [Options(dynamic_batch=True), Options(batch=2), Options(dynamic_size=True)], ids=str
)
def test_programs_refuse_several_images_and_sizes(options: Options) -> None:
    check_options(build(options))
    with pytest.raises(Failure, match=r"for a \.pt2 program, which takes one image of one size; remove it"):
        check_options(build(options, reference=Reference.PROGRAM))


class Detector(torch.nn.Module):
    """A detector whose neighbouring anchors overlap, so that suppression has something to do."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 64, 3, padding=1)
        self.head = torch.nn.Conv2d(64, 2 + classes, 1)
        y, x = torch.meshgrid((torch.arange(HEIGHT) + 0.5) / HEIGHT, (torch.arange(WIDTH) + 0.5) / WIDTH, indexing="ij")
        self.centres: torch.Tensor
        self.register_buffer("centres", torch.stack([x.flatten(), y.flatten()])[None])

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raw = self.head(torch.relu(self.conv(image))).view(1, -1, HEIGHT * WIDTH)
        boxes = torch.cat([self.centres, raw[:, :2].sigmoid() * 0.5 + 0.2], 1)
        return boxes, (raw[:, 2:] * 4).sigmoid()


def build_detector(classes: int = 2) -> LoadedModel:
    torch.manual_seed(0)
    module, names = Detector(classes).eval().requires_grad_(False), tuple(f"class {one}" for one in range(classes))
    how = build(Options()).preprocessing
    return LoadedModel(module, (HEIGHT, WIDTH), (BOXES, SCORES), names, how, options=Options(nms=True))


def suppress_in_numpy(
    boxes: Array, scores: Array, overlap: float = 0.7, least: float = 0.25
) -> list[tuple[int, float, tuple[float, ...]]]:
    """The detections of one image: class, score and corners, best first; written apart from the code that is tested."""
    corners = np.concatenate([boxes[:2] - boxes[2:] / 2, boxes[:2] + boxes[2:] / 2]).T
    labels, best = scores.argmax(0), scores.max(0)
    kept: list[int] = []
    for index in sorted(np.flatnonzero(best > least), key=lambda place: -best[place]):
        if all(labels[index] != labels[other] or iou(corners[index], corners[other]) <= overlap for other in kept):
            kept.append(int(index))
    return [(int(labels[index]), float(best[index]), tuple(corners[index])) for index in kept[:300]]


def iou(one: Array, other: Array) -> float:
    shared = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod()
    return float(shared / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - shared))


def produce_detector(fmt: Format, folder: Path) -> Path:
    """The FP32 file of a detector that suppresses boxes."""
    path = folder / f"detector{BACKENDS[fmt].suffix}"
    load_backend(fmt).convert(suppress_boxes(build_detector(), fmt), Recipe.FP32, path)
    return path


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Format], Path]:
    """The FP32 file of a detector in a format, made once."""
    return cache(lambda fmt: produce_detector(fmt, tmp_path_factory.mktemp("detector")))


@pytest.mark.xdist_group("suppression")
@pytest.mark.parametrize("recipe", EVERY_RECIPE)
@pytest.mark.parametrize("fmt", [Format.ONNX, Format.LITERT])
def test_boxes_are_suppressed_in_the_file(
    fmt: Format, recipe: Recipe, detectors: Callable[[Format], Path], tmp_path: Path
) -> None:
    plain, model, backend = build_detector(), suppress_boxes(build_detector(), fmt), load_backend(fmt)
    path = base = detectors(fmt)
    if recipe is not Recipe.FP32:
        backend.quantise(model, base, recipe, prepared_images(), path := tmp_path / f"produced{base.suffix}")
    facts = backend.inspect(path)
    check_facts(facts, model, recipe)
    assert facts.op_types["NonMaxSuppression"] == (fmt is Format.ONNX)
    run = backend.open_file(model, path)
    assert compare(model, run, prepared_images()).value > (0.9999 if recipe is Recipe.FP32 else 0.9)
    for image in prepared_images() if recipe is Recipe.FP32 else ():
        wanted = suppress_in_numpy(*(values[0].numpy() for values in plain.module(torch.from_numpy(image))))
        boxes, scores, labels, count = run(image)
        number = int(count[0])
        assert number == len(wanted) > 0
        assert labels[0, :number].astype(int).tolist() == [label for label, _, _ in wanted]
        np.testing.assert_allclose(scores[0, :number], [score for _, score, _ in wanted], atol=1e-5)
        np.testing.assert_allclose(boxes[0, :number], [corners for _, _, corners in wanted], atol=1e-4)
        assert not scores[0, number:].any()


def produce_vision_detector(recipe: Recipe, folder: Path, classes: int = 2) -> tuple[LoadedModel, Path]:
    model = suppress_boxes(build_detector(classes), Format.COREML)
    model = replace(model, options=Options(nms=True, input=InputKind.IMAGE))
    backend, base = load_backend(Format.COREML), BACKENDS[Format.COREML].base(recipe)
    backend.convert(model, base, path := folder / "detector.mlpackage")
    if recipe is not base:
        backend.quantise(model, path, recipe, [], path := folder / "quantised.mlpackage")
    return model, path


@pytest.mark.parametrize("recipe", CORE_ML)
def test_core_ml_suppresses_boxes_as_the_model_does(recipe: Recipe, tmp_path: Path) -> None:
    model, path = produce_vision_detector(recipe, tmp_path)
    backend = load_backend(Format.COREML)
    facts = backend.inspect(path)
    check_facts(facts, model, recipe)
    assert facts.image_inputs == {"image": "RGB"}
    reported = [(output["name"], output["shape"]) for output in describe_model(model, facts)["outputs"]]
    assert reported == [("confidence", (None, 80)), ("coordinates", (None, 4))]
    run = backend.open_file(model, path)
    assert compare(model, run, prepared_images()).value > (0.9999 if recipe is Recipe.FP32 else 0.99)
    for image in prepared_images() if recipe is Recipe.FP32 else ():
        wanted = suppress_in_numpy(*(values[0].numpy() for values in build_detector().module(torch.from_numpy(image))))
        boxes, scores, labels, count = run(image)
        assert int(count[0]) == len(wanted) > 0
        assert labels[0, : len(wanted)].astype(int).tolist() == [label for label, _, _ in wanted]
        np.testing.assert_allclose(scores[0, : len(wanted)], [score for _, score, _ in wanted], atol=1e-5)
        np.testing.assert_allclose(boxes[0, : len(wanted)], [corners for _, _, corners in wanted], atol=1e-4)


@pytest.mark.parametrize(("classes", "columns"), [(2, 80), (80, 80), (81, 160)])
def test_core_ml_detector_has_a_multiple_of_80_columns(classes: int, columns: int, tmp_path: Path) -> None:
    model, path = produce_vision_detector(Recipe.FP32, tmp_path, classes)
    table, suppression = read_specification(path).pipeline.models
    labels = list(suppression.nonMaximumSuppression.stringClassLabels.vector)
    assert labels[:classes] == list(model.class_names)
    assert len(labels) == len(set(labels)) == columns
    shapes = {output.name: list(output.type.multiArrayType.shape) for output in table.description.output}
    assert shapes == {"raw_confidence": [HEIGHT * WIDTH, columns], "raw_coordinates": [HEIGHT * WIDTH, 4]}
    confidence: Any = load_package(path).run({"image": to_file_input(model, prepared_images()[0])})["confidence"]
    assert len(confidence) > 1
    assert (np.count_nonzero(confidence, axis=1) == 1).all()
    assert confidence.argmax(1).max() < classes


def test_core_ml_detector_is_what_vision_expects(tmp_path: Path) -> None:
    model, path = produce_vision_detector(Recipe.FP16, tmp_path)
    content = read_specification(path)
    kinds = {feature.name: feature.type.WhichOneof("Type") for feature in content.description.input}
    assert kinds == {"image": "imageType", "iouThreshold": "doubleType", "confidenceThreshold": "doubleType"}
    assert [output.name for output in content.description.output] == ["confidence", "coordinates"]
    own = content.pipeline.models[1].nonMaximumSuppression
    assert (own.iouThreshold, own.confidenceThreshold, own.pickTop.perClass) == (0.7, 0.25, True)
    usage = READERS[Format.COREML](path)
    assert (usage["nms_threshold"], usage["score_threshold"]) == ("0.7", "0.25")
    assert [output["name"] for output in json.loads(usage["outputs"])] == ["confidence", "coordinates"]
    assert json.loads(usage["class_names"]) == list(model.class_names)


@pytest.mark.parametrize(("overlap", "least"), [(0.2, 0.25), (1.0, 0.25), (0.7, 0.6)])
def test_thresholds_of_core_ml_can_be_given(overlap: float, least: float, tmp_path: Path) -> None:
    model, path = produce_vision_detector(Recipe.FP32, tmp_path)
    image = prepared_images()[0]
    given = {"iouThreshold": np.array(overlap), "confidenceThreshold": np.array(least)}
    found: Any = load_package(path).run({"image": to_file_input(model, image), **given})
    table, scores = (values[0].numpy() for values in build_detector().module(torch.from_numpy(image)))
    wanted, usual = suppress_in_numpy(table, scores, overlap, least), suppress_in_numpy(table, scores)
    assert len(wanted) != len(usual)
    np.testing.assert_allclose(found["confidence"].max(1)[: len(wanted)], [score for _, score, _ in wanted], atol=1e-5)
    assert len(found["confidence"]) == len(wanted) or len(wanted) == 300


def test_trained_detector_for_vision_keeps_detections(tmp_path: Path) -> None:
    model = suppress_boxes(load_model("YOLOv8"), Format.COREML)
    model = replace(model, options=Options(nms=True, input=InputKind.IMAGE))
    backend = load_backend(Format.COREML)
    backend.convert(model, Recipe.FP16, path := tmp_path / "vision.mlpackage")
    check_facts(backend.inspect(path), model, Recipe.FP16)
    found = compare(model, backend.open_file(model, path), eval_inputs("YOLOv8")[:3], least_fidelity=0.9)
    assert found.value > 0.99
    assert found.fidelity is not None
    assert float(found.fidelity.value) == 1


@pytest.mark.parametrize(
    ("labels", "column", "message"),
    [
        pytest.param(("a", "c"), 0, "the file names the classes a, c", id="names"),
        pytest.param(("a", "b"), 2, "the file finds the class 2 of 2", id="a column without a class"),
    ],
)
def test_detector_of_wrong_classes_is_refused(labels: tuple[str, ...], column: int, message: str) -> None:
    from modelexport_converter.backends.vision import read_boxes

    model = replace(suppress_boxes(build_detector(), Format.COREML), class_names=("a", "b"))
    opened: Any = SimpleNamespace(labels=labels, boxes=10)
    results = {"confidence": np.eye(3)[[column]], "coordinates": np.ones((1, 4))}
    with pytest.raises(ValueError, match=message):
        read_boxes(model, opened, results)


@pytest.mark.parametrize("fmt", [Format.ONNX, Format.LITERT])
def test_trained_detector_suppresses_boxes_in_int8(fmt: Format, tmp_path: Path) -> None:
    model, images = suppress_boxes(load_model("YOLOv8"), fmt), eval_inputs("YOLOv8")[:12]
    model, backend, suffix = replace(model, options=Options(nms=True)), load_backend(fmt), BACKENDS[fmt].suffix
    backend.convert(model, Recipe.FP32, plain := tmp_path / f"plain{suffix}")
    backend.quantise(model, plain, Recipe.STATIC_WI8_AI8, images[:8], path := tmp_path / f"int8{suffix}")
    assert compare(model, backend.open_file(model, path), images).value > 0.97


def test_detector_for_vision_needs_different_class_names() -> None:
    model = replace(build_detector(), class_names=("a", "a"))
    check_options(suppress_boxes(model, Format.ONNX))
    with pytest.raises(Failure, match=r"two classes have the name 'a', .*; remove the option nms, or rename one"):
        check_options(suppress_boxes(model, Format.COREML))


@pytest.mark.parametrize("fmt", [Format.ONNX, Format.LITERT, Format.COREML])
def test_count_of_a_file_tells_of_its_limit(fmt: Format) -> None:
    *_, count = suppress_boxes(build_detector(), fmt).outputs
    assert ("-1 where boxes overlap" in count.meaning) is (fmt is Format.LITERT)


def test_file_of_another_type_than_asked_is_refused(tmp_path: Path) -> None:
    model, path = produce(Format.ONNX, Recipe.FP32, CHANNELS_LAST, tmp_path)
    facts = load_backend(Format.ONNX).inspect(path)
    with pytest.raises(Failure, match="its input is of the type float32 instead of uint8"):
        check_facts(facts, replace(model, options=PIXELS), Recipe.FP32)


def batch_run(change: Callable[[Array], Array]) -> Batches:
    model = build(Options(dynamic_batch=True))

    def run(images: Array) -> tuple[Array, ...]:
        return (change(model.module(torch.from_numpy(images))[0].numpy()),)

    return Batches(run, model)


def test_batches_find_a_file_that_answers_for_the_first() -> None:
    model = build(Options(dynamic_batch=True))
    check_answers(model, batch_run(lambda answers: answers), 1e-6)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_answers(model, batch_run(lambda answers: np.repeat(answers[:1], len(answers), 0)), 1e-3)
    with pytest.raises(ValueError, match=r"an output of shape \(1, 4\) for 3 images"):
        check_answers(model, batch_run(lambda answers: answers[:1]), 1e-3)


def test_images_of_each_size_come_in_every_batch() -> None:
    given: list[tuple[int, ...]] = []

    def run(images: Array) -> tuple[Array, ...]:
        given.append(images.shape)
        return (np.zeros((len(images), 4), np.float32),)

    batches = Batches(run, build(Options(dynamic_batch=True, dynamic_size=True)))
    for _ in range(2):
        for width in (WIDTH, WIDTH // 2):
            batches(np.zeros((1, 3, HEIGHT, width), np.float32))
    assert {(shape[0], shape[3]) for shape in given} == {(1, WIDTH), (3, WIDTH), (1, WIDTH // 2), (3, WIDTH // 2)}


def test_input_that_is_of_no_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="not of pixels from 0 to 255"):
        to_file_input(build(PIXELS), prepared_images()[0] + np.float32(0.01))
