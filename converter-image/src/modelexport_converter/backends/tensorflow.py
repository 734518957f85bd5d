"""TensorFlow (SavedModel): a program of ``torch.export`` in TensorFlow's own operators; plain TensorFlow runs it."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from modelexport.matrix.support import Recipe
from modelexport_converter.backends import Array, FileContents, Run
from modelexport_converter.backends import tensorflow_runner as runner
from modelexport_converter.backends.activation_ranges import CalibrationMemo
from modelexport_converter.backends.decompositions import DecompositionMode
from modelexport_converter.backends.exported_program import export_program
from modelexport_converter.backends.file_metadata import file_metadata_of
from modelexport_converter.backends.file_process import FileProcess
from modelexport_converter.file_input import feed
from modelexport_converter.model import LoadedModel
from modelexport_converter.runtime.absent_modules import absent
from modelexport_converter.runtime.replaced import environment

METADATA = Path("assets.extra/modelexport.json")
"""Place of the metadata in the folder, one JSON object of texts; SavedModel leaves ``assets.extra`` to its writers."""
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0"}
"""Without oneDNN, which announces itself in the log; this process builds graphs and runs none."""

_UNSUPPORTED = {"aten::_upsample_bilinear2d_aa", "aten::_upsample_bicubic2d_aa", "aten::col2im"}
"""Operators that torch decomposes into writes by index, or not at all."""


with absent(runner.UNUSED), environment(_QUIET):
    import tensorflow as tf

from modelexport_converter.backends import tensorflow_operators  # noqa: E402, F401 (fills the table)
from modelexport_converter.backends.tensorflow_graph import GraphBuilder, decompose  # noqa: E402


def convert(model: LoadedModel, base: Recipe, path: Path) -> None:
    """Write the model to ``path``, a folder, by any recipe of the format."""
    with DecompositionMode(lambda name: name not in _UNSUPPORTED):
        program = export_program(model)
    program = decompose(program)
    builder = GraphBuilder(program, base)
    names = [output.name for output in model.outputs]
    image = tf.TensorSpec(model.shape_in_file(channels_last=True), tf.float32, name=model.input_name)

    @tf.function(input_signature=[image], autograph=False)  # type: ignore[untyped-decorator]
    def serve(image: Any) -> dict[str, Any]:
        return {name: tf.identity(output, name) for name, output in zip(names, builder.run(image), strict=True)}

    saved = tf.Module()
    saved.weights, saved.serve = builder.stored, serve
    function = serve.get_concrete_function()
    saved.weights = builder.stored
    tf.saved_model.save(saved, str(path), signatures={runner.SIGNATURE: function})
    _finish(model, path)


def _finish(model: LoadedModel, path: Path) -> None:
    """Add metadata; make equal models equal files: the fingerprint is random, and maps are written in any order."""
    (path / "fingerprint.pb").unlink(missing_ok=True)
    content = _read(path)
    (path / "saved_model.pb").write_bytes(content.SerializeToString(deterministic=True))
    file = path / METADATA
    file.parent.mkdir()
    file.write_text(json.dumps(file_metadata_of(model, channels_last=True), ensure_ascii=False), encoding="utf-8")


def _read(path: Path) -> Any:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    content = SavedModel()
    content.ParseFromString((path / "saved_model.pb").read_bytes())
    return content


def quantise(
    model: LoadedModel,
    source: Path,
    recipe: Recipe,
    samples: Sequence[Array],
    path: Path,
    *,
    max_float_layers: int = 0,
    memo: CalibrationMemo | None = None,
) -> Mapping[str, float]:
    """Refuse: every recipe is written by ``convert``."""
    raise NotImplementedError(f"no SavedModel is quantised by {recipe}")


def inspect(path: Path) -> FileContents:
    """Read back the contents of a file."""
    graph = _read(path).meta_graphs[0]
    signature = graph.signature_def[runner.SIGNATURE]
    nodes = list(_nodes(graph.graph_def, signature))
    weights: Counter[str] = Counter()
    variables = tf.train.load_checkpoint(str(path / "variables/variables"))
    types = variables.get_variable_to_dtype_map()
    for name, shape in variables.get_variable_to_shape_map().items():
        if types[name] is not tf.string:
            weights[types[name].name] += prod(shape)
    for node in nodes:
        if node.op == "Const":
            tensor = node.attr["value"].tensor
            weights[tf.as_dtype(tensor.dtype).name] += prod(size.size for size in tensor.tensor_shape.dim)
    return FileContents(
        weight_types=weights,
        op_types=Counter(node.op for node in nodes if node.op != "Const"),
        inputs={name: _shape(value) for name, value in signature.inputs.items()},
        outputs={name: _shape(value) for name, value in signature.outputs.items()},
        channels_last=True,
    )


def _nodes(graph: Any, signature: Any) -> Iterator[Any]:
    """Yield the nodes that a signature computes, without those that save and restore variables."""
    functions = {function.signature.name: function for function in graph.library.function}
    outputs = {value.name.partition(":")[0] for value in signature.outputs.values()}
    waiting, seen = [node for node in graph.node if node.name in outputs], set[str]()
    while waiting:
        node = waiting.pop()
        if not (called := node.attr["f"].func.name):
            yield node
        elif called not in seen:
            seen.add(called)
            waiting += functions[called].node_def


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(size.size for size in value.tensor_shape.dim)


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata that ``convert`` wrote into a folder."""
    file_metadata: dict[str, str] = json.loads((path / METADATA).read_text(encoding="utf-8"))
    return file_metadata


def open_file(model: LoadedModel, path: Path) -> Run:
    """Load a file into plain TensorFlow, in a process of its own that ends with the result."""
    process = FileProcess("TensorFlow", runner.__file__, path)

    def run(images: Array) -> tuple[Array, ...]:
        results = process.run(np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
        return tuple(results[output.name] for output in model.outputs)

    return feed(run, model)
