"""Classifiers: ML programs that end in ``classify``, which names the classes.

Meaning of the op: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html#classify
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from modelexport_converter.coreml.errors import ProgramError
from modelexport_converter.coreml.ml_program import Answer, Feature, MLProgram
from modelexport_converter.coreml.reader import CLASSIFY, Naming
from modelexport_converter.coreml.tensors import Array


class Classifier:
    """An ML program whose last op gives the best class by name, and the probability of each."""

    def __init__(self, program: MLProgram, naming: Naming) -> None:
        """Wrap a program that has the probabilities among its results.

        Raises:
            ProgramError: there is not one name for each probability, or a name is there twice.
        """
        self.model = program.model
        self.image_inputs = program.image_inputs
        self.specification_version = program.specification_version
        self.inputs = program.inputs
        self._program, self._naming = program, naming
        shape = next(output.shape for output in program.outputs if output.name == naming.probabilities)
        sizes, names = [size or 0 for size in shape], len(set(naming.classes))
        if not names == len(naming.classes) == np.prod(sizes, dtype=np.float64) > 0:
            problem = f"{len(naming.classes)} names, {names} different ones, for probabilities of shape {list(shape)}"
            raise ProgramError(f"op {CLASSIFY!r} of {self.model} has {problem}")

    @property
    def outputs(self) -> tuple[Feature, ...]:
        """The outputs of ``run``, those of ``classify`` first."""
        named = Feature(self._naming.label, (), "string")
        probabilities = Feature(self._naming.by_name, (len(self._naming.classes),), "dictionary")
        others = (output for output in self._program.outputs if output.name != self._naming.probabilities)
        return (named, probabilities, *others)

    def op_types(self) -> Counter[str]:
        """Count the ops by type, without constants."""
        return self._program.op_types() + Counter([CLASSIFY])

    def weight_types(self) -> Counter[str]:
        """Count the weights as ``MLProgram`` does."""
        return self._program.weight_types()

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Answer]:
        """Evaluate the program as ``MLProgram`` does; the best class is a text, the probabilities a dictionary."""
        results = self._program.run(arrays)
        probabilities: Any = results.pop(self._naming.probabilities).ravel()
        by_name = dict(zip(self._naming.classes, map(float, probabilities), strict=True))
        best = self._naming.classes[int(probabilities.argmax())]
        return {self._naming.label: best, self._naming.by_name: by_name, **results}
