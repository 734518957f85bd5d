"""Finds the operator of a program that a library cannot convert, and the line of the user's code that calls it."""

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from modelexport.api.reasons import Reason
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel, Output
from modelexport_converter.programs.graph import Node, Program, refs
from modelexport_converter.programs.module import ProgramModule
from modelexport_converter.runtime.outcome import brief, is_out_of_memory

SEARCH_SECONDS = 120.0
"""Time limit of the search that converts parts of a program; after it, only the library's message is shown."""
_NAMED = re.compile(r"(?:aten::|aten\.|\bop '|operator ')(?:aten::)?(\w+)")


@contextmanager
def name_unsupported_operator(
    model: LoadedModel, convert: Callable[[LoadedModel, Path], object], name: str
) -> Iterator[None]:
    """Name the unsupported operator if a conversion of a program fails.

    Args:
        model: the model that is converted.
        convert: converts another model to a file.
        name: a name for such a file.

    Raises:
        Failure: with reason ``ConversionFailed``, in place of the library's exception.
    """
    try:
        yield
    except (Failure, MemoryError, OSError):
        raise
    except Exception as error:
        program = model.module.program if isinstance(model.module, ProgramModule) else None
        if program is None or is_out_of_memory(error):
            raise
        words = [word.rstrip("_") for word in _NAMED.findall(str(error))]
        named = (node for word in words for node in program.nodes if node.operator.partition(".")[0] == word)
        node = next(named, None) or _search(model, program, convert, name)
        if node is None:
            raise
        operator = f"aten.{node.operator.removesuffix('.default')}{node.line}"
        remedy = "express that line by other operators of torch, end the program before it, or choose another format"
        message = f"this format cannot express {operator}; {remedy} (the library says: {brief(error)})"
        raise Failure(Reason.CONVERSION_FAILED, message) from error


def _search(
    model: LoadedModel, program: Program, convert: Callable[[LoadedModel, Path], object], name: str
) -> Node | None:
    """Return the node up to which the program fails and before which it converts, by bisection."""
    good, bad = 0, len(program.nodes)
    end = time.monotonic() + SEARCH_SECONDS
    while bad - good > 1:
        middle = (good + bad) // 2
        if time.monotonic() > end:
            return None
        if _converts(_beginning(model, program, middle), convert, name):
            good = middle
        else:
            bad = middle
    return program.nodes[bad - 1] if program.nodes else None


def _converts(model: LoadedModel, convert: Callable[[LoadedModel, Path], object], name: str) -> bool:
    """Return whether a model can be converted."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            convert(model, Path(folder) / name)
        except (MemoryError, OSError):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return False
    return True


def _beginning(model: LoadedModel, program: Program, count: int) -> LoadedModel:
    """Return the first nodes of a program as a model, whose outputs are the values that none of them uses."""
    nodes = program.nodes[:count]
    used = {value for node in nodes for argument in node.arguments.values() for value in refs(argument)}
    outputs = tuple(value for node in nodes for value in node.results if value is not None and value not in used)
    names = tuple(Output(f"output_{index}", (), "") for index in range(len(outputs)))
    return replace(model, module=type(model.module)(replace(program, nodes=nodes, outputs=outputs)), outputs=names)
