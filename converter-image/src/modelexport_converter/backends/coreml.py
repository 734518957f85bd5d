"""Core ML (``.mlpackage``): coremltools converts and quantises; our evaluator runs files, as Apple's runtime needs a
Mac.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelexport import __version__
from modelexport.matrix.options import DEPLOYMENT_TARGET, InputKind
from modelexport.matrix.support import Recipe
from modelexport.reading.facts import CLASS_LABEL
from modelexport_converter.backends import Array, FileContents, Run
from modelexport_converter.backends.activation_ranges import CalibrationMemo, trace_to_weights
from modelexport_converter.backends.decompositions import DecompositionMode, multiplies_vector
from modelexport_converter.backends.file_metadata import AUTHOR, DESCRIPTION, file_metadata_of
from modelexport_converter.backends.quiet import no_progress_bars
from modelexport_converter.backends.vision import read_boxes, read_classes, table_of, with_suppression
from modelexport_converter.coreml import Detector, load_model
from modelexport_converter.file_input import IMAGE_COLOURS, feed, scale_and_bias
from modelexport_converter.model import LoadedModel


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence coremltools' warnings of an untested torch, of the missing macOS, and of tuples of outputs."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


with _quiet():
    import coremltools as ct
    from coremltools.converters.mil.frontend.torch import ops, register_torch_op
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 (coremltools' own name)
    from coremltools.converters.mil.mil.scope import ScopeSource
    from coremltools.optimize import coreml as optimize

_DATE = "com.github.apple.coremltools.conversion_date"
"""The day, which coremltools notes: equal inputs make equal files on any day."""
_PREVIEW = "com.apple.coreml.model.preview.type"
"""https://apple.github.io/coremltools/docs-guides/source/xcode-model-preview-types.html"""
_WRAPPED = "module"
"""The name of a model within a module that computes more."""
_WEIGHTED = ("conv", "conv_transpose", "linear")
_QUANTISED = (*_WEIGHTED, "einsum", "matmul")
_MISTRANSLATED = frozenset(
    f"aten::{name}"
    for name in (
        # Recurrent layers: Core ML has none for gru, and lstm in float32 only; their steps follow one another instead.
        *("gru", "lstm", "rnn_relu", "rnn_tanh"),
        # coremltools ignores the antialiasing of two, and supports col2im for patches that do not overlap only.
        *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "col2im"),
        # coremltools translates these to operators that Core ML or our evaluator does not have.
        *("pixel_unshuffle", "acosh", "asinh", "celu", "affine_grid_generator", "select_scatter", "slice_scatter"),
    )
)
"""Operators that coremltools translates, but not in every precision, or to other values."""


class _Number(int):
    """Replaces ``int`` in coremltools 9, which calls it on arrays of one number; numpy 2.4 refuses that."""

    def __new__(cls, value: Any) -> Any:
        return int(np.asarray(value).item())


@register_torch_op(torch_alias=["int"], override=True)  # type: ignore[untyped-decorator]
def _int(context: Any, node: Any) -> None:
    """Translate ``int``, also from arrays of one number."""
    ops._cast(context, node, _Number, "int32")


@register_torch_op(torch_alias=["unsafe_chunk"])  # type: ignore[untyped-decorator]
def _chunk(context: Any, node: Any) -> None:
    """Translate ``unsafe_chunk``, a part of torch's recurrent cells; coremltools supports it for lists only."""
    value, count, axis = ops._get_inputs(context, node, expected=3)
    size = -(-value.shape[axis.val] // count.val)
    sizes = [min(size, value.shape[axis.val] - start) for start in range(0, value.shape[axis.val], size)]
    context.add(mb.split(x=value, split_sizes=sizes, axis=axis.val), node.name)


def convert(model: LoadedModel, base: Recipe, path: Path) -> None:
    """Write the model to ``path``, a folder, by ``fp32`` or ``fp16``."""
    network = table_of(model, model.unsuppressed) if model.unsuppressed else model
    precision = ct.precision.FLOAT32 if base is Recipe.FP32 else _fp16_precision(network)
    module = _Pixels(network) if model.options.takes_pixels else network.module
    converted = _translate(network, module, precision)
    found = {feature.name for feature in converted.get_spec().description.output}
    if found != {output.name for output in network.outputs_in_file}:
        converted = _translate(network, _Distinct(module), precision)
    _save(converted, model, path)


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
    """Write the FP16 package ``source`` to ``path``, a folder, with 8-bit weights; all values between stay in FP16."""
    # By operator type: a global rule would also quantise the constants of the decoding.
    eight_bits = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)
    rules = optimize.OptimizationConfig(op_type_configs=dict.fromkeys(_QUANTISED, eight_bits))
    with _quiet(), no_progress_bars():
        half = ct.models.MLModel(str(source), skip_model_load=True)
        if model.suppression:
            network = half.get_spec().pipeline.models[0]
            half = ct.models.MLModel(network, weights_dir=half.weights_dir, skip_model_load=True)
        _save(optimize.linear_quantize_weights(half, rules), model, path)
    return {}


def _fp16_precision(model: LoadedModel) -> Any:
    """Return FP16 for the modules of the body or, without one, for all operators except those before exact outputs."""
    if model.low_precision_modules:
        return ct.transform.FP16ComputePrecision(op_selector=lambda op: _module(op) in model.low_precision_modules)
    exact = cache(partial(_exact, model))  # cached before coremltools replaces operators
    return ct.transform.FP16ComputePrecision(op_selector=lambda op: id(op) not in exact(op.enclosing_block))


