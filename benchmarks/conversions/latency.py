"""Measures how long one run of a produced file takes, on one thread: ``python -m benchmarks.conversions.latency FILE``.

LiteRT, ONNX, PyTorch, TensorFlow and ExecuTorch files run in their runtimes. A Core ML package runs in our evaluator:
its time is a cost of verification, and says nothing about a device.
"""

import json
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WARM_UPS, RUNS = 3, 15
LEAST_RUNS, TIME_LIMIT_SECONDS = 3, 15
"""Slow files run less often, as their times vary less."""


def main() -> None:
    """Print the milliseconds of one run as JSON."""
    path = Path(sys.argv[1])
    run = next(open_ for end, open_ in OPENERS.items() if path.name.endswith(end))(path)
    first = _time(run)
    most = max(LEAST_RUNS, int(TIME_LIMIT_SECONDS * 1000 / first))
    for _ in range(min(WARM_UPS, most // LEAST_RUNS) - 1):
        run()
    times = sorted(_time(run) for _ in range(min(RUNS, most)))
    print(json.dumps({"min_ms": times[0], "median_ms": statistics.median(times), "runs": len(times)}))


def _time(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1000


def noise(shape: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return noise in the range of an image."""
    return np.random.default_rng(0).random(tuple(shape), dtype=np.float32)


def open_onnx(path: Path) -> Callable[[], object]:
    """Load an ONNX file into its runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {value.name: noise(value.shape) for value in session.get_inputs()}
    return lambda: session.run(None, feed)


def open_litert(path: Path) -> Callable[[], object]:
    """Load a LiteRT file into its runtime."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], noise(detail["shape"]))
    return lambda: interpreter.invoke()  # noqa: PLW0108 - it is untyped


def open_coreml(path: Path) -> Callable[[], object]:
    """Load a zipped Core ML package into our evaluator."""
    import torch

    from modelexport_converter.coreml import load_program

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
        package = next(Path(folder).glob("*.mlpackage"), Path(folder))
        program = load_program(package)
        feed = {feature.name: noise(feature.shape) for feature in program.inputs}
        program.run(feed)
    return lambda: program.run(feed)


def open_pytorch(path: Path) -> Callable[[], object]:
    """Load a PyTorch file."""
    import torch

    torch.set_num_threads(1)
    program = torch.export.load(path)
    (name,) = program.graph_signature.user_inputs
    (shape,) = (node.meta["val"].shape for node in program.graph.nodes if node.name == name)
    module, image = program.module(), torch.from_numpy(noise(shape))

    def run() -> object:
        with torch.inference_mode():
            return module(image)

    return run


def open_tensorflow(path: Path) -> Callable[[], object]:
    """Load a zipped SavedModel into TensorFlow."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
        (saved_model,) = Path(folder).iterdir()
        loaded = tf.saved_model.load(str(saved_model))
    function = loaded.signatures["serving_default"]
    ((name, image),) = function.structured_input_signature[1].items()
    feed = {name: tf.constant(noise(image.shape))}

    def run(keep: object = loaded) -> object:
        return [output.numpy() for output in function(**feed).values()]

    return run


def open_executorch(path: Path) -> Callable[[], object]:
    """Load an ExecuTorch file into its runtime."""
    import torch
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
    from executorch.runtime import Runtime

    torch.set_num_threads(1)
    _unsafe_reset_threadpool(1)
    method = Runtime.get().load_program(path).load_method("forward")
    image = torch.from_numpy(noise(method.metadata.input_tensor_meta(0).sizes()))
    return lambda: method.execute([image])


OPENERS = {
    ".mlpackage.zip": open_coreml,
    ".onnx": open_onnx,
    ".pt2": open_pytorch,
    ".pte": open_executorch,
    ".savedmodel.zip": open_tensorflow,
    ".tflite": open_litert,
}
"""By the end of a file's name."""

if __name__ == "__main__":
    main()
