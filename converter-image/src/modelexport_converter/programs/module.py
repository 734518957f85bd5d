"""Runs a program as a module that exporters can capture."""

from typing import Any

import torch

from modelexport_converter.compute_device import CPU
from modelexport_converter.programs.graph import Node, Program, refs, substitute
from modelexport_converter.programs.operators import resolve


class ProgramModule(torch.nn.Module):
    """The network of a program; its weights are frozen, and it stays in the exported mode."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program
        self._steps = tuple(map(_Step, program.nodes, last_uses(program)))
        self._keys = {value: f"weight_{value}" for value in program.weights}
        self._keys |= {value: f"buffer_{value}" for value in program.buffers}
        for value, weight in program.weights.items():
            self.register_parameter(self._keys[value], torch.nn.Parameter(weight, requires_grad=False))
        for value, buffer in program.buffers.items():
            self.register_buffer(self._keys[value], buffer)
        self.training = False

    def train(self, mode: bool = True) -> "ProgramModule":
        """Ignore the mode: a program keeps the exported one."""
        return self

    def forward(self, *images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the program's outputs as a tuple, even a single one."""
        program = self.program
        values = dict(zip(program.inputs, images, strict=True))
        values |= {value: getattr(self, key) for value, key in self._keys.items()}
        for step in self._steps:
            step.run(values, images[0].device)
        return tuple(values[output] for output in program.outputs)


class _Step:
    """A prepared node, and the values that are not used after it.

    A program names no device but the CPU, and creates its tensors there unless it is told the device of its images.
    """

    def __init__(self, node: Node, done: tuple[int, ...]) -> None:
        self.operator = resolve(node.operator)
        self.positional, self.named = call_of(self.operator, node.arguments)
        self.results, self.done = node.results, done
        signature = self.operator._schema.arguments
        self.creates = any(argument.name == "device" and argument.kwarg_only for argument in signature)

    def run(self, values: dict[int, torch.Tensor], device: torch.device = CPU) -> None:
        positional = substitute(self.positional, values.__getitem__)
        named = {key: substitute(argument, values.__getitem__) for key, argument in self.named.items()}
        if device != CPU:
            positional = tuple(device if isinstance(argument, torch.device) else argument for argument in positional)
            named |= {"device": device} if self.creates else {}
        found = self.operator(*positional, **named)
        for value, tensor in zip(self.results, flat(found), strict=True):
            if value is not None:
                values[value] = tensor
        for value in self.done:
            values.pop(value, None)


def call_of(operator: Any, arguments: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Split arguments by an operator's signature into positional and named ones."""
    signature = operator._schema.arguments
    places = [
        index for index, argument in enumerate(signature) if not argument.kwarg_only and argument.name in arguments
    ]
    positional = [
        arguments.get(argument.name, argument.default_value) for argument in signature[: max(places, default=-1) + 1]
    ]
    named = {
        argument.name: arguments[argument.name]
        for argument in signature
        if argument.kwarg_only and argument.name in arguments
    }
    return tuple(positional), named


def flat(found: Any) -> tuple[Any, ...]:
    """Return the result of an operator (one tensor, several, or a list) as a tuple."""
    if found is None:
        return ()
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def last_uses(program: Program) -> list[tuple[int, ...]]:
    """Return for each node the values that it uses last, or that are never used."""
    kept, seen = {*program.outputs, *program.weights, *program.buffers}, set[int]()
    done = []
    for node in reversed(program.nodes):
        used = {value for argument in node.arguments.values() for value in refs(argument)}
        used |= {value for value in node.results if value is not None}
        done.append(tuple(sorted(used - seen - kept)))
        seen |= used
    return done[::-1]
