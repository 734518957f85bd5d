"""Converts one model in five stages: load, convert, quantise, inspect, verify.

``backends`` holds the code of each format, ``architectures`` the code of each architecture.
"""

import hashlib
import importlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.result import Accuracy, Verification
from modelexport.api.spec import Model
from modelexport.logs import announce
from modelexport.matrix.support import ARCHITECTURES, BACKENDS, Recipe, Task, lookup
from modelexport.text import clean
from modelexport_converter.backends import Backend, FileContents, Run, load_backend
from modelexport_converter.backends.unsupported_operators import name_unsupported_operator
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.checkpoints.state_dict import check_program_parameters
from modelexport_converter.evaluation import gate
from modelexport_converter.evaluation.classes import MatchedImages, match_images
from modelexport_converter.evaluation.opening import EvaluationSet, open_evaluation
from modelexport_converter.evaluation.record_files import Expected, read_records, write_records
from modelexport_converter.evaluation.records import Records
from modelexport_converter.inputs.fetched_inputs import FetchedInputs
from modelexport_converter.inputs.image_selection import VERIFICATION_COUNT, Dataset, open_dataset
from modelexport_converter.inputs.images import PreparedImages
from modelexport_converter.model import LoadedModel
from modelexport_converter.norm_statistics import ENOUGH_IMAGES
from modelexport_converter.publishing.converted_output import write_draft
from modelexport_converter.publishing.original import FILE_LIMIT, HANDED_OVER
from modelexport_converter.publishing.packing import pack
from modelexport_converter.publishing.report import (
    LAYER_LIMIT,
    REMARK_LIMIT,
    REMARKS,
    describe_model,
    tool_versions,
)
from modelexport_converter.runtime.artifact_cache import ArtifactCache
from modelexport_converter.runtime.outcome import library_errors
from modelexport_converter.runtime.progress import Stages
from modelexport_converter.runtime.stopwatch import Stopwatch
from modelexport_converter.verification.agreement import Comparison, check, compare, require_informative, run_model
from modelexport_converter.verification.architecture_check import check_network
from modelexport_converter.verification.inspection import check_facts
from modelexport_converter.verification.reference_outputs import ReferenceOutputs


@dataclass(frozen=True)
class Conversion:
    """One conversion: its request, its inputs, and the folders that it may write to.

    ``folder`` is private scratch space, ``outputs`` receives the files to publish, and ``cache`` holds converted files
    that several targets of an export start from.
    """

    request: ConversionRequest
    inputs: FetchedInputs
    dataset: Dataset
    labelled: EvaluationSet | None
    folder: Path
    outputs: Path
    cache: ArtifactCache
    stages: Stages

    @property
    def task(self) -> Task:
        """The task of the model."""
        return ARCHITECTURES[self.request.model.architecture].task


def open_images(request: ConversionRequest, inputs: FetchedInputs) -> Dataset:
    """Open the images of a request and select some, before anything is converted.

    Raises:
        Failure: ``CalibrationInvalid`` or ``CalibrationTooLarge`` if the images cannot be used.
    """
    calibrates = request.recipe.needs_calibration
    return open_dataset(request.calibration, inputs.images, inputs.folder, calibrates=calibrates)


def open_labelled(request: ConversionRequest, inputs: FetchedInputs, dataset: Dataset) -> EvaluationSet | None:
    """Open the labelled images of a request; those that calibrate are left out.

    Raises:
        Failure: ``EvaluationInvalid`` if they cannot be used.
    """
    if request.evaluation is None or inputs.labelled is None:
        return None
    task = ARCHITECTURES[request.model.architecture].task
    return open_evaluation(request.evaluation, inputs.labelled, inputs.folder, task, dataset.calibrating)


def run(work: Conversion) -> None:
    """Convert and verify the requested file, and write it and a draft of its report to ``work.outputs``.

    Raises:
        Failure: with the reason that the user sees.
    """
    request, stage = work.request, work.stages.stage
    with stage("load"):
        outputs = ReferenceOutputs(work.folder / "reference-outputs")
        backend, model = load_backend(request.target.format), check_model(work, load_model(work), outputs)
        matched = match_images(work.labelled, model, work.task) if work.labelled else None
    with stage("convert"):
        converted = convert(work, backend, model)
    with stage("quantise"):
        produced, float_layers = quantise(work, backend, model, converted)
    with stage("inspect"):
        facts = inspect(work, backend, model, produced)
    with stage("verify"):
        comparison = run_both(work, backend, model, produced, outputs)
        if work.dataset.is_own:
            require_informative(comparison)
        verification = check(comparison, request.threshold)
    evaluated = None
    if matched:
        evaluated = evaluate(work, model, backend.open_file(model, produced), matched, verification)
    pack(produced, work.outputs / request.artifact_name)
    findings: dict[str, Any] = {
        "agreements": dict(comparison.agreements),
        "floatLayers": tuple(clean(name, LAYER_LIMIT) for name in float_layers),
        "images": {
            **work.dataset.describe(),
            "verified": comparison.images,
            "withEvidence": comparison.informative,
        },
        "remarks": tuple(
            clean(remark, REMARK_LIMIT)
            for remark in (*(evaluated.remarks if evaluated else ()), *remarks(work.dataset, model, comparison))
        )[:REMARKS],
        "model": describe_model(model, facts),
        **({"evaluation": evaluated.section} if evaluated else {}),
        "latency": comparison.latency,
        "samples": comparison.samples,
    }
    accuracy = evaluated.accuracy if evaluated else None
    write_draft(work.outputs, verification, accuracy, work.stages.effort(), findings)


