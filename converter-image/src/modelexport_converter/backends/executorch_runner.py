"""Loads a ``.pte`` into ExecuTorch's runtime, as a user's program would; ``file_runner`` feeds it."""

import gc
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

COMPILER = "executorch.exir"
"""The compiler, of which the runtime imports a module of warnings, and which takes seconds to import."""


def open_file(path: str, threads: int) -> tuple[list[int], dict[str, list[int]], Callable[[Any], list[Any]]]:
    """Return the shape of the image, those of the outputs by place, and what returns the outputs for an image."""
    spec = importlib.util.find_spec(COMPILER.partition(".")[0])
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = sys.modules[COMPILER] = ModuleType(COMPILER)
    package.__path__ = [f"{folder}/exir" for folder in spec.submodule_search_locations]

    gc.disable()  # the imports leave nothing to collect, and an image next to nothing
    import torch
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
    from executorch.runtime import Runtime

    torch.set_num_threads(threads)
    _unsafe_reset_threadpool(threads)
    method = Runtime.get().load_program(path).load_method("forward")
    about = method.metadata
    shapes = {str(place): list(about.output_tensor_meta(place).sizes()) for place in range(about.num_outputs())}

    def run(image: Any) -> list[Any]:
        return [output.contiguous().numpy() for output in method.execute([torch.from_numpy(image.copy())])]

    return list(about.input_tensor_meta(0).sizes()), shapes, run
