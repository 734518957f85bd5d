"""The files of the backends: names, metadata, operators, and equal files from a ``.pt2``."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelexport.matrix.support import BACKENDS, Format, Recipe
from modelexport_converter.architectures.yolov8.loader import load
from modelexport_converter.backends import Array, Backend, load_backend
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.model import LoadedModel
from trained.cells import ask, eval_inputs, load_model, open_cell, produce
from trained.yolov8_cells import CLASSES, WEIGHTS

DETECTOR = "YOLOv8"
FORMATS = [pytest.param(fmt, marks=pytest.mark.xdist_group(f"{DETECTOR}-{fmt}")) for fmt in Format]
RECIPES = [
    pytest.param(fmt, recipe, marks=pytest.mark.xdist_group(f"{DETECTOR}-{fmt}"), id=f"{fmt}-{recipe}")
    for fmt, backend in BACKENDS.items()
    for recipe in dict.fromkeys((Recipe.FP32, Recipe.FP16, backend.data_free, backend.calibrated))
]
litert, onnx, coreml, pytorch, tensorflow, executorch = (pytest.mark.xdist_group(f"{DETECTOR}-{fmt}") for fmt in Format)


def read_litert(path: Path) -> dict[str, str]:
    from modelexport_converter.backends.litert import read_metadata

    return read_metadata(path)


def read_onnx(path: Path) -> dict[str, str]:
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def read_specification(path: Path) -> Any:
    from modelexport_converter.coreml.library import Model_pb2

    content = Model_pb2.Model()
    content.ParseFromString(next(path.rglob("*.mlmodel")).read_bytes())
    return content


def read_coreml(path: Path) -> dict[str, str]:
    return dict(read_specification(path).description.metadata.userDefined)


def read_pytorch(path: Path) -> dict[str, str]:
    extra = {"modelexport.json": ""}
    torch.export.load(path, extra_files=extra)
    return dict(json.loads(extra["modelexport.json"]))


def read_tensorflow(path: Path) -> dict[str, str]:
    return dict(json.loads((path / "assets.extra/modelexport.json").read_text(encoding="utf-8")))


def read_executorch(path: Path) -> dict[str, str]:
    from executorch.runtime import Runtime

    (text,) = Runtime.get().load_program(path).load_method("modelexport").execute([])
    return dict(json.loads(text))


READERS: dict[Format, Callable[[Path], dict[str, str]]] = {
    Format.LITERT: read_litert,
    Format.ONNX: read_onnx,
    Format.COREML: read_coreml,
    Format.PYTORCH: read_pytorch,
    Format.TENSORFLOW: read_tensorflow,
    Format.EXECUTORCH: read_executorch,
}


def image_shape(fmt: Format) -> tuple[int, ...]:
    return (1, 160, 160, 3) if fmt is Format.TENSORFLOW else (1, 3, 160, 160)


@pytest.mark.parametrize(("fmt", "recipe"), RECIPES)
def test_names_and_layout_match_across_formats(fmt: Format, recipe: Recipe) -> None:
    facts = load_backend(fmt).inspect(produce(DETECTOR, fmt, recipe))
    assert facts.inputs == {"image": image_shape(fmt)}
    assert facts.outputs == {"boxes": (1, 4, 525), "scores": (1, 3, 525)}


@pytest.mark.parametrize(("fmt", "recipe"), RECIPES)
def test_file_metadata_describes_usage(fmt: Format, recipe: Recipe) -> None:
    usage = READERS[fmt](produce(DETECTOR, fmt, recipe))
    assert json.loads(usage["class_names"]) == list(CLASSES)
    assert json.loads(usage["preprocessing"])["resize"] == "letterbox"
    assert not [name for name in usage if "date" in name]  # equal inputs make equal files on any day
    assert json.loads(usage["input"])["shape"] == list(image_shape(fmt))
    assert [output["name"] for output in json.loads(usage["outputs"])] == ["boxes", "scores"]
    assert (usage["stride"], usage["task"]) == ("32", "detection")


@pytest.mark.parametrize("fmt", FORMATS)
def test_inputs_and_outputs_stay_float(fmt: Format) -> None:
    recipe = BACKENDS[fmt].calibrated
    outputs = open_cell(DETECTOR, fmt, recipe)(eval_inputs(DETECTOR)[0])
    assert {output.dtype for output in outputs} == {np.dtype(np.float32)}


@pytest.mark.parametrize("fmt", FORMATS)
def test_program_and_network_convert_to_same_file(fmt: Format, tmp_path: Path) -> None:
    model = load_model("YOLOv8-CLS")
    torch.export.save(torch.export.export(model.module, (model.example_input(),)), tmp_path / "model.pt2")
    again = load(read_checkpoint(tmp_path / "model.pt2"), ask("YOLOv8-CLS"))
    path = tmp_path / f"model{BACKENDS[fmt].suffix.removesuffix('.zip')}"
    load_backend(fmt).convert(again, Recipe.FP32, path)
    image = eval_inputs("YOLOv8-CLS")[0]
    with torch.inference_mode():
        expected = model.module(torch.from_numpy(image))[0].numpy()
    np.testing.assert_allclose(load_backend(fmt).open_file(again, path)(image)[0], expected, atol=1e-5)


@onnx
@pytest.mark.parametrize("recipe", [Recipe.FP32, Recipe.FP16, Recipe.DYNAMIC_WI8_AFP32, Recipe.STATIC_WI8_AI8])
def test_onnx_files_are_valid_with_old_enough_opset(recipe: Recipe) -> None:
    import onnx

    content = onnx.load(produce(DETECTOR, Format.ONNX, recipe))
    onnx.checker.check_model(content, full_check=True)
    assert content.ir_version <= 10
    assert {entry.domain: entry.version for entry in content.opset_import if entry.domain == ""} == {"": 17}
    assert {node.domain for node in content.graph.node} <= {"", "ai.onnx"}


@onnx
def test_onnx_quantises_only_operators_with_weights() -> None:
    import onnx

    graph = onnx.load(produce(DETECTOR, Format.ONNX, Recipe.STATIC_WI8_AI8)).graph
    consumers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, set()).add(node.op_type)
    quantised = {
        op for node in graph.node if node.op_type == "DequantizeLinear" for op in consumers.get(node.output[0], set())
    }
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    assert all(set(node.input[:2]) <= dequantised for node in graph.node if node.op_type == "Conv")
    assert quantised.isdisjoint({"Softmax", "ReduceSum", "Sub"})


def _read_litert(recipe: Recipe) -> Any:
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model(str(produce(DETECTOR, Format.LITERT, recipe)))


@litert
def test_litert_decoding_stays_float() -> None:
    flat = _read_litert(Recipe.STATIC_WI8_AI8)
    tensors = flat.subgraphs[0].tensors
    from ai_edge_litert.schema_py_generated import BuiltinOperator, TensorType

    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in flat.operatorCodes]
    types: dict[int, set[int]] = {}
    for op in flat.subgraphs[0].operators:
        types.setdefault(codes[op.opcodeIndex], set()).add(tensors[op.outputs[0]].type)
    assert types[BuiltinOperator.CONV_2D] == {TensorType.INT8}
    assert types[BuiltinOperator.EXP] == types[BuiltinOperator.SUM] == {TensorType.FLOAT32}


@litert
@pytest.mark.parametrize("recipe", [Recipe.FP32, Recipe.FP16, Recipe.STATIC_WI8_AI8])
def test_litert_buffers_are_aligned_as_schema_requires(recipe: Recipe) -> None:
    content = produce(DETECTOR, Format.LITERT, recipe).read_bytes()
    from ai_edge_litert import schema_py_generated as schema

    packed = schema.Model.GetRootAs(content)
    buffers = [packed.Buffers(index) for index in range(packed.BuffersLength())]
    # The data is the first field of a buffer's table, and its offset there is followed to where the bytes begin.
    starts = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if buffer.DataLength()]
    assert len(starts) > 50
    assert {start % 16 for start in starts} == {0}


@litert
def test_litert_tensors_have_short_unique_names() -> None:
    names = [tensor.name for tensor in _read_litert(Recipe.FP32).subgraphs[0].tensors]
    assert len(set(names)) == len(names)
    assert max(len(name) for name in names) < 100


@coreml
def test_core_ml_quantises_weights_but_not_decoding_constants() -> None:
    backend = load_backend(Format.COREML)
    half, small = (
        backend.inspect(produce(DETECTOR, Format.COREML, recipe))
        for recipe in (Recipe.FP16, Recipe.WEIGHT_ONLY_WI8_AFP16)
    )
    module = load_model(DETECTOR).module
    weights = sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1)
    assert small.weight_types["int8"] == weights
    assert small.weight_types["float16"] == half.weight_types["float16"] - weights


@coreml
def test_core_ml_computes_in_requested_precision() -> None:
    backend = load_backend(Format.COREML)
    full, half = (backend.inspect(produce(DETECTOR, Format.COREML, recipe)) for recipe in (Recipe.FP32, Recipe.FP16))
    assert set(full.weight_types) == {"float32"}
    assert half.weight_types["float16"] == sum(each.numel() for each in load_model(DETECTOR).module.parameters())
    assert "cast" not in full.op_types
    # The image, the scores, and the box outputs at three scales.
    assert half.op_types["cast"] == 5


def test_onnx_conversion_imports_no_other_format_library() -> None:
    code = "import sys, modelexport_converter.backends.onnx; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"ai_edge_quantizer", "coremltools", "jax", "litert_torch"} & set(done.stdout.split())


def test_non_square_model_keeps_height_before_width(tmp_path: Path) -> None:
    model: LoadedModel = load(read_checkpoint(WEIGHTS[DETECTOR]), ask(DETECTOR, input_size=(64, 128)))
    backend = load_backend(Format.ONNX)
    backend.convert(model, Recipe.FP32, tmp_path / "x.onnx")
    image = model.example_input()
    found = backend.open_file(model, tmp_path / "x.onnx")(image.numpy())
    for wanted, given in zip(model.module(image), found, strict=True):
        np.testing.assert_allclose(given, wanted.numpy(), atol=1e-4)


class Watched(list[Array]):
    """Images that note how many threads the process has when they have been read."""

    threads = 0

    def __iter__(self) -> Iterator[Array]:
        yield from super().__iter__()
        self.threads = len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.xdist_group("YOLOv8-CLS-LiteRT")
def test_litert_calibration_gives_same_file_for_any_threads(
    tmp_path: Path,
) -> None:
    model, source = load_model("YOLOv8-CLS"), produce("YOLOv8-CLS", Format.LITERT, Recipe.FP32)
    before, found = torch.get_num_threads(), {}
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            images, path = Watched(eval_inputs("YOLOv8-CLS")[:2]), tmp_path / f"{count}.tflite"
            load_backend(Format.LITERT).quantise(model, source, Recipe.STATIC_WI8_AI8, images, path)
            found[count] = (path.read_bytes(), images.threads)
    finally:
        torch.set_num_threads(before)
    assert found[1][0] == found[2][0]
    assert found[2][1] == found[1][1] + 1


@pytest.mark.parametrize("fmt", Format)
def test_every_backend_takes_the_arguments_of_its_protocol(fmt: Format) -> None:
    backend = load_backend(fmt)
    for name in ("convert", "quantise", "inspect", "open_file"):
        expected = list(inspect.signature(getattr(Backend, name)).parameters)
        assert list(inspect.signature(getattr(backend, name)).parameters) == expected[1:], name
