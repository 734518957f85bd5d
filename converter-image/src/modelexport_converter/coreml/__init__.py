"""Run Core ML models on Linux: the MIL program of an `.mlpackage`, evaluated op by op in torch.

Core ML's own runtime exists on macOS and iOS only, so a converter on Linux cannot run what it made. This package reads
the saved file (protobuf and weight blobs, not the converter's in-memory graph) and computes its outputs, so that they
can be compared with those of the PyTorch model.

What the check is: a check of the program and of the stored weights. It finds a wrong graph, wrong weights, a wrong
layout, an op that lost a parameter, quantisation that went too far. Arithmetic is fp32, and every value that the
program types as fp16 (inputs, weights, results) is rounded to fp16 where it is produced. The type and shape that the
file declares for each result are checked against what was computed.

What the check is not: it does not run Apple's kernels. Core ML may fuse ops, choose another order of summation,
accumulate in fp16 on the Neural Engine, or round differently; none of this is modelled. A program that agrees here is
the right program, its last digits on a device may differ.

    program = load_program(Path("model.mlpackage"))
    outputs = program.run({"image": array})
"""

from modelexport_converter.coreml.errors import InputMismatch, ProgramError, UnsupportedOp
from modelexport_converter.coreml.package import load_program
from modelexport_converter.coreml.program import Feature, Program

__all__ = ["Feature", "InputMismatch", "Program", "ProgramError", "UnsupportedOp", "load_program"]
