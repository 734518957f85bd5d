"""Packs the produced file for publication; for Core ML it is a folder, which becomes a zip archive."""

import shutil
import zipfile
from pathlib import Path

FIXED_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip archive can hold."""


def pack(produced: Path, path: Path) -> None:
    """Write the produced file to ``path``, as a zip archive if it is a folder.

    Equal folders give equal archives: entries are sorted and have one fixed time.
    """
    if produced.is_file():
        shutil.copyfile(produced, path)
        return
    top = path.name.removesuffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(produced.rglob("*")):
            if file.is_file():
                entry = zipfile.ZipInfo(f"{top}/{file.relative_to(produced).as_posix()}", FIXED_TIME)
                entry.external_attr = 0o644 << 16
                with file.open("rb") as reader, archive.open(entry, "w") as writer:
                    shutil.copyfileobj(reader, writer, 1 << 20)