def remarks(dataset: Dataset, model: LoadedModel, comparison: Comparison) -> Iterator[str]:
    """Yield warnings about the model and the images that a user should read although the file is published."""
    for warning in comparison.warnings:
        yield f"warning: {warning}"
    if dataset.unreadable:
        yield dataset.remark()
    if model.preprocessing.has_alpha and dataset.opaque:
        yield f"{dataset.opaque} of the images have no alpha and count as opaque"
    if not comparison.informative:
        found = f"{comparison.uninformative_reason} (they are {comparison.images} built-in ones, which prove little)"
        yield f"{found}: provide images of the model's domain in spec.calibration"


def load_model(work: Conversion) -> LoadedModel:
    """Read the checkpoint and build the model that the request describes."""
    return _load(work, work.request.model)


def _load(work: Conversion, model: Model) -> LoadedModel:
    architecture = importlib.import_module(ARCHITECTURES[model.architecture].impl)
    checkpoint = read_checkpoint(work.inputs.checkpoint)
    if checkpoint.program is not None:
        check_program_parameters(model.parameters)
    loaded: LoadedModel = architecture.load(checkpoint, model)
    recorded = checkpoint.facts.get("train_metrics")
    return replace(loaded, weights=checkpoint.part, recorded=recorded if isinstance(recorded, Mapping) else {})


def check_model(work: Conversion, model: LoadedModel, outputs: ReferenceOutputs) -> LoadedModel:
    """Refuse a rebuilt network that contradicts its normalisation statistics; add warnings where it is doubtful."""
    dataset = work.dataset

    def prepare(model: LoadedModel) -> PreparedImages:
        return PreparedImages(dataset.verification[:ENOUGH_IMAGES], model.preprocessing, model.input_size)

    return check_network(
        model,
        work.request.model,
        lambda asked: _load(work, asked),
        prepare,
        own=dataset.is_own,
        keep=outputs.keep,
    )


def convert(work: Conversion, backend: Backend, model: LoadedModel) -> Path:
    """Return the file before quantisation, from the cache if another target of the export converted it already."""
    base = _base(work.request)

    def write(model: LoadedModel, path: Path) -> None:
        backend.convert(model, base, path)

    with library_errors("convert the model"), name_unsupported_operator(model, write, f"part{_suffix(work.request)}"):
        path, made = work.cache.provide(_key(work), partial(write, model))
    announce("converted file", scheme=base, made=made)
    return path


def _base(request: ConversionRequest) -> Recipe:
    return BACKENDS[request.target.format].base(request.recipe)


def _key(work: Conversion) -> str:
    """Return the cache key of the converted file: a digest of everything that it is made from."""
    request = work.request
    return f"{_digest(work, format=request.target.format, scheme=_base(request))}{_suffix(request)}"


