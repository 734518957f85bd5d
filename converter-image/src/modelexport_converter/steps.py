"""The three steps of a conversion: fetch what it names, convert it, publish what came out.

Only ``fetch`` and ``publish`` know the store and hold its credentials, and neither opens a checkpoint, a picture or a
produced file. ``convert`` opens all of them and needs nothing but files. On a cluster each is a container of its own.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelexport import names
from modelexport.logs import announce
from modelexport.reasons import Reason
from modelexport.request import ConversionRequest
from modelexport.result import ConversionResult
from modelexport_converter.handover import take
from modelexport_converter.intake import Intake, fetch_inputs, find_earlier
from modelexport_converter.outcome import explain
from modelexport_converter.progress import Effort, Stages
from modelexport_converter.publish import publish_artifact, publish_report
from modelexport_converter.report import build_report, describe_proof
from modelexport_converter.shared import SharedFolder
from modelexport_converter.stores import open_store
from modelexport_converter.threads import limit_threads

Step = Callable[[Mapping[str, str], ConversionRequest, Stages], ConversionResult | None]


def run_step(name: str, environ: Mapping[str, str], request: ConversionRequest) -> ConversionResult | None:
    """Run one step; return how the conversion ended, ``None`` where the next step goes on."""
    stages = Stages()
    try:
        result = STEPS[name](environ, request, stages)
    except Exception as error:
        result = explain(error)
    effort = stages.effort()
    return result and replace(result, seconds=effort.total, peak_memory_mib=effort.peak_memory_mib)


def fetch(environ: Mapping[str, str], request: ConversionRequest, stages: Stages) -> None:
    """Download what a request names, as bytes, and see whether an equal conversion has done the work already.

    Raises:
        Failure: something is not there, or is not what the request says.
    """
    store, folder = open_store(environ), Path(environ[names.INPUTS_ENV])
    with stages.stage("fetch"):
        digest, pictures = fetch_inputs(store, environ, request, folder)
        intake = Intake(folder, digest, pictures, stages.effort())
        earlier = find_earlier(store, request, intake.sources)
    replace(intake, earlier=earlier, effort=stages.effort()).write()


def convert(environ: Mapping[str, str], request: ConversionRequest, stages: Stages) -> None:
    """Make and prove the file that a request asks for, and leave it with the draft of its report.

    Raises:
        Failure: with the reason that the user is told.
    """
    intake = Intake.read(Path(environ[names.INPUTS_ENV]))
    stages.follow(intake.effort)
    if intake.earlier:
        announce("nothing to convert")
        return
    with stages.stage("start"):
        limit_threads(environ)
        from modelexport_converter import pipeline  # imports torch, which no other step needs

        dataset = pipeline.open_pictures(request, intake)
    with _scratch(environ) as folder:
        shared = SharedFolder(Path(environ.get(names.SHARED_DIR_ENV, folder / "shared")))
        outputs = Path(environ[names.OUTPUTS_ENV])
        pipeline.run(pipeline.Conversion(request, intake, dataset, folder, outputs, shared, stages))


def publish(environ: Mapping[str, str], request: ConversionRequest, stages: Stages) -> ConversionResult:
    """Check what the conversion left and put it into the store: the artifact first, its report last.

    Raises:
        Failure: ``OutputRefused``, or the store does not take it.
    """
    intake = Intake.read(Path(environ[names.INPUTS_ENV]))
    stages.follow(intake.effort)
    if intake.earlier:
        return intake.earlier
    store = open_store(environ)
    with _scratch(environ) as folder:
        with stages.stage("publish"):
            outputs = Path(environ[names.OUTPUTS_ENV])
            handover = take(outputs, request, intake.checkpoint.stat().st_size, folder)
            artifact = publish_artifact(store, request, handover)
        stages.follow(handover.effort)
        report = {
            **build_report(request, intake.sources, artifact, handover.verification),
            **handover.findings,
            **_describe(stages.effort()),
        }
        report_uri = publish_report(store, request, report, folder)
    return ConversionResult(
        reason=Reason.SUCCEEDED,
        message="; ".join((f"{describe_proof(handover.verification)} and published", *handover.findings["remarks"])),
        scheme=request.scheme,
        artifact=artifact,
        report_uri=report_uri,
        verification=handover.verification,
    )


def _describe(effort: Effort) -> Mapping[str, Any]:
    return {"seconds": {**effort.seconds, "total": effort.total}, "peakMemoryMiB": effort.peak_memory_mib}


@contextmanager
def _scratch(environ: Mapping[str, str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="conversion-", dir=environ.get(names.WORK_DIR_ENV)) as folder:
        yield Path(folder)


STEPS: Mapping[str, Step] = {names.FETCH: fetch, names.CONVERT: convert, names.PUBLISH: publish}