def _exact(model: LoadedModel, block: Any) -> set[int]:
    """Return the ids of the operators between the last weights and the exact outputs."""
    sources = {id(op): [id(var.op) for var in op.get_flattened_inputs()] for op in block.operations}
    weighted = {id(op) for op in block.operations if op.op_type in _WEIGHTED}
    names = {output.name for output in model.outputs if output.keep_float32}
    following, _ = trace_to_weights((id(var.op) for var in block.outputs if var.name in names), sources, weighted)
    return following


def _module(op: Any) -> str | None:
    """Return the child module of the model from which an operator comes."""
    names = [name for name in op.scopes.get(ScopeSource.TORCHSCRIPT_MODULE_NAME, ()) if name and name != _WRAPPED]
    return names[0] if names else None


def inspect(path: Path) -> FileContents:
    """Read back the contents of a package."""
    found = load_model(path)
    return FileContents(
        weight_types=found.weight_types(),
        op_types=found.op_types(),
        inputs={feature.name: tuple(size or 0 for size in feature.shape) for feature in found.inputs},
        image_inputs=found.image_inputs,
        outputs={feature.name: tuple(size or 0 for size in feature.shape) for feature in found.outputs},
        output_types={feature.name: feature.dtype for feature in found.outputs},
        deployment_target=ct.target(found.specification_version).name,
    )


def open_file(model: LoadedModel, path: Path) -> Run:
    """Load a package into the evaluator."""
    opened = load_model(path)

    def run(image: Any) -> tuple[Array, ...]:
        results: Mapping[str, Any] = opened.run({model.input_name: image})
        if isinstance(opened, Detector):
            return read_boxes(model, opened, results)
        if model.options.classifier:
            return read_classes(model, results)
        return tuple(results[output.name].astype(np.float32) for output in model.outputs)

    return feed(run, model)


class _Pixels(torch.nn.Module):
    """Computes a model from the pixels of images, 0 to 255, which it scales and normalises."""

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        self.module = model.module
        scale, bias = (torch.from_numpy(values).view(1, -1, 1, 1) for values in scale_and_bias(model))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self.scale: torch.Tensor
        self.bias: torch.Tensor

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs for pixels (batch, channels, height, width)."""
        outputs: tuple[torch.Tensor, ...] = self.module(pixels * self.scale + self.bias)
        return outputs


class _Distinct(torch.nn.Module):
    """Computes each output separately, so that every output gets its own name: Core ML gives a value one name only."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs, each as the maximum of itself and itself; keeps their shapes."""
        return tuple(torch.maximum(output, output) for output in self.module(image))


def _translate(model: LoadedModel, module: torch.nn.Module, precision: Any) -> Any:
    with _quiet(), warnings.catch_warnings():
        # Sizes are constants here, so tracing them as constants is correct.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", category=FutureWarning, message="`torch.jit.trace")
        with DecompositionMode(_is_translated, {"aten::matmul": multiplies_vector}):
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                module, model.captured_input(), strict=False, check_trace=False
            )
    image = _input_type(model)
    outputs = [ct.TensorType(name=output.name, dtype=np.float32) for output in model.outputs]
    classes = None
    if model.options.classifier:
        (probabilities,) = model.outputs
        classes = ct.ClassifierConfig(list(model.class_names), CLASS_LABEL, probabilities.name)
    with _quiet(), no_progress_bars():
        return ct.convert(
            traced,
            inputs=[image],
            outputs=outputs,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target[model.options.deployment_target or DEPLOYMENT_TARGET],
            compute_precision=precision,
            classifier_config=classes,
            skip_model_load=True,
        )


def _input_type(model: LoadedModel) -> Any:
    """Return the type of the file's input: an RGB or grey image of Apple's frameworks, or a tensor."""
    if model.options.input is not InputKind.IMAGE:
        return ct.TensorType(name=model.input_name, shape=model.shape_in_file(channels_last=False), dtype=np.float32)
    colours = getattr(ct.colorlayout, IMAGE_COLOURS[model.preprocessing.channels])
    return ct.ImageType(name=model.input_name, shape=model.input_shape, color_layout=colours)


def _is_translated(name: str) -> bool:
    """Return whether coremltools translates an operator, e.g. ``aten::relu``, and our evaluator supports the result."""
    return name not in _MISTRANSLATED and _TORCH_OPS_REGISTRY.get_func(name) is not None


def _save(converted: Any, model: LoadedModel, path: Path) -> None:
    converted.user_defined_metadata.pop(_DATE, None)
    if model.suppression:
        converted = with_suppression(converted, model, model.suppression)
    file_metadata = file_metadata_of(model)
    if model.options.deployment_target:
        file_metadata["minimum_deployment_target"] = str(model.options.deployment_target)
    if model.options.classifier and model.options.input is InputKind.IMAGE:
        file_metadata[_PREVIEW] = "imageClassifier"
    converted.author = AUTHOR
    converted.version = __version__
    converted.short_description = DESCRIPTION
    converted.user_defined_metadata.update(file_metadata)
    for output in model.outputs_in_file:
        converted.output_description[output.name] = output.meaning
    converted.save(str(path))
