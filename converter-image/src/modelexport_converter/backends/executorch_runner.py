"""Runs a ``.pte`` in ExecuTorch's runtime, as a user's program would: ``python executorch_runner.py FILE THREADS``.

A process of its own, because the runtime ends the process on some faults. It reads images from its input as raw
float32, and writes the outputs, after a line of JSON that gives their shapes by their places.
"""

import gc
import importlib.util
import json
import os
import sys
from math import prod
from types import ModuleType

COMPILER = "executorch.exir"
"""The compiler, of which the runtime imports a module of warnings, and which takes seconds to import."""


def main() -> None:
    """Answer images until the input ends."""
    path, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints, the answers stay apart

    spec = importlib.util.find_spec(COMPILER.partition(".")[0])
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = sys.modules[COMPILER] = ModuleType(COMPILER)
    package.__path__ = [f"{folder}/exir" for folder in spec.submodule_search_locations]

    gc.disable()  # the imports leave nothing to collect, and an image next to nothing
    import numpy as np
    import torch
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
    from executorch.runtime import Runtime

    torch.set_num_threads(int(threads))
    _unsafe_reset_threadpool(int(threads))
    method = Runtime.get().load_program(path).load_method("forward")
    about = method.metadata
    shapes = {str(place): list(about.output_tensor_meta(place).sizes()) for place in range(about.num_outputs())}
    image = about.input_tensor_meta(0).sizes()
    answers.write(json.dumps({"outputs": shapes}).encode() + b"\n")
    answers.flush()
    size = 4 * prod(image)
    while len(content := sys.stdin.buffer.read(size)) == size:
        given = torch.from_numpy(np.frombuffer(content, np.float32).reshape(image).copy())
        for output in method.execute([given]):
            answers.write(output.contiguous().numpy().astype(np.float32).tobytes())
        answers.flush()


if __name__ == "__main__":
    main()
