"""Reports as far as a program that opens a file needs them."""

from typing import Any

FILES = {
    "ONNX": "onnx",
    "LiteRT": "tflite",
    "CoreML": "mlpackage.zip",
    "PyTorch": "pt2",
    "TensorFlow": "savedmodel.zip",
    "ExecuTorch": "pte",
}
DETECTOR = (("boxes", [1, 4, 525]), ("scores", [1, 3, 525]))
SUPPRESSED = (("boxes", [1, 300, 4]), ("scores", [1, 300]), ("labels", [1, 300]), ("count", [1]))
OBJECTS = (("confidence", [None, 80]), ("coordinates", [None, 4]))
PLAIN: dict[str, Any] = {"mean": [0.0] * 3, "std": [1.0] * 3, "channels": 3}
TORCHVISION: dict[str, Any] = {
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "channels": 3,
    "resize": "stretch",
}
PIXELS: dict[str, Any] = {"pixelRange": "0-255", "channels": 3}


def report_of(
    fmt: str,
    outputs: Any = DETECTOR,
    *,
    last: bool = False,
    kind: str = "float32",
    batch: int | None = 1,
    size: tuple[int, int] | None = (128, 160),
    resize: str = "letterbox",
    **steps: Any,
) -> dict[str, Any]:
    """A report as far as a program needs it."""
    preprocessing = {"resize": resize, **(steps or PLAIN)}
    scale = {"quantization": {"scale": 0.00392156862745098, "zeroPoint": -128}} if kind == "int8" else {}
    colours = preprocessing["channels"]
    sides = size or (None, None)
    shape = [batch, *sides, colours] if last else [batch, colours, *sides]
    any_size = {} if size else {"inputSize": [128, 160]}
    axes = ["batch", "height", "width", "RGB"] if last else ["batch", "RGB", "height", "width"]
    return {
        "request": {"target": {"format": fmt, "precision": "FP32"}},
        "artifact": {"uri": f"s3://exports/default/shapes/a/shapes-fp32.{FILES[fmt]}"},
        "model": {
            "input": {"name": "image", "shape": shape, "type": kind, "axes": axes, **any_size, **scale},
            "preprocessing": preprocessing,
            "outputs": [{"name": name, "shape": sizes, "type": "float32", "axes": []} for name, sizes in outputs],
        },
    }