def _digest(work: Conversion, **more: object) -> str:
    """Return the digest of the original model, of the versions and of what else there is (64 hex digits)."""
    content = {
        "checkpoint": work.inputs.sources.checkpoint,
        "architecture": work.request.model.architecture,
        "parameters": asdict(work.request.model.parameters),
        "versions": tool_versions(),
        **more,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _suffix(request: ConversionRequest) -> str:
    """Return the suffix by which a library recognises its format; a folder is zipped later."""
    return BACKENDS[request.target.format].suffix.removesuffix(".zip")


def quantise(work: Conversion, backend: Backend, model: LoadedModel, converted: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the file in the requested recipe, and the names of the layers that noise keeps in float.

    The file is the converted one if that is its recipe.
    """
    recipe, dataset = work.request.recipe, work.dataset
    if recipe is _base(work.request):
        return converted, ()
    produced = work.folder / f"produced{_suffix(work.request)}"
    with library_errors(f"quantise the model by {recipe}"):
        float_layers = backend.quantise(
            model,
            converted,
            recipe,
            PreparedImages(dataset.calibration, model.preprocessing, model.input_size),
            produced,
            max_float_layers=work.request.max_float_layers,
        )
    return produced, float_layers


def inspect(work: Conversion, backend: Backend, model: LoadedModel, produced: Path) -> FileContents:
    """Read back the contents of the produced file, and refuse it if they do not match the request."""
    with library_errors("read the produced file", Reason.INSPECTION_FAILED):
        facts = backend.inspect(produced)
    check_facts(facts, model, work.request.recipe)
    return facts


def run_both(
    work: Conversion, backend: Backend, model: LoadedModel, produced: Path, outputs: ReferenceOutputs
) -> Comparison:
    """Run the produced file and the original model on the same images and compare their outputs."""
    images = PreparedImages(work.dataset.verification, model.preprocessing, model.input_size)
    with library_errors("run the produced file", Reason.VERIFICATION_FAILED):
        run_file = Stopwatch(backend.open_file(model, produced))
        cell = lookup(work.request.model.architecture, work.request.target)
        comparison = compare(
            model,
            run_file,
            images,
            original=partial(outputs.of, model),
            first=VERIFICATION_COUNT,
            enough=work.request.threshold.minimum,
            least_fidelity=(cell.fidelity or 0.0) if work.dataset.is_own else None,
        )
    if not (cell.backend.has_runtime and run_file.counted):
        return comparison
    return replace(comparison, latency={"seconds": round(run_file.median(), 6), "images": run_file.counted})


@dataclass(frozen=True)
class Evaluated:
    """The accuracy of a file, the section of its report about it, and remarks for the user."""

    accuracy: Accuracy
    section: Mapping[str, Any]
    remarks: tuple[str, ...]


def evaluate(
    work: Conversion, model: LoadedModel, run_file: Run, matched: MatchedImages, verification: Verification
) -> Evaluated:
    """Measure the original and the produced file on the labelled images.

    Raises:
        Failure: ``AccuracyLost``: the file lost more than is allowed.
    """
    asked, labelled = work.request.evaluation, work.labelled
    assert asked is not None
    assert labelled is not None
    with work.stages.stage("evaluate"):
        original = _measure_original(work, model, matched)
        with library_errors("run the produced file", Reason.VERIFICATION_FAILED):
            file = gate.measure(model, run_file, matched, work.task)
        judgement = gate.judge(asked, work.task, original, file)
    gate.require_kept(asked, judgement.accuracy, verification)
    section = gate.describe(asked, labelled, matched, judgement, model)
    notes = gate.remarks(judgement.accuracy, matched.matched_by, model)
    return Evaluated(judgement.accuracy, section, (*notes, *labelled.remarks()))


def _measure_original(work: Conversion, model: LoadedModel, matched: MatchedImages) -> Records:
    """Return the records of the original: of another conversion of the export, through its store or this machine.

    Whoever measured them hands them over to the step that publishes, if they are of all images: the others would
    otherwise stop where the slowest machine ran out of time.
    """
    assert work.labelled is not None
    kind, sigmas = str(work.labelled.labels.kind), matched.sigmas
    about = {"labelled": work.inputs.sources.evaluation, "images": matched.digest, "labels": kind, "sigmas": sigmas}
    about["measured by"] = version("pycocotools")
    expected = Expected(_digest(work, **about, weights=model.weights), len(matched.images), len(model.class_names))
    if (shared := _read_shared(work, expected)) is not None:
        return shared
    measured: list[Records] = []

    def write(path: Path) -> None:
        measured.append(gate.measure(model, partial(run_model, model), matched, work.task))
        write_records(path, measured[0], expected.key)

    path, made = work.cache.provide(f"{expected.key}.records", write)
    announce("evaluated original", made=made)
    if not made:
        return read_records(path, expected)
    if measured[0].count == expected.images and path.stat().st_size <= FILE_LIMIT:
        shutil.copyfile(path, work.outputs / HANDED_OVER)
    return measured[0]


def _read_shared(work: Conversion, expected: Expected) -> Records | None:
    """Return the records in the export's store, unless they are of something else or invalid."""
    for name in names.ORIGINAL_FILES:
        path = work.inputs.folder / name
        if not path.is_file():
            continue
        try:
            found = read_records(path, expected)
            if found.count != expected.images:
                raise ValueError(f"it has {found.count} of {expected.images} images")
        except ValueError as error:
            announce("shared evaluation refused", name=name, message=clean(str(error), REMARK_LIMIT))
        else:
            announce("evaluated original", made=False, shared=name)
            return found
    return None
