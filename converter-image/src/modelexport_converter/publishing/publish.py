"""Puts a verified file into the store: the artifact first, its report last."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelexport import names
from modelexport.request import ConversionRequest
from modelexport.result import Artifact
from modelexport_converter.handover import Handover
from modelexport_converter.report import artifact_uri, report_uri
from modelexport_converter.stores import Store


def publish_artifact(store: Store, request: ConversionRequest, handover: Handover) -> Artifact:
    """Upload a file and return where it is and what it is.

    Raises:
        Failure: the store does not take it.
    """
    artifact = Artifact(artifact_uri(request), handover.sha256, handover.size_bytes)
    store.upload(handover.path, artifact.uri, {"sha256": artifact.sha256, "spec-hash": request.spec_hash})
    return artifact


def publish_report(store: Store, request: ConversionRequest, report: Mapping[str, Any], folder: Path) -> str:
    """Upload a report, written in ``folder``, and return its URI.

    Raises:
        Failure: the store does not take it.
    """
    path = folder / names.REPORT_FILE
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    store.upload(path, report_uri(request), {"spec-hash": request.spec_hash})
    return report_uri(request)
