"""Uploads a verified file: the artifact first, its report last."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelexport import names
from modelexport.api.request import ConversionRequest
from modelexport.api.result import Artifact
from modelexport_converter.publishing.converted_output import ConvertedOutput
from modelexport_converter.publishing.report import artifact_uri, report_uri
from modelexport_converter.stores import Store


def publish_artifact(store: Store, request: ConversionRequest, output: ConvertedOutput) -> Artifact:
    """Upload the artifact. Return its URI, digest and size.

    Raises:
        Failure: the store rejects it.
    """
    artifact = Artifact(artifact_uri(request), output.sha256, output.size_bytes)
    store.upload(output.path, artifact.uri, {"sha256": artifact.sha256, "spec-hash": request.spec_hash})
    return artifact


def publish_report(store: Store, request: ConversionRequest, report: Mapping[str, Any], folder: Path) -> str:
    """Write a report to ``folder``, upload it and return its URI.

    Raises:
        Failure: the store rejects it.
    """
    path = folder / names.REPORT_FILE
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    store.upload(path, report_uri(request), {"spec-hash": request.spec_hash})
    return report_uri(request)
