"""A fake converter for tests of its Job: it works for a while and reports a published file."""

import os
import sys
import time
from pathlib import Path

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.result import Artifact, ConversionResult, Verification

SECONDS = 20

[step] = sys.argv[1:]
if step == names.CONVERT:
    time.sleep(SECONDS)
if step == names.PUBLISH:
    request = ConversionRequest.from_json(os.environ[names.REQUEST_ENV])
    result = ConversionResult(
        Reason.SUCCEEDED,
        "pretended",
        request.recipe,
        Artifact(f"{request.output}{request.artifact_name}", "0123456789abcdef" * 4, 1),
        f"{request.output}{names.REPORT_FILE}",
        Verification("cosine", "1.0", "0.999"),
        peak_memory_mib=1,
    )
    Path(names.TERMINATION_LOG_DEFAULT).write_text(result.to_json(), encoding="utf-8")
