"""Proves from a produced file's own content that it is what was asked for."""

from collections.abc import Iterator, Mapping

import torch

from modelexport.matrix import Scheme
from modelexport.reasons import Reason
from modelexport_converter.backends import Facts
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel
from modelexport_converter.programs.module import ProgramModule
from modelexport_converter.programs.multiplied import count_multiplied

LEAST_SHARE = 0.98
"""Of the model's weights, what must be stored in the precision asked for. Everything is, but for weights that a
format's quantiser cannot take, such as those of a transposed convolution: below 1 % of a network."""

_STORED: Mapping[Scheme, tuple[str, ...]] = {
    Scheme.FP32: ("float32",),
    Scheme.FP16: ("float16",),
    Scheme.DYNAMIC_WI8_AFP32: ("int8", "uint8"),
    Scheme.STATIC_WI8_AI8: ("int8", "uint8"),
    Scheme.WEIGHT_ONLY_WI8_AFP16: ("int8", "uint8"),
}
_ACTIVATION_OPERATORS = {"QUANTIZE", "QuantizeLinear", "quantize"}


def check_facts(facts: Facts, model: LoadedModel, scheme: Scheme) -> None:
    """Refuse a file whose weights, input or outputs are not what the scheme and the model say.

    Raises:
        Failure: ``InspectionFailed``, naming everything that is wrong.
    """
    interface, precision = list(_interface(facts, model)), list(_precision(facts, model, scheme))
    if problems := [*interface, *precision]:
        way_out = "report this message" if interface else "ask for a higher precision, and report this message"
        message = f"the produced file is not what was asked for: {'; '.join(problems)}; {way_out}"
        raise Failure(Reason.INSPECTION_FAILED, message)


def _interface(facts: Facts, model: LoadedModel) -> Iterator[str]:
    wanted = {model.input_name: model.input_shape}
    if dict(facts.inputs) != wanted:
        yield f"its inputs are {dict(facts.inputs)} instead of {wanted}"
    names = [output.name for output in model.outputs]
    if sorted(facts.outputs) != sorted(names):
        yield f"its outputs are {', '.join(facts.outputs)} instead of {', '.join(names)}"
        return
    for output in model.outputs:
        shape = facts.outputs[output.name]
        if len(shape) != len(output.axes) or not all(size > 0 for size in shape):
            yield f"its output {output.name} has the shape {shape} for the axes {', '.join(output.axes)}"


def _precision(facts: Facts, model: LoadedModel, scheme: Scheme) -> Iterator[str]:
    kinds = _STORED[scheme]
    weights = _count_weights(model.module)
    stored = sum(facts.weight_types.get(kind, 0) for kind in kinds)
    if stored < LEAST_SHARE * weights:
        yield f"{stored} of {weights} weights are stored as {' or '.join(kinds)}, of all: {dict(facts.weight_types)}"
    if scheme is Scheme.STATIC_WI8_AI8 and not _ACTIVATION_OPERATORS & set(facts.op_types):
        yield f"its activations are not quantised; its operators are {', '.join(sorted(facts.op_types))}"


def _count_weights(module: torch.nn.Module) -> int:
    """Count the weights: of a program by the operators that read them, of every other network those with two axes."""
    programs = [part for part in module.modules() if isinstance(part, ProgramModule)]
    read = {id(parameter) for part in programs for parameter in part.parameters()}
    others = (parameter for parameter in module.parameters() if id(parameter) not in read)
    counted = sum(count_multiplied(part.program) for part in programs)
    return counted + sum(parameter.numel() for parameter in others if parameter.ndim > 1)
