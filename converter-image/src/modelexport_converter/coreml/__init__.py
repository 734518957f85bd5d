"""Runs Core ML models on Linux: evaluates the MIL program of an `.mlpackage` op by op in torch.

Core ML's own runtime exists on macOS and iOS only, so a converter on Linux cannot run its own output. This package
reads the saved file (protobuf and weight blobs, not the converter's in-memory graph) and computes its outputs, to
compare them with those of the PyTorch model.

It checks the program and the stored weights. It finds a wrong graph, wrong weights, a wrong layout, an op that lost a
parameter, quantisation that went too far. Arithmetic is fp32, and every value that the program types as fp16 (inputs,
weights, results) is rounded to fp16 where it is produced. The declared type and shape of each result are checked
against the computed ones.

It does not run Apple's kernels. Core ML may fuse ops, sum in another order, accumulate in fp16 on the Neural Engine, or
round differently; none of this is modelled. A program that agrees here is the right program, but its last digits on a
device may differ.

    program = load_program(Path("model.mlpackage"))
    outputs = program.run({"image": array})
"""

from modelexport_converter.coreml.classifier import Classifier
from modelexport_converter.coreml.detector import Detector
from modelexport_converter.coreml.errors import InputMismatch, ProgramError, UnsupportedOp
from modelexport_converter.coreml.ml_program import Answer, Feature, MLProgram
from modelexport_converter.coreml.package import Model, load_model, load_program

__all__ = [
    "Answer",
    "Classifier",
    "Detector",
    "Feature",
    "InputMismatch",
    "MLProgram",
    "Model",
    "ProgramError",
    "UnsupportedOp",
    "load_model",
    "load_program",
]
