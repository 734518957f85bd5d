"""Checks the content of a produced file against the request."""

from collections.abc import Iterator, Mapping

import torch

from modelexport.api.reasons import Reason
from modelexport.matrix.options import DEPLOYMENT_TARGET, InputKind
from modelexport.matrix.support import Recipe
from modelexport_converter.backends import FileContents
from modelexport_converter.backends.file_metadata import label_lines
from modelexport_converter.failures import Failure
from modelexport_converter.file_input import IMAGE_COLOURS
from modelexport_converter.model import CONFIDENCE_THRESHOLD, IOU_THRESHOLD, LoadedModel
from modelexport_converter.programs.module import ProgramModule
from modelexport_converter.programs.weight_count import count_multiplied_weights

LEAST_SHARE = 0.98
"""The least share of the model's weights in the requested precision. All weights are, except those that a format's
quantiser cannot handle, such as those of a transposed convolution: below 1 % of a network.
"""
LEAST_SHARE_STATIC = 0.97
"""The same for static INT8, where at most 2 % of the weights, in small layers, stay in float (``small_layers``)."""
LEAST_SHARE_BESIDE_FLOAT = 0.5
"""The same for a file with layers in float, whose size spec.quantization bounds; those that cost most have few weights.
"""

_STORED: Mapping[Recipe, tuple[str, ...]] = {
    Recipe.FP32: ("float32",),
    Recipe.FP16: ("float16",),
    Recipe.DYNAMIC_WI8_AFP32: ("int8", "uint8"),
    Recipe.STATIC_WI8_AI8: ("int8", "uint8"),
    Recipe.STATIC_WI8_AI16: ("int8", "uint8"),
    Recipe.WEIGHT_ONLY_WI8_AFP16: ("int8", "uint8"),
    Recipe.WEIGHT_ONLY_WI8_AFP32: ("int8", "uint8"),
}
_ACTIVATIONS: Mapping[Recipe, frozenset[str]] = {
    Recipe.STATIC_WI8_AI8: frozenset({"int8", "uint8"}),
    Recipe.STATIC_WI8_AI16: frozenset({"int16", "uint16"}),
}
"""The types of activations, of recipes that quantise these; no file has others as well."""


def check_facts(facts: FileContents, model: LoadedModel, recipe: Recipe, *, float_layers: bool = False) -> None:
    """Refuse a file whose weights, input or outputs do not match the recipe and the model.

    ``float_layers``: layers of the file stay in float on purpose.

    Raises:
        Failure: ``InspectionFailed``, with a list of all differences.
    """
    interface, precision = list(_interface(facts, model)), list(_precision(facts, model, recipe, float_layers))
    if problems := [*interface, *precision]:
        way_out = "report this message" if interface else "choose a higher precision, and report this message"
        message = f"the produced file does not match the request: {'; '.join(problems)}; {way_out}"
        raise Failure(Reason.INSPECTION_FAILED, message)


def _interface(facts: FileContents, model: LoadedModel) -> Iterator[str]:
    last = facts.channels_last or model.options.channels_last
    wanted: dict[str, tuple[int, ...]] = {model.input_name: model.shape_in_file(channels_last=last)}
    if model.suppression:
        wanted |= {IOU_THRESHOLD: (), CONFIDENCE_THRESHOLD: ()}
    if dict(facts.inputs) != wanted:
        yield f"its inputs are {dict(facts.inputs)} instead of {wanted}"
    if (found := facts.input_types.get(model.input_name, "float32")) != model.type_in_file:
        yield f"its input is of the type {found} instead of {model.type_in_file}"
    images = (
        {model.input_name: IMAGE_COLOURS[model.preprocessing.channels]}
        if model.options.input is InputKind.IMAGE
        else {}
    )
    if dict(facts.image_inputs) != images:
        yield f"its inputs that are images are {dict(facts.image_inputs)} instead of {images}"
    system = model.options.deployment_target or DEPLOYMENT_TARGET
    if facts.deployment_target not in ("", system):
        yield f"it needs {facts.deployment_target} instead of {system}"
    labels = label_lines(model.class_names) if model.options.labels else ()
    if tuple(facts.labels) != labels:
        yield f"it has {len(facts.labels)} labels, or others, instead of {len(labels)}"
    names = [output.name for output in model.outputs_in_file]
    if sorted(facts.outputs) != sorted(names):
        yield f"its outputs are {', '.join(facts.outputs)} instead of {', '.join(names)}"
        return
    for output in model.outputs_in_file:
        shape = facts.outputs[output.name]
        opened = {"detection"} if model.suppression else model.open_axes
        wanted_open = [axis in opened for axis in output.axes]
        if [size == 0 for size in shape] != wanted_open or min(shape, default=0) < 0:
            yield f"its output {output.name} has the shape {shape} for the axes {', '.join(output.axes)}"


def _precision(facts: FileContents, model: LoadedModel, recipe: Recipe, float_layers: bool) -> Iterator[str]:
    kinds = _STORED[recipe]
    weights = _count_weights(model.module)
    stored = sum(facts.weight_types.get(kind, 0) for kind in kinds)
    least = LEAST_SHARE_STATIC if recipe is Recipe.STATIC_WI8_AI8 else LEAST_SHARE
    if stored < (LEAST_SHARE_BESIDE_FLOAT if float_layers else least) * weights:
        yield f"{stored} of {weights} weights are stored as {' or '.join(kinds)}, of all: {dict(facts.weight_types)}"
    activations = _ACTIVATIONS.get(recipe, frozenset())
    if activations and not facts.activation_types:
        yield f"its activations are not quantised; its operators are {', '.join(sorted(facts.op_types))}"
    elif activations and not activations.issuperset(facts.activation_types):
        wanted = " or ".join(sorted(activations))
        yield f"its activations are not all stored as {wanted}: {dict(facts.activation_types)}"


def _count_weights(module: torch.nn.Module) -> int:
    """Count the weights: of a ``.pt2`` program by the operators that read them, else parameters of two or more axes."""
    programs = [part for part in module.modules() if isinstance(part, ProgramModule)]
    read = {id(parameter) for part in programs for parameter in part.parameters()}
    others = (parameter for parameter in module.parameters() if id(parameter) not in read)
    counted = sum(count_multiplied_weights(part.program) for part in programs)
    return counted + sum(parameter.numel() for parameter in others if parameter.ndim > 1)
