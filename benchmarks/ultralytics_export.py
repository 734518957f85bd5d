"""ultralytics' own export of one model as a process: ``python -m bench.peer CHECKPOINT FORMAT SIZE PRECISION DATA``.

PRECISION is 32, 16 or 8; DATA names calibration pictures. Prints the file's bytes, or why ultralytics refuses, as JSON.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    """Export, and print what came of it."""
    checkpoint, fmt, size, precision, data = sys.argv[1:]
    # The imports belong to what an export costs, as they do to a conversion of ours.
    from ultralytics import YOLO

    options: dict[str, object] = {"format": fmt, "imgsz": int(size)}
    if precision != "32":
        options["quantize"] = int(precision)
    if precision == "8" and fmt != "coreml":  # Core ML's INT8 takes no pictures
        options["data"] = data
    if fmt == "onnx":  # would want onnxslim, which nobody here needs
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
