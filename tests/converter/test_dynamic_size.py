"""Files of any size: each answers in every size as the network that was loaded for that size."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from converter.test_options import PIXELS
from modelexport.api.reasons import Reason
from modelexport.matrix.options import Options
from modelexport.matrix.support import ARCHITECTURES, Format, Precision, Recipe, Target, Threshold, lookup
from modelexport_converter.architectures.suppression import CANDIDATES, suppress_boxes
from modelexport_converter.backends import Array, load_backend, load_input_adapter
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.failures import Failure
from modelexport_converter.file_input import verified_sizes
from modelexport_converter.inputs.images import PreparedImages, open_archive
from modelexport_converter.model import LoadedModel, open_sizes
from modelexport_converter.verification.agreement import check, compare, run_model
from modelexport_converter.verification.inspection import check_facts
from trained.cells import TRAINED, ask, inputs, load
from trained.model import MODELS

ANY_SIZE = Options(dynamic_size=True)
LEAST = Threshold("agreement", min(row.thresholds[Precision.INT8].minimum for row in ARCHITECTURES.values()))
"""The least threshold that any cell of INT8 has."""
SWAPPED = (96, 128)
"""A size whose other one in verification has as many anchors, in other places."""
TASKS = (
    *("YOLOv8", "YOLO11", "YOLO26", "YOLOX", "YOLOv4", "YOLOv8-SEG", "YOLO26-Pose", "YOLOv8-OBB"),
    *("UNet", "DeepLabV3", "FCN", "YOLOv8-CLS", "YOLO11-CLS", "YOLO26-CLS"),
)


def load_for(architecture: str, size: tuple[int, int] | None, options: Options) -> LoadedModel:
    """The network of one size, or of that of its training."""
    model = load(read_checkpoint(TRAINED[architecture].weights), ask(architecture, input_size=size))
    return replace(suppress_boxes(model, Format.ONNX) if options.nms else model, options=options)


def load_open(architecture: str, options: Options, size: tuple[int, int] | None = None) -> LoadedModel:
    model = load_for(architecture, size, options)
    open_sizes(model.module)
    return model


def sizes_of(model: LoadedModel) -> tuple[tuple[int, int], ...]:
    """The sizes in which a file is verified, and a wide one."""
    (height, width), stride = model.input_size, int(model.metadata["stride"])
    return (*verified_sizes(model, stride), (height, 2 * width))


def images(architecture: str, model: LoadedModel, *sizes: tuple[int, int], count: int = 4) -> PreparedImages:
    """Images for evaluation, in sizes in turns."""
    files = open_archive(MODELS / "data" / f"eval{TRAINED[architecture].images}.zip", "eval")[:count]
    return PreparedImages(files, model.preprocessing, *sizes)


def produce(architecture: str, model: LoadedModel, recipe: Recipe, folder: Path) -> Path:
    """Convert as the pipeline does."""
    backend, network = load_backend(Format.ONNX), replace(model, options=model.options.of_network(Format.ONNX))
    backend.convert(network, Recipe.FP32, path := folder / "base.onnx")
    if recipe is not Recipe.FP32:
        samples = inputs(architecture, "calibration", 16) if recipe.needs_calibration else ()
        backend.quantise(network, path, recipe, samples, path := folder / "quantised.onnx")
    if network.options != model.options:
        load_input_adapter(Format.ONNX)(model, path, path := folder / "adapted.onnx")
    check_facts(backend.inspect(path), model, recipe)
    return path


def check_sizes(
    architecture: str, model: LoadedModel, path: Path, minimum: float, *, exact: bool = True
) -> Sequence[float]:
    """Compare a file in several sizes with networks that were loaded for these, as is the open network."""
    run, found = load_backend(Format.ONNX).open_file(model, path), []
    for size in sizes_of(model):
        original = load_for(architecture, size, model.options)
        given = images(architecture, original, size)
        for image in given[:2]:
            for opened, wanted in zip(run_model(model, image), run_model(original, image), strict=True):
                np.testing.assert_allclose(opened, wanted, atol=0 if exact else 1e-6, rtol=0)
        found.append(compare(original, run, given).value)
    assert min(found) > minimum
    return found


@pytest.mark.parametrize("architecture", TASKS)
def test_file_of_any_size_answers_as_network_of_each_size(architecture: str, tmp_path: Path) -> None:
    model = load_open(architecture, ANY_SIZE)
    assert len({size for size in sizes_of(model) if size[0] != size[1]}) > 1
    check_sizes(architecture, model, produce(architecture, model, Recipe.FP32, tmp_path), 0.9999)


@pytest.mark.parametrize(
    ("architecture", "precision", "recipe"),
    [
        ("YOLOv8", Precision.FP16, Recipe.FP16),
        ("YOLO11", Precision.INT8, Recipe.STATIC_WI8_AI8),
        ("YOLOX", Precision.INT8, Recipe.DYNAMIC_WI8_AFP32),
        ("YOLOv4", Precision.W8A16, Recipe.STATIC_WI8_AI16),
    ],
)
def test_file_of_any_size_reaches_its_threshold_in_each(
    architecture: str, precision: Precision, recipe: Recipe, tmp_path: Path
) -> None:
    model = load_open(architecture, ANY_SIZE)
    path = produce(architecture, model, recipe, tmp_path)
    minimum = lookup(architecture, Target(Format.ONNX, precision)).threshold.minimum
    check_sizes(architecture, model, path, minimum)
    if recipe is Recipe.FP16:  # places of anchors are as exact as in a file of one size
        casts = [node for node in onnx.load(path).graph.node if node.op_type == "Cast"]
        assert [node.input[0] for node in casts if node.attribute[0].i == onnx.TensorProto.FLOAT16] == ["image"]


def test_suppression_of_any_size_has_fewer_anchors_than_compete(tmp_path: Path) -> None:
    model = load_open("YOLOv8", replace(ANY_SIZE, nms=True), (224, 224))
    found = [sum(height * width // stride**2 for stride in (8, 16, 32)) for height, width in sizes_of(model)]
    assert min(found) < CANDIDATES < found[0]
    check_sizes("YOLOv8", model, produce("YOLOv8", model, Recipe.FP32, tmp_path), 0.9999, exact=False)


def test_batch_of_pixels_of_any_size_gets_its_own_answers(tmp_path: Path) -> None:
    model = load_open("YOLO11", replace(PIXELS, dynamic_batch=True, dynamic_size=True))
    path = produce("YOLO11", model, Recipe.FP32, tmp_path)
    assert load_backend(Format.ONNX).inspect(path).inputs == {"image": (0, 0, 0, 3)}
    check_sizes("YOLO11", model, path, 0.9999)


def test_axes_of_other_lengths_have_other_names(tmp_path: Path) -> None:
    model = load_open("YOLOv8-SEG", ANY_SIZE)
    graph = onnx.load(produce("YOLOv8-SEG", model, Recipe.FP32, tmp_path)).graph
    names = {value.name: [one.dim_param for one in value.type.tensor_type.shape.dim] for value in graph.output}
    assert names["prototypes"] == ["", "", "row", "column"], "they are smaller than height and width"
    assert {tuple(names[name]) for name in ("boxes", "scores", "mask_coefficients")} == {("", "", "anchor")}


@pytest.mark.parametrize("architecture", ["YOLOv8", "YOLOX"])
def test_file_with_anchors_of_one_size_is_refused(architecture: str, tmp_path: Path) -> None:
    model = load_for(architecture, SWAPPED, ANY_SIZE)
    path = produce(architecture, model, Recipe.FP32, tmp_path)  # its network was not opened
    open_sizes(model.module)
    stride = int(model.metadata["stride"])
    assert verified_sizes(model, stride) == (SWAPPED, SWAPPED[::-1])
    run = load_backend(Format.ONNX).open_file(model, path)
    own = compare(model, run, images(architecture, model, SWAPPED), least_fidelity=0.9)
    assert check(own, LEAST)
    both = compare(model, run, images(architecture, model, *verified_sizes(model, stride), count=8))
    with pytest.raises(Failure, match="the produced file differs from the model") as caught:
        check(both, LEAST)
    assert caught.value.reason is Reason.VERIFICATION_FAILED
    with pytest.raises(Exception, match="Non-zero status code"):  # elsewhere there are fewer anchors or more
        run(np.zeros((1, 3, SWAPPED[0], SWAPPED[0]), np.float32))


def scaled(model: LoadedModel) -> Callable[[Array], tuple[Array, ...]]:
    """A file that divides positions by the height and width of one size, even where the image has another."""

    def run(image: Array) -> tuple[Array, ...]:
        boxes, scores = run_model(model, image)
        ratio = [found / own for found, own in zip(image.shape[:1:-1], model.input_size[::-1], strict=True)]
        return boxes * np.array(ratio * 2, np.float32)[:, None], scores

    return run


@pytest.mark.parametrize("side", [160, 640])
def test_file_with_positions_of_one_size_is_refused(side: int) -> None:
    model = load_for("YOLOv8", (side, side), ANY_SIZE)
    open_sizes(model.module)
    sizes = verified_sizes(model, int(model.metadata["stride"]))
    with torch.inference_mode(), pytest.raises(Failure, match="the produced file differs from the model"):
        check(compare(model, scaled(model), images("YOLOv8", model, *sizes)), LEAST)
