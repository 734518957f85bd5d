"""Files that an export must refuse, made from good ones of the repository without any model library."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

from testcluster.layout import REPOSITORY

WEIGHTS = REPOSITORY / "testdata/models/weights"
DATA = REPOSITORY / "testdata/models/data"
IMAGES = DATA / "calibration-cls.zip"
NOT_A_NUMBER = b"\x00\x7e"
"""In IEEE 754 half precision, little-endian."""
MARK = 42


class Attack:
    """Ends the process that unpickles it with a unique exit status."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (MARK,)


def write_archive(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def read_archive(path: Path) -> dict[str, bytes]:
    """Return the entries of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def spoil_weights(path: Path) -> bytes:
    """Return a checkpoint whose largest tensor begins with NaN."""
    files = read_archive(path)
    largest = max((name for name in files if "/data/" in name), key=lambda name: len(files[name]))
    files[largest] = NOT_A_NUMBER * 8 + files[largest][16:]
    return write_archive(files)


def build_attack() -> bytes:
    """Return a file that looks like a checkpoint of torch and runs code when it is unpickled."""
    attack = pickle.dumps({"model": Attack()}, protocol=2)
    return write_archive({"archive/data.pkl": attack, "archive/version": b"3\n", "archive/byteorder": b"little"})


def build_labelled() -> bytes:
    """Return labelled images: a folder for each class."""
    labels = json.loads((DATA / "eval-cls.json").read_text())
    return write_archive(
        {
            f"val/{labels['classes'][labels['labels'][name]]}/{name}": image
            for name, image in read_archive(DATA / "eval-cls.zip").items()
        }
    )


def build_inputs() -> dict[str, bytes]:
    """Return every file that the tests upload, good and bad, by its name."""
    classifier, images = WEIGHTS / "yolov8n-cls.pt", read_archive(IMAGES)
    bomb = write_archive({"bomb.bmp": bytes(32 << 20)}, zipfile.ZIP_DEFLATED)
    return {
        "yolov8n-cls.pt": classifier.read_bytes(),
        "yolov8n.pt": (WEIGHTS / "yolov8n.pt").read_bytes(),
        "truncated.pt": classifier.read_bytes()[:1_000_000],
        "nan.pt": spoil_weights(classifier),
        "attack.pt": build_attack(),
        "images.zip": IMAGES.read_bytes(),
        "labelled.zip": build_labelled(),
        "no-images.zip": write_archive({"readme.txt": b"none here"}),
        "broken.zip": write_archive({**images, "0-broken.jpg": b"\xff\xd8\xff" + bytes(100)}),
        "bomb.zip": bomb,
    }
