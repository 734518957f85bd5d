"""Runs the three steps of a conversion: fetch its inputs, convert them, publish the result.

Only ``fetch`` and ``publish`` know the store and hold its credentials, and neither opens a checkpoint, an image or a
produced file. ``convert`` opens all of them and needs only local files. On a cluster each step is a container of its
own.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.result import ConversionResult
from modelexport.logs import announce
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.fetched_inputs import FetchedInputs, fetch_inputs, find_earlier
from modelexport_converter.publishing.converted_output import ConvertedOutput, take_output
from modelexport_converter.publishing.original import fetch_original, publish_original
from modelexport_converter.publishing.page import publish_page
from modelexport_converter.publishing.publish import publish_artifact, publish_report
from modelexport_converter.publishing.report import build_report, describe_proof
from modelexport_converter.runtime.artifact_cache import ArtifactCache
from modelexport_converter.runtime.outcome import explain
from modelexport_converter.runtime.progress import Stages
from modelexport_converter.runtime.quick_imports import quick_imports
from modelexport_converter.runtime.threads import limit_threads
from modelexport_converter.stores import Store
from modelexport_converter.stores.opening import open_store

Step = Callable[[Mapping[str, str], ConversionRequest, Stages], ConversionResult | None]


def run_step(name: str, environ: Mapping[str, str], request: ConversionRequest) -> ConversionResult | None:
    """Run one step. Return the result of the conversion, or ``None`` if the next step continues."""
    stages = Stages()
    try:
        result = STEPS[name](environ, request, stages)
    except Exception as error:
        result = explain(error)
    effort = stages.effort()
    return result and replace(result, seconds=effort.total, peak_memory_mib=effort.peak_memory_mib)


def fetch(environ: Mapping[str, str], request: ConversionRequest, stages: Stages) -> None:
    """Download the inputs of a request as bytes, and look for an equal conversion that is already published.

    Raises:
        Failure: an input is missing or is not the one that the request describes.
    """
    store, folder = open_store(environ), Path(environ[names.INPUTS_ENV])
    with stages.stage("fetch"):
        digest, images, labelled = fetch_inputs(store, environ, request, folder)
        inputs = FetchedInputs(folder, digest, images, labelled, stages.effort())
        earlier = find_earlier(store, request, inputs.sources)
        if earlier is None:
            fetch_original(store, request, folder)
    replace(inputs, earlier=earlier, effort=stages.effort()).write()


def convert(environ: Mapping[str, str], request: ConversionRequest, stages: Stages) -> None:
    """Convert and verify the requested file, and leave it with a draft of its report for ``publish``.

    Raises:
        Failure: with the reason that the user sees.
    """
    inputs = FetchedInputs.read(Path(environ[names.INPUTS_ENV]))
    stages.follow(inputs.effort)
    if inputs.earlier:
        announce("nothing to convert")
        return
    with stages.stage("start"):
        limit_threads(environ)
        with quick_imports():
            from modelexport_converter import pipeline  # imports torch, which no other step needs

        dataset = pipeline.open_images(request, inputs)
        labelled = pipeline.open_labelled(request, inputs, dataset)
    with _scratch(environ) as folder:
        shared = environ.get(names.SHARED_DIR_ENV)
        cache = ArtifactCache(Path(shared or folder / "cache"), is_shared=bool(shared))
        outputs = Path(environ[names.OUTPUTS_ENV])
        deadline = float(environ.get(names.DEADLINE_ENV, "inf"))
        work = pipeline.Conversion(request, inputs, dataset, labelled, folder, outputs, cache, stages, deadline)
        pipeline.run(work)


def publish(environ: Mapping[str, str], request: ConversionRequest, stages: Stages) -> ConversionResult:
    """Check the output of the conversion and upload it: the artifact first, its report last.

    Raises:
        Failure: ``OutputRefused``, or the store rejects it.
    """
    inputs = FetchedInputs.read(Path(environ[names.INPUTS_ENV]))
    stages.follow(inputs.effort)
    store = open_store(environ)
    if inputs.earlier:
        return _with_page(store, environ, request, inputs.earlier)
    with _scratch(environ) as folder:
        with stages.stage("publish"):
            outputs = Path(environ[names.OUTPUTS_ENV])
            output = take_output(outputs, request, inputs.checkpoint.stat().st_size, folder)
            artifact = publish_artifact(store, request, output)
        stages.follow(output.effort)
        effort = stages.effort()
        report = {
            **build_report(
                request,
                inputs.sources,
                artifact,
                output.verification,
                output.accuracy,
                quantization=output.quantization,
            ),
            **output.findings,
            "seconds": {**effort.seconds, "total": effort.total},
            "peakMemoryMiB": effort.peak_memory_mib,
        }
        report_uri = publish_report(store, request, report, folder)
        shared = _share_original(store, request, output)
    result = ConversionResult(
        reason=Reason.SUCCEEDED,
        message="; ".join(
            (f"{describe_proof(output.verification)} and published", *output.findings["remarks"], *shared)
        ),
        recipe=request.recipe,
        artifact=artifact,
        report_uri=report_uri,
        verification=output.verification,
        accuracy=output.accuracy,
        quantization=output.quantization,
    )
    return _with_page(store, environ, request, result)


def _share_original(store: Store, request: ConversionRequest, output: ConvertedOutput) -> tuple[str, ...]:
    """Publish the evaluation of the original for the other targets. Return a remark if that fails: they can measure."""
    if output.original is None:
        return ()
    try:
        publish_original(store, request, output.original, output.findings["evaluation"]["calibrating"])
    except Failure as failure:
        announce("shared evaluation failed", reason=str(failure.reason), message=str(failure))
        return (f"the evaluation of the original could not be shared ({failure.reason})",)
    return ()


def _with_page(
    store: Store, environ: Mapping[str, str], request: ConversionRequest, result: ConversionResult
) -> ConversionResult:
    """Write the page of the export anew. The file is published, so the result only tells if that fails."""
    try:
        with _scratch(environ) as folder:
            publish_page(store, request, environ, folder)
    except Failure as failure:
        announce("page failed", reason=str(failure.reason), message=str(failure))
        words = f"{names.PAGE_FILE} could not be written ({failure.reason}); use modelexport report"
        return replace(result, message=f"{result.message}; {words}")
    return result


@contextmanager
def _scratch(environ: Mapping[str, str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="conversion-", dir=environ.get(names.WORK_DIR_ENV)) as folder:
        yield Path(folder)


STEPS: Mapping[str, Step] = {names.FETCH: fetch, names.CONVERT: convert, names.PUBLISH: publish}
