"""Exports one model by ultralytics' own exporter.

    python -m benchmarks.conversions.ultralytics_export CHECKPOINT FORMAT SIZE PRECISION DATA

PRECISION is 32, 16 or 8; DATA names the calibration images. Prints the size of the file in bytes, or the reason of a
refusal, as JSON.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    """Export, and print the result."""
    checkpoint, fmt, size, precision, data = sys.argv[1:]
    # The import is part of the export's cost, as it is in our conversions.
    from ultralytics import YOLO

    options: dict[str, object] = {"format": fmt, "imgsz": int(size)}
    if precision != "32":
        options["quantize"] = int(precision)
    if precision == "8" and fmt != "coreml":  # Core ML's INT8 takes no images
        options["data"] = data
    if fmt == "onnx":  # would need onnxslim, which nothing else here uses
        options["simplify"] = False
    try:
        produced = Path(YOLO(checkpoint).export(**options))
    except AssertionError as refusal:
        print(json.dumps({"options": options, "refused": str(refusal)}))
        return
    options.pop("data", None)
    print(json.dumps({"options": options, "bytes": size_of(produced)}))


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


if __name__ == "__main__":
    main()
