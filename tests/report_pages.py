"""A report as a conversion publishes it, for the tests of the page."""

import base64
from pathlib import Path
from typing import Any

OUTPUT = "s3://exports/default/shapes/onnx-int8-0123456789/"
HOSTILE = "<script>document.title='taken'</script>\"'><img src=x onerror=alert(1)>"
"""A class name of a checkpoint that wants to be markup."""
IMAGE = Path(__file__).with_name("gradient.jpg")
"""160 x 120 pixels, stored because the unit tests have no library for images."""


def make_report(*samples: dict[str, Any], names: tuple[str, ...] = ("circle", "square", HOSTILE)) -> dict[str, Any]:
    return {
        "request": {
            "target": {"format": "ONNX", "precision": "INT8"},
            "model": {"architecture": "YOLOv8", "checkpoint": {"uri": "s3://checkpoints/a.pt"}},
        },
        "scheme": "static_wi8_ai8",
        "versions": {"modelexport": "0.1.0", "torch": "2.14.1"},
        "sources": {"checkpoint": "ab" * 32, "calibration": "cd" * 32},
        "artifact": {"uri": f"{OUTPUT}shapes-int8.onnx", "sha256": "ef" * 32, "sizeBytes": 3 << 20},
        "verification": {
            "metric": "agreement",
            "value": "0.981559",
            "threshold": "0.85",
            "reference": "Checkpoint",
            "fidelity": {"metric": "boxes", "value": "0.9412", "threshold": "0.9", "images": 64, "kept": 96},
        },
        "model": {"classNames": list(names), "weights": "ema"},
        "seconds": {"total": 50.2},
        "peakMemoryMiB": 844,
        "samples": list(samples),
    }


def make_sample(*model: dict[str, Any], file: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {
        "image": base64.b64encode(IMAGE.read_bytes()).decode(),
        "size": [120, 160],
        "difference": 0.5,
        "model": list(model),
        "file": list(file),
    }


def make_answer(label: int, *box: float, same: bool = True, **parts: Any) -> dict[str, Any]:
    return {"label": label, "score": 0.91, "same": same, "box": list(box), "keypoints": [], "runs": [], **parts}


def detections() -> dict[str, Any]:
    """A sample with one detection that both sides have, one that the file misses, and one that it invents."""
    both = make_answer(0, 10, 20, 60, 70, keypoints=[20, 30, 40, 50])
    missed = make_answer(2, 70, 20, 110, 80, same=False, runs=[12, 30, 10, 13, 30, 12])
    return make_sample(both, missed, file=(both, make_answer(1, 100, 60, 150, 110, same=False)))


def oriented_detections() -> dict[str, Any]:
    """A sample with a rotated box that both sides have, and one beyond the image that the file misses."""
    both = make_answer(0, 20, 10, 100, 90, corners=[60, 10, 100, 50, 60, 90, 20, 50])
    missed = make_answer(1, 0, 0, 40, 50, same=False, corners=[-20, 20, 10, -30, 40, 0, 10, 50])
    return make_sample(both, missed, file=(both,))


def describe_detector() -> dict[str, Any]:
    """The facts of a detector by which a program opens its file."""
    image = {"name": "image", "shape": [1, 3, 120, 160], "type": "float32", "axes": ["batch", "RGB", "height", "width"]}
    boxes = {"name": "boxes", "shape": [1, 4, 525], "type": "float32", "axes": [], "meaning": ""}
    steps = {"resize": "letterbox", "channels": 3, "mean": [0.0] * 3, "std": [1.0] * 3}
    return {"classNames": ["circle"], "input": image, "preprocessing": steps, "outputs": [boxes]}
