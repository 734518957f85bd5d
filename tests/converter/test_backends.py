"""What the three backends write: names, metadata, operators, and that a ``.pt2`` gives the same files."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converter.cells import ask, eval_inputs, load_model, open_cell, produce
from converter.yolov8_cells import CLASSES, WEIGHTS
from modelexport.matrix import BACKENDS, Format, Scheme
from modelexport_converter.architectures.yolov8 import load
from modelexport_converter.backends import Array, load_backend
from modelexport_converter.checkpoint import read_checkpoint
from modelexport_converter.model import LoadedModel

DETECTOR = "YOLOv8"
FORMATS = [pytest.param(fmt, marks=pytest.mark.xdist_group(f"{DETECTOR}-{fmt}")) for fmt in Format]
SCHEMES = [
    pytest.param(fmt, scheme, marks=pytest.mark.xdist_group(f"{DETECTOR}-{fmt}"), id=f"{fmt}-{scheme}")
    for fmt, backend in BACKENDS.items()
    for scheme in dict.fromkeys((Scheme.FP32, Scheme.FP16, backend.data_free, backend.calibrated))
]
litert, onnx, coreml = (pytest.mark.xdist_group(f"{DETECTOR}-{fmt}") for fmt in Format)


def read_litert(path: Path) -> dict[str, str]:
    from modelexport_converter.backends.litert import read_usage

    return read_usage(path)


def read_onnx(path: Path) -> dict[str, str]:
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def read_coreml(path: Path) -> dict[str, str]:
    from modelexport_converter.coreml.library import Model_pb2

    content = Model_pb2.Model()
    content.ParseFromString(next(path.rglob("*.mlmodel")).read_bytes())
    return dict(content.description.metadata.userDefined)


READERS: dict[Format, Callable[[Path], dict[str, str]]] = {
    Format.LITERT: read_litert,
    Format.ONNX: read_onnx,
    Format.COREML: read_coreml,
}


@pytest.mark.parametrize(("fmt", "scheme"), SCHEMES)
def test_inputs_and_outputs_have_the_same_names_and_layout_everywhere(fmt: Format, scheme: Scheme) -> None:
    facts = load_backend(fmt).inspect(produce(DETECTOR, fmt, scheme))
    assert facts.inputs == {"image": (1, 3, 160, 160)}
    assert facts.outputs == {"boxes": (1, 4, 525), "scores": (1, 3, 525)}


@pytest.mark.parametrize(("fmt", "scheme"), SCHEMES)
def test_a_file_says_how_to_use_it(fmt: Format, scheme: Scheme) -> None:
    usage = READERS[fmt](produce(DETECTOR, fmt, scheme))
    assert json.loads(usage["class_names"]) == list(CLASSES)
    assert json.loads(usage["preprocessing"])["resize"] == "letterbox"
    assert json.loads(usage["input"])["shape"] == [1, 3, 160, 160]
    assert [output["name"] for output in json.loads(usage["outputs"])] == ["boxes", "scores"]
    assert (usage["stride"], usage["task"]) == ("32", "detection")


@pytest.mark.parametrize("fmt", FORMATS)
def test_inputs_and_outputs_stay_in_float(fmt: Format) -> None:
    scheme = BACKENDS[fmt].calibrated
    outputs = open_cell(DETECTOR, fmt, scheme)(eval_inputs(DETECTOR)[0])
    assert {output.dtype for output in outputs} == {np.dtype(np.float32)}


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_program_gives_the_same_file_as_the_network_that_it_came_from(fmt: Format, tmp_path: Path) -> None:
    model = load_model("YOLOv8-CLS")
    torch.export.save(torch.export.export(model.module, (model.example_input(),)), tmp_path / "model.pt2")
    again = load(read_checkpoint(tmp_path / "model.pt2"), ask("YOLOv8-CLS"))
    path = tmp_path / f"model{BACKENDS[fmt].suffix.removesuffix('.zip')}"
    load_backend(fmt).convert(again, Scheme.FP32, path)
    image = eval_inputs("YOLOv8-CLS")[0]
    with torch.inference_mode():
        expected = model.module(torch.from_numpy(image))[0].numpy()
    np.testing.assert_allclose(load_backend(fmt).open_file(again, path)(image)[0], expected, atol=1e-5)


@onnx
@pytest.mark.parametrize("scheme", [Scheme.FP32, Scheme.FP16, Scheme.DYNAMIC_WI8_AFP32, Scheme.STATIC_WI8_AI8])
def test_onnx_files_are_valid_and_old_enough_for_any_runtime(scheme: Scheme) -> None:
    import onnx

    content = onnx.load(produce(DETECTOR, Format.ONNX, scheme))
    onnx.checker.check_model(content, full_check=True)
    assert content.ir_version <= 10
    assert {entry.domain: entry.version for entry in content.opset_import if entry.domain == ""} == {"": 17}
    assert {node.domain for node in content.graph.node} <= {"", "ai.onnx"}


@onnx
def test_only_operators_with_weights_are_quantised_in_onnx() -> None:
    import onnx

    graph = onnx.load(produce(DETECTOR, Format.ONNX, Scheme.STATIC_WI8_AI8)).graph
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


def _read_litert(scheme: Scheme) -> Any:
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model(str(produce(DETECTOR, Format.LITERT, scheme)))


@litert
def test_the_decoding_stays_in_float_in_litert() -> None:
    flat = _read_litert(Scheme.STATIC_WI8_AI8)
    tensors = flat.subgraphs[0].tensors
    from ai_edge_litert.schema_py_generated import BuiltinOperator, TensorType

    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in flat.operatorCodes]
    types: dict[int, set[int]] = {}
    for op in flat.subgraphs[0].operators:
        types.setdefault(codes[op.opcodeIndex], set()).add(tensors[op.outputs[0]].type)
    assert types[BuiltinOperator.CONV_2D] == {TensorType.INT8}
    assert types[BuiltinOperator.EXP] == types[BuiltinOperator.SUM] == {TensorType.FLOAT32}


@litert
@pytest.mark.parametrize("scheme", [Scheme.FP32, Scheme.FP16, Scheme.STATIC_WI8_AI8])
def test_litert_buffers_lie_where_the_schema_wants_them(scheme: Scheme) -> None:
    content = produce(DETECTOR, Format.LITERT, scheme).read_bytes()
    from ai_edge_litert import schema_py_generated as schema

    packed = schema.Model.GetRootAs(content)
    buffers = [packed.Buffers(index) for index in range(packed.BuffersLength())]
    # The data is the first field of a buffer's table, and its offset there is followed to where the bytes begin.
    starts = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if buffer.DataLength()]
    assert len(starts) > 50
    assert {start % 16 for start in starts} == {0}


@litert
def test_litert_tensors_have_short_names_of_their_own() -> None:
    names = [tensor.name for tensor in _read_litert(Scheme.FP32).subgraphs[0].tensors]
    assert len(set(names)) == len(names)
    assert max(len(name) for name in names) < 100


@coreml
def test_core_ml_quantises_weights_and_no_constants_of_the_decoding() -> None:
    backend = load_backend(Format.COREML)
    half, small = (
        backend.inspect(produce(DETECTOR, Format.COREML, scheme))
        for scheme in (Scheme.FP16, Scheme.WEIGHT_ONLY_WI8_AFP16)
    )
    module = load_model(DETECTOR).module
    weights = sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1)
    assert small.weight_types["int8"] == weights
    assert small.weight_types["float16"] == half.weight_types["float16"] - weights


@coreml
def test_core_ml_computes_in_the_precision_that_was_asked_for() -> None:
    backend = load_backend(Format.COREML)
    full, half = (backend.inspect(produce(DETECTOR, Format.COREML, scheme)) for scheme in (Scheme.FP32, Scheme.FP16))
    assert set(full.weight_types) == {"float32"}
    assert half.weight_types["float16"] == sum(each.numel() for each in load_model(DETECTOR).module.parameters())
    assert "cast" not in full.op_types
    # The picture, the scores, and what the network says of the boxes at three scales.
    assert half.op_types["cast"] == 5


def test_an_onnx_conversion_loads_no_other_formats_library() -> None:
    code = "import sys, modelexport_converter.backends.onnx; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"ai_edge_quantizer", "coremltools", "jax", "litert_torch"} & set(done.stdout.split())


def test_a_model_of_two_sides_keeps_height_before_width(tmp_path: Path) -> None:
    model: LoadedModel = load(read_checkpoint(WEIGHTS[DETECTOR]), ask(DETECTOR, input_size=(64, 128)))
    backend = load_backend(Format.ONNX)
    backend.convert(model, Scheme.FP32, tmp_path / "x.onnx")
    image = model.example_input()
    found = backend.open_file(model, tmp_path / "x.onnx")(image.numpy())
    for wanted, given in zip(model.module(image), found, strict=True):
        np.testing.assert_allclose(given, wanted.numpy(), atol=1e-4)


class Watched(list[Array]):
    """Pictures that note how many threads the process has when they have been read."""

    threads = 0

    def __iter__(self) -> Iterator[Array]:
        yield from super().__iter__()
        self.threads = len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.xdist_group("YOLOv8-CLS-LiteRT")
def test_litert_calibrates_on_the_threads_of_the_conversion_and_gives_the_same_file_with_any_number(
    tmp_path: Path,
) -> None:
    model, source = load_model("YOLOv8-CLS"), produce("YOLOv8-CLS", Format.LITERT, Scheme.FP32)
    before, found = torch.get_num_threads(), {}
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            pictures, path = Watched(eval_inputs("YOLOv8-CLS")[:2]), tmp_path / f"{count}.tflite"
            load_backend(Format.LITERT).quantise(model, source, Scheme.STATIC_WI8_AI8, pictures, path)
            found[count] = (path.read_bytes(), pictures.threads)
    finally:
        torch.set_num_threads(before)
    assert found[1][0] == found[2][0]
    assert found[2][1] == found[1][1] + 1
