"""PyTorch (``.pt2``): ``torch.export`` captures, and torch alone opens and runs."""

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.export import ExportedProgram

from modelexport.matrix.support import Recipe
from modelexport_converter.backends import Array, FileContents, Run
from modelexport_converter.backends.activation_ranges import CalibrationMemo
from modelexport_converter.backends.exported_program import export_program, store_weights
from modelexport_converter.backends.file_metadata import file_metadata_of
from modelexport_converter.file_input import feed
from modelexport_converter.model import LoadedModel

METADATA = "modelexport.json"
"""Name of the extra file in the archive, one JSON object of texts."""


def convert(model: LoadedModel, base: Recipe, path: Path) -> None:
    """Write the model to ``path``, in FP32."""
    assert base is Recipe.FP32
    _save(export_program(model), model, path)


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
    """Write the FP32 file ``source`` to ``path`` by another recipe."""
    program = torch.export.load(source)
    store_weights(program, recipe)
    _save(program, model, path)
    return {}


def inspect(path: Path) -> FileContents:
    """Read back the contents of a file."""
    program = torch.export.load(path)
    weights: Counter[str] = Counter()
    for tensor in (*program.state_dict.values(), *program.constants.values()):
        weights[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    signature = program.graph_signature
    outputs = zip(program.call_spec.out_spec.context, signature.user_outputs, strict=True)
    return FileContents(
        weight_types=weights,
        op_types=Counter(str(node.target) for node in program.graph.nodes if node.op == "call_function"),
        inputs={name: tuple(values[name].shape) for name in signature.user_inputs},
        outputs={name: tuple(values[value].shape) for name, value in outputs},
    )


def open_file(model: LoadedModel, path: Path) -> Run:
    """Load a file into torch."""
    module = torch.export.load(path).module()

    def run(images: Array) -> tuple[Array, ...]:
        with torch.inference_mode():
            outputs = module(torch.from_numpy(images))
        return tuple(outputs[output.name].numpy() for output in model.outputs)

    return feed(run, model)


def _save(program: ExportedProgram, model: LoadedModel, path: Path) -> None:
    """Write a program without its example, which has the size of an image, and with metadata.

    Through a buffer, because torch puts the name of a file into its archive.
    """
    program.example_inputs = None
    buffer = io.BytesIO()
    text = json.dumps(file_metadata_of(model), ensure_ascii=False)
    torch.export.save(program, buffer, extra_files={METADATA: text})
    path.write_bytes(buffer.getvalue())
