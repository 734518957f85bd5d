"""Puts a verified file into the store: the artifact first, its report last."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelexport import names
from modelexport.request import ConversionRequest
from modelexport.result import Artifact
from modelexport_converter.fetch import sha256_of
from modelexport_converter.report import report_uri
from modelexport_converter.stores import Store

FIXED_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip archive can hold."""


def pack(produced: Path, folder: Path, artifact_name: str) -> Path:
    """Return the one file to publish: the produced file itself, or an archive of it where it is a folder.

    Equal folders give equal archives: entries are sorted and have one fixed time.
    """
    if produced.is_file():
        return produced
    packed = folder / artifact_name
    top = artifact_name.removesuffix(".zip")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(produced.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(f"{top}/{path.relative_to(produced).as_posix()}", FIXED_TIME)
                entry.external_attr = 0o644 << 16
                with path.open("rb") as reader, archive.open(entry, "w") as writer:
                    while chunk := reader.read(1 << 20):
                        writer.write(chunk)
    return packed


def publish_artifact(store: Store, request: ConversionRequest, packed: Path) -> Artifact:
    """Upload a file and return where it is and what it is.

    Raises:
        Failure: the store does not take it.
    """
    artifact = Artifact(f"{request.output}{request.artifact_name}", sha256_of(packed), packed.stat().st_size)
    store.upload(packed, artifact.uri, {"sha256": artifact.sha256, "spec-hash": request.spec_hash})
    return artifact


def publish_report(store: Store, request: ConversionRequest, report: Mapping[str, Any], folder: Path) -> str:
    """Upload a report and return its URI.

    Raises:
        Failure: the store does not take it.
    """
    path = folder / names.REPORT_FILE
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    store.upload(path, report_uri(request), {"spec-hash": request.spec_hash})
    return report_uri(request)
