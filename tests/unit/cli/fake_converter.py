"""A fake converter for tests of the command line: it logs stages as the real one does and ends as the test wants.

The test writes a JSON object of behaviours by target into the file that FAKE_CONVERTER names.
"""

import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.result import Artifact, ConversionResult, Fidelity, Reference, Verification
from modelexport.api.rungs import QuantizationResult, Rung
from modelexport.matrix.support import Precision


def identify() -> int:
    """Answer with the JSON in the checkpoint; a text is no checkpoint."""
    text = Path(os.environ[names.CHECKPOINT_ENV]).read_text(encoding="utf-8")
    if not text.startswith("{"):
        result = ConversionResult(Reason.CHECKPOINT_MISMATCH, "the weights are those of none")
    else:
        result = ConversionResult(Reason.SUCCEEDED, "identified")
        asked = os.environ.get(names.ARCHITECTURE_ENV)
        answer = {"event": "identified", **json.loads(text)}
        print(json.dumps({**answer, **({"architecture": asked} if asked else {})}))
    Path(os.environ[names.TERMINATION_LOG_ENV]).write_text(result.to_json(), encoding="utf-8")
    return result.reason.exit_code


def main() -> int:
    if sys.argv[1:] == [names.IDENTIFY]:
        return identify()
    request = ConversionRequest.from_json(os.environ[names.REQUEST_ENV])
    plan = Path(os.environ["FAKE_CONVERTER"])
    behaviour = json.loads(plan.read_text(encoding="utf-8")).get(str(request.target), {})
    attempt = count(plan.parent / f"{request.target.slug}.attempts")
    print("something that a library prints")
    print("x" * behaviour.get("long_line", 0))
    tempfile.mkdtemp(prefix="left-by-a-library-")
    for stage in ("fetch", "load", "convert"):
        print(json.dumps({"event": "stage", "stage": stage, "state": "started"}), flush=True)
    if behaviour.get("recovers"):
        for rung, layers in (("Ranges", 0), ("MixedPrecision", 4)):
            print(json.dumps({"event": "rung", "rung": rung, "floatLayers": layers}))
            print(json.dumps({"event": "stage", "stage": "quantise", "state": "started"}), flush=True)
    if "tell" in behaviour:
        (plan.parent / f"{request.target.slug}.told").write_text(os.environ[behaviour["tell"]], encoding="utf-8")
    if behaviour.get("hang"):
        (plan.parent / f"{request.target.slug}.pid").write_text(str(os.getpid()), encoding="utf-8")
        time.sleep(300)
    if "signal" in behaviour:
        os.kill(os.getpid(), signal.Signals[behaviour["signal"]])
    if behaviour.get("silent"):
        return 1
    reason = Reason(behaviour.get("reason", Reason.SUCCEEDED))
    if attempt >= behaviour.get("succeeds_at", sys.maxsize):
        reason = Reason.SUCCEEDED
    result = succeed(request) if reason is Reason.SUCCEEDED else ConversionResult(reason, f"{reason} on purpose")
    if behaviour.get("recovers"):
        result = replace(result, quantization=RECOVERED)
    Path(os.environ[names.TERMINATION_LOG_ENV]).write_text(result.to_json(), encoding="utf-8")
    return reason.exit_code


def count(path: Path) -> int:
    attempt = int(path.read_text(encoding="utf-8")) + 1 if path.exists() else 1
    path.write_text(str(attempt), encoding="utf-8")
    return attempt


RUNGS = (
    Rung("Ranges", 0, "0.2500", 21, "0.951100", "0.9400", "0.011700"),
    Rung("MixedPrecision", 4, "0.2610", 9, "0.960000", None, "0.004000"),
)
RECOVERED = QuantizationResult("MixedPrecision", 4, "0.2610", RUNGS, "maxFloatLayers is 4")
FIDELITY = Fidelity("boxes", "0.9700", 64, "0.9", 97, 2, 1)


def succeed(request: ConversionRequest) -> ConversionResult:
    uri = f"{request.output}{request.artifact_name}"
    path = Path(os.environ[names.STORE_ENV]) / uri.removeprefix("s3://")
    reused = path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes({"FP32": 4000, "FP16": 2000, "INT8": 1000}[request.target.precision]))
    (path.parent / names.REPORT_FILE).write_text("{}", encoding="utf-8")
    artifact = Artifact(uri, "0123456789abcdef" * 4, path.stat().st_size)
    doubts = ("it looks wrong",) if request.target.precision is Precision.INT8 else ()
    proof = Verification("cosine", "0.9998", "0.999", Reference.REBUILT, ("activation SiLU",), doubts, FIDELITY)
    return ConversionResult(
        Reason.SUCCEEDED, "verified and published", request.recipe, artifact, f"{request.output}report.json", proof,
        peak_memory_mib=900, reused=reused,
    )  # fmt: skip


sys.exit(main())
