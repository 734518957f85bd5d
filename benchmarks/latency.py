"""How long one run of a produced file takes, on one thread: ``python -m bench.latency FILE``.

LiteRT and ONNX files run in their runtimes. A Core ML package runs in our evaluator: that is what verification costs,
and says nothing about a device.
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
LEAST_RUNS, PATIENCE_SECONDS = 3, 15
"""What takes long is run less often, as its times scatter less."""


def main() -> None:
    """Print the milliseconds of one run as JSON."""
    path = Path(sys.argv[1])
    run = {".onnx": open_onnx, ".tflite": open_litert, ".zip": open_coreml}[path.suffix](path)
    first = _time(run)
    most = max(LEAST_RUNS, int(PATIENCE_SECONDS * 1000 / first))
    for _ in range(min(WARM_UPS, most // LEAST_RUNS) - 1):
        run()
    times = sorted(_time(run) for _ in range(min(RUNS, most)))
    print(json.dumps({"min_ms": times[0], "median_ms": statistics.median(times), "runs": len(times)}))


def _time(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1000


def picture(shape: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return noise in the range of a picture."""
    return np.random.default_rng(0).random(tuple(shape), dtype=np.float32)


def open_onnx(path: Path) -> Callable[[], object]:
    """Load an ONNX file into its runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {value.name: picture(value.shape) for value in session.get_inputs()}
    return lambda: session.run(None, feed)


def open_litert(path: Path) -> Callable[[], object]:
    """Load a LiteRT file into its runtime."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], picture(detail["shape"]))
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
        feed = {feature.name: picture(feature.shape) for feature in program.inputs}
        program.run(feed)
    return lambda: program.run(feed)


if __name__ == "__main__":
    main()
