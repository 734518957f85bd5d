"""Core ML (``.mlpackage``): coremltools converts and quantises; our evaluator runs, as Apple's runtime needs a Mac."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelexport import __version__
from modelexport.matrix import Scheme
from modelexport_converter.backends import Array, Facts, Run
from modelexport_converter.backends.expressing import Expressing, multiplies_vector
from modelexport_converter.backends.quiet import no_progress_bars
from modelexport_converter.backends.ranges import trace_back
from modelexport_converter.backends.usage import AUTHOR, DESCRIPTION, describe_usage
from modelexport_converter.coreml import load_program
from modelexport_converter.model import LoadedModel


@contextmanager
def _quiet() -> Iterator[None]:
    """coremltools warns of a torch that it was not tested with, of the missing Mac, and of every tuple of outputs."""
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

_WEIGHTED = ("conv", "conv_transpose", "linear")
_QUANTISED = (*_WEIGHTED, "einsum", "matmul")
_OTHERWISE = frozenset(
    f"aten::{name}"
    for name in (
        # Recurrent layers: Core ML has none for gru, and lstm in float32 only; their steps follow one another instead.
        *("gru", "lstm", "rnn_relu", "rnn_tanh"),
        # coremltools leaves out that these smooth, and takes apart what does not overlap only.
        *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "col2im"),
        # coremltools translates these to operators that Core ML does not have, or our evaluator.
        *("pixel_unshuffle", "acosh", "asinh", "celu", "affine_grid_generator", "select_scatter", "slice_scatter"),
    )
)
"""What coremltools translates, but not in every precision, or not to the same numbers."""


class _Number(int):
    """What coremltools 9 makes of an array of one number; numpy 2.4 refuses the call of ``int``."""

    def __new__(cls, value: Any) -> Any:
        return int(np.asarray(value).item())


@register_torch_op(torch_alias=["int"], override=True)  # type: ignore[untyped-decorator]
def _int(context: Any, node: Any) -> None:
    ops._cast(context, node, _Number, "int32")


@register_torch_op(torch_alias=["unsafe_chunk"])  # type: ignore[untyped-decorator]
def _chunk(context: Any, node: Any) -> None:
    """What torch makes recurrent cells of, and coremltools has for lists of sizes only."""
    value, count, axis = ops._get_inputs(context, node, expected=3)
    size = -(-value.shape[axis.val] // count.val)
    sizes = [min(size, value.shape[axis.val] - start) for start in range(0, value.shape[axis.val], size)]
    context.add(mb.split(x=value, split_sizes=sizes, axis=axis.val), node.name)


def convert(model: LoadedModel, base: Scheme, path: Path) -> None:
    """Write the model to ``path``, a folder, by ``fp32`` or ``fp16``."""
    precision = ct.precision.FLOAT32 if base is Scheme.FP32 else _half(model)
    converted = _translate(model, model.module, precision)
    if {feature.name for feature in converted.get_spec().description.output} != {out.name for out in model.outputs}:
        converted = _translate(model, _Distinct(model.module), precision)
    _save(converted, model, path)


def quantise(model: LoadedModel, source: Path, scheme: Scheme, samples: Sequence[Array], path: Path) -> None:
    """Write the FP16 package ``source`` to ``path``, a folder, with weights in 8 bits."""
    # By type of operator: a rule for everything would also quantise the constants of the decoding.
    eight_bits = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)
    rules = optimize.OptimizationConfig(op_type_configs=dict.fromkeys(_QUANTISED, eight_bits))
    with _quiet(), no_progress_bars():
        half = ct.models.MLModel(str(source), skip_model_load=True)
        _save(optimize.linear_quantize_weights(half, rules), model, path)


def _half(model: LoadedModel) -> Any:
    """Half precision for the modules of the body or, without one, for all but what makes outputs exact."""
    if model.body:
        return ct.transform.FP16ComputePrecision(op_selector=lambda op: _module(op) in model.body)
    exact = cache(partial(_exact, model))  # what it finds first, before operators are replaced
    return ct.transform.FP16ComputePrecision(op_selector=lambda op: id(op) not in exact(op.enclosing_block))


def _exact(model: LoadedModel, block: Any) -> set[int]:
    """The operators between the last weights and the exact outputs."""
    sources = {id(op): [id(var.op) for var in op.get_flattened_inputs()] for op in block.operations}
    weighted = {id(op) for op in block.operations if op.op_type in _WEIGHTED}
    names = {output.name for output in model.outputs if output.exact}
    following, _ = trace_back((id(var.op) for var in block.outputs if var.name in names), sources, weighted)
    return following


def _module(op: Any) -> str | None:
    """The child of the model from which an operator comes."""
    names = [name for name in op.scopes.get(ScopeSource.TORCHSCRIPT_MODULE_NAME, ()) if name]
    return names[0] if names else None


def inspect(path: Path) -> Facts:
    """Read back what a package holds."""
    program = load_program(path)
    return Facts(
        weight_types=program.weight_types(),
        op_types=program.op_types(),
        inputs={feature.name: tuple(size or 0 for size in feature.shape) for feature in program.inputs},
        outputs={feature.name: tuple(size or 0 for size in feature.shape) for feature in program.outputs},
    )


def open_file(model: LoadedModel, path: Path) -> Run:
    """Load a package into the evaluator."""
    program = load_program(path)

    def run(image: Array) -> tuple[Array, ...]:
        results = program.run({model.input_name: image})
        return tuple(results[output.name].astype(np.float32) for output in model.outputs)

    return run


class _Distinct(torch.nn.Module):
    """A network that computes each output, so that Core ML has one of each name: it gives a value one name only."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs, each as the maximum of itself and itself."""
        return tuple(torch.maximum(output, output) for output in self.module(image))


def _translate(model: LoadedModel, module: torch.nn.Module, precision: Any) -> Any:
    with _quiet(), warnings.catch_warnings():
        # Sizes are constants here, so what tracing makes of them is what is meant.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", category=FutureWarning, message="`torch.jit.trace")
        with Expressing(_is_translated, {"aten::matmul": multiplies_vector}):
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                module, model.example_input(), strict=False, check_trace=False
            )
    image = ct.TensorType(name=model.input_name, shape=model.input_shape, dtype=np.float32)
    outputs = [ct.TensorType(name=output.name, dtype=np.float32) for output in model.outputs]
    with _quiet(), no_progress_bars():
        return ct.convert(
            traced,
            inputs=[image],
            outputs=outputs,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS16,
            compute_precision=precision,
            skip_model_load=True,
        )


def _is_translated(name: str) -> bool:
    """Whether coremltools translates an operator, e.g. ``aten::relu``, to what our evaluator knows."""
    return name not in _OTHERWISE and _TORCH_OPS_REGISTRY.get_func(name) is not None


def _save(converted: Any, model: LoadedModel, path: Path) -> None:
    usage = describe_usage(model)
    converted.author = AUTHOR
    converted.version = __version__
    converted.short_description = DESCRIPTION
    converted.user_defined_metadata.update(usage)
    for output in model.outputs:
        converted.output_description[output.name] = output.meaning
    converted.save(str(path))
