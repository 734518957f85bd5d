"""Converts one model in five stages: load, convert, quantise, inspect, verify.

``backends`` holds the code of each format, ``architectures`` the code of each architecture.
"""

import hashlib
import importlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch.nn import Module

from modelexport.api.quantization import Effort, Quantization
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.result import Verification
from modelexport.api.rungs import QuantizationResult
from modelexport.api.spec import Evaluation, Model
from modelexport.logs import announce
from modelexport.matrix.support import ARCHITECTURES, BACKENDS, Recipe, Task, lookup
from modelexport.text import clean
from modelexport_converter.backends import Array, Backend, FileContents, Run, load_backend, load_input_adapter
from modelexport_converter.backends.activation_ranges import CalibrationMemo
from modelexport_converter.backends.unsupported_operators import name_unsupported_operator
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.checkpoints.state_dict import check_program_parameters
from modelexport_converter.compute_device import compute_device
from modelexport_converter.evaluation import gate
from modelexport_converter.evaluation.classes import MatchedImages, match_images
from modelexport_converter.evaluation.opening import EvaluationSet, open_evaluation
from modelexport_converter.evaluation.record_files import Expected, read_records, read_shared, write_records
from modelexport_converter.evaluation.records import Records
from modelexport_converter.failures import Failure
from modelexport_converter.file_input import check_options, verified_sizes
from modelexport_converter.inputs.fetched_inputs import FetchedInputs
from modelexport_converter.inputs.image_selection import VERIFICATION_COUNT, Dataset, open_dataset
from modelexport_converter.inputs.images import PreparedImages
from modelexport_converter.model import LoadedModel, open_sizes
from modelexport_converter.norm_statistics import ENOUGH_IMAGES, Deviation, Fit, measure
from modelexport_converter.publishing.converted_output import write_draft
from modelexport_converter.publishing.original import FILE_LIMIT, HANDED_OVER
from modelexport_converter.publishing.packing import pack
from modelexport_converter.publishing.report import (
    IMAGE_READER,
    LAYER_LIMIT,
    REMARK_LIMIT,
    REMARKS,
    describe_model,
    tool_versions,
)
from modelexport_converter.recovery import Candidate, Recovered, climb
from modelexport_converter.runtime.artifact_cache import ArtifactCache
from modelexport_converter.runtime.outcome import library_errors
from modelexport_converter.runtime.progress import Stages
from modelexport_converter.runtime.stopwatch import Stopwatch
from modelexport_converter.verification.agreement import Comparison, check, compare, require_informative, run_model
from modelexport_converter.verification.architecture_check import check_network
from modelexport_converter.verification.inspection import check_facts
from modelexport_converter.verification.reference_outputs import ReferenceOutputs

_MEASURING = ("torch", "torchvision", IMAGE_READER, "pycocotools")
"""The packages that run the original and measure it; torchvision suppresses boxes and pastes masks."""
FLOAT_LAYERS = (
    "{} layers stay in float; if the hardware computes in 8 bits only, set spec.quantization.maxFloatLayers: 0"
)


@dataclass(frozen=True)
class Conversion:
    """One conversion: its request, its inputs, and the folders that it may write to.

    ``folder`` is private scratch space, ``outputs`` receives the files to publish, and ``cache`` holds converted files
    that several targets of an export start from. ``deadline`` is in seconds from the start of its first step.
    """

    request: ConversionRequest
    inputs: FetchedInputs
    dataset: Dataset
    labelled: EvaluationSet | None
    folder: Path
    outputs: Path
    cache: ArtifactCache
    stages: Stages
    deadline: float = math.inf

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
        backend, loaded = load_backend(request.target.format), load_model(work)
        outputs = open_reference_outputs(work, loaded)
        model = check_model(work, loaded, outputs)
        if request.options.nms:
            # It imports torchvision and so torch._dynamo, which takes seconds.
            from modelexport_converter.architectures.suppression import suppress_boxes

            model = suppress_boxes(model, request.target.format)
            outputs = open_reference_outputs(work, model, nms=request.target.format)
        check_options(model := replace(model, options=request.options))
        if request.options.dynamic_size:
            open_sizes(model.module)
        matched = match_images(work.labelled, model, work.task) if work.labelled else None
    with stage("convert"):
        converted = convert(work, backend, network_of(work, model))
    cell = _Cell(work, backend, model, converted, outputs, matched, start_memo(work, model))
    found = cell.recover()
    measured, quantization = found.measured, found.result if cell.recovers else None
    verification = measured.require_kept(request.evaluation, quantization)
    pack(found.candidate.path, work.outputs / request.artifact_name)
    comparison, evaluated = measured.comparison, measured.evaluated
    layers = found.candidate.float_layers
    findings: dict[str, Any] = {
        "agreements": dict(comparison.agreements),
        "floatLayers": [clean(name, LAYER_LIMIT) for name in layers],
        "floatLayerShares": [round(share, 6) for share in layers.values()],
        "images": {
            **work.dataset.describe(),
            "verified": comparison.images,
            "withEvidence": comparison.informative,
        },
        "remarks": tuple(
            clean(remark, REMARK_LIMIT)
            for remark in (
                *([FLOAT_LAYERS.format(len(layers))] if layers else []),
                *(evaluated.remarks(quantization) if evaluated else ()),
                *remarks(work.dataset, model, comparison),
            )
        )[:REMARKS],
        "model": describe_model(model, measured.facts),
        **({"evaluation": evaluated.section} if evaluated else {}),
        "latency": comparison.latency,
        "device": compute_device().type,
        "samples": comparison.samples,
    }
    accuracy = evaluated.judgement.accuracy if evaluated else None
    write_draft(work.outputs, verification, accuracy, work.stages.effort(), findings, quantization=quantization)


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


def open_reference_outputs(work: Conversion, model: LoadedModel, **more: object) -> ReferenceOutputs:
    """Return the outputs of the original that this machine has, of what ``more`` describes of the network."""
    key = _digest(work, ("torch", "torchvision"), weights=model.weights, **more)
    return ReferenceOutputs(work.cache.root / f"{key}.outputs", is_shared=work.cache.is_shared)


def start_memo(work: Conversion, model: LoadedModel) -> CalibrationMemo:
    """Return the memo of a calibration, whose longest part the formats of a local run share."""
    if not work.cache.is_shared:
        return CalibrationMemo()
    options, images = work.request.options, sorted(digest.hex() for digest in work.dataset.calibrating)
    network = {"nms": work.request.target.format if options.nms else None, "dynamicSize": options.dynamic_size}
    key = _digest(work, ("torch", IMAGE_READER), weights=model.weights, calibrating=images, **network)
    return CalibrationMemo(partial(work.cache.provide, f"{key}.ranges"))


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
        fit_of=partial(_measure_fit, work, model, outputs),
    )


def _measure_fit(
    work: Conversion, model: LoadedModel, outputs: ReferenceOutputs, network: Module, images: Sequence[Array]
) -> Fit | None:
    """Return the fit of the network to images, from the cache if another target of the export measured it already."""
    key = _digest(
        work, ("torch",), weights=model.weights, fit=[hashlib.sha256(one.tobytes()).hexdigest() for one in images]
    )

    def write(path: Path) -> None:
        fit = measure(network, images, outputs.keep)
        path.write_text(json.dumps(fit and asdict(fit)), encoding="utf-8")

    path, _ = work.cache.provide(f"{key}.fit", write)
    found = json.loads(path.read_text(encoding="utf-8"))
    return found and Fit(tuple(Deviation(**one) for one in found["deviations"]), found["images"])


def convert(work: Conversion, backend: Backend, model: LoadedModel) -> Path:
    """Return the file before quantisation, from the cache if another target of the export converted it already."""
    base = _base(work.request)

    def write(model: LoadedModel, path: Path) -> None:
        backend.convert(model, base, path)

    with library_errors("convert the model"), name_unsupported_operator(model, write, f"part{_suffix(work.request)}"):
        request, options = work.request, model.options
        more = {"options": options.to_dict()} if options else {}
        tools = lookup(request.model.architecture, request.target).tools
        key = f"{_digest(work, tools, format=request.target.format, scheme=_base(request), **more)}{_suffix(request)}"
        path, made = work.cache.provide(key, partial(write, model))
    announce("converted file", scheme=base, made=made)
    return path


def _base(request: ConversionRequest) -> Recipe:
    return BACKENDS[request.target.format].base(request.recipe)


def _digest(work: Conversion, tools: Sequence[str], **more: object) -> str:
    """Return the digest of the original model, of the tools' versions and of what else there is (64 hex digits)."""
    content = {
        "checkpoint": work.inputs.sources.checkpoint,
        "architecture": work.request.model.architecture,
        "parameters": asdict(work.request.model.parameters),
        "versions": tool_versions(tools),
        **more,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _suffix(request: ConversionRequest) -> str:
    """Return the suffix by which a library recognises its format; a folder is zipped later."""
    return BACKENDS[request.target.format].suffix.removesuffix(".zip")


@dataclass(frozen=True)
class Evaluated:
    """The accuracy of a file on labelled images, with what the report and the user need to know of it."""

    judgement: gate.Judgement
    section: Mapping[str, Any]
    labelled: EvaluationSet
    matched: MatchedImages
    model: LoadedModel

    def remarks(self, quantization: QuantizationResult | None) -> Sequence[str]:
        """Return remarks for the user."""
        notes = gate.remarks(self.judgement.accuracy, self.matched.matched_by, self.model, quantization)
        return (*notes, *self.labelled.remarks())


@dataclass(frozen=True)
class Measured:
    """What was measured of a produced file.

    ``verification`` is the failure of a file that does not reach the agreement or the fidelity of its cell; such a file
    is not evaluated.
    """

    facts: FileContents
    comparison: Comparison
    verification: Verification | Failure
    evaluated: Evaluated | None

    @property
    def kept(self) -> bool:
        """Whether the file reaches its thresholds and keeps its accuracy."""
        kept = self.evaluated is None or self.evaluated.judgement.accuracy.kept
        return kept and not isinstance(self.verification, Failure)

    @property
    def rank(self) -> tuple[bool, float]:
        """Verified files before others; then by the drop, by fidelity or by agreement."""
        fidelity = self.comparison.fidelity
        if self.evaluated:
            return True, -float(self.evaluated.judgement.accuracy.drop)
        value = float(fidelity.value) if fidelity and fidelity.threshold else self.comparison.value
        return not isinstance(self.verification, Failure), value

    @property
    def reached(self) -> Mapping[str, str]:
        """Agreement, fidelity and drop, as far as they are known."""
        fidelity, evaluated = self.comparison.fidelity, self.evaluated
        return {
            "agreement": f"{self.comparison.value:.6f}",
            **({"fidelity": fidelity.value} if fidelity else {}),
            **({"drop": evaluated.judgement.accuracy.drop} if evaluated else {}),
        }

    def require_kept(self, asked: Evaluation | None, quantization: QuantizationResult | None) -> Verification:
        """Return the verification of a file that may be published.

        Raises:
            Failure: ``VerificationFailed`` or ``AccuracyLost``, with what was tried.
        """
        if isinstance(self.verification, Failure):
            failed = self.verification
            tried = f"; {quantization.describe()}" if quantization else ""
            raise Failure(failed.reason, f"{failed}{tried}", failed.verification, quantization=quantization)
        if asked and self.evaluated:
            gate.require_kept(asked, self.evaluated.judgement.accuracy, self.verification, quantization)
        return self.verification


@dataclass(frozen=True)
class _Cell:
    """The last stages of a conversion, which are repeated for each rung; ``memo`` holds what all rungs share."""

    work: Conversion
    backend: Backend
    model: LoadedModel
    converted: Path
    outputs: ReferenceOutputs
    matched: MatchedImages | None
    memo: CalibrationMemo

    @property
    def recovers(self) -> bool:
        """Whether layers of the file may stay in float."""
        return self.work.request.recipe.takes_float_layers

    def recover(self) -> Recovered[Measured]:
        """Return the file, after as many rungs as it takes; a recipe without layers in float has one."""
        work = self.work
        asked = work.request.quantization if self.recovers else Quantization(Effort.RANGES)
        return climb(asked, self.quantise, self.measure, lambda: work.deadline - work.stages.effort().total)

    def quantise(self, max_float_layers: int) -> Candidate:
        """Return the file in the requested recipe; it is the converted one if that is its recipe."""
        work, recipe = self.work, self.work.request.recipe
        produced = work.folder / f"produced-{max_float_layers}{_suffix(work.request)}"
        images = PreparedImages(work.dataset.calibration, self.model.preprocessing, self.model.input_size)
        with work.stages.stage("quantise"):
            if not BACKENDS[work.request.target.format].quantises(recipe):
                return Candidate(adapt_input(work, self.model, self.converted), {}, 1.0)
            with library_errors(f"quantise the model by {recipe}"):
                layers = self.backend.quantise(
                    network_of(self.work, self.model),
                    self.converted,
                    recipe,
                    images,
                    produced,
                    max_float_layers=max_float_layers,
                    memo=self.memo,
                )
            adapted = adapt_input(work, self.model, produced)
        return Candidate(adapted, layers, _bytes(produced) / _bytes(self.converted))

    def measure(self, candidate: Candidate) -> Measured:
        """Inspect, verify and evaluate a file.

        Raises:
            Failure: it is not what was requested, or cannot be run.
        """
        work, stage, produced = self.work, self.work.stages.stage, candidate.path
        with stage("inspect"):
            facts = inspect(work, self.backend, self.model, candidate)
        with stage("verify"):
            comparison = run_both(work, self.backend, self.model, produced, self._original)
            if work.dataset.is_own:
                require_informative(comparison)
            try:
                verification = check(comparison, work.request.threshold)
            except Failure as failure:
                return Measured(facts, comparison, failure, None)
        if self.matched is None:
            return Measured(facts, comparison, verification, None)
        with stage("evaluate"):
            run_file = self.backend.open_file(self.model, produced)
            evaluated = evaluate(work, self.model, run_file, self.matched, self._original_records)
        return Measured(facts, comparison, verification, evaluated)

    def _original(self, image: Array) -> tuple[Array, ...]:
        return self.outputs.of(self.model, image, again=self.recovers)

    @cached_property
    def _original_records(self) -> Records:
        assert self.matched is not None
        return _measure_original(self.work, self.model, self.matched)


def _bytes(path: Path) -> int:
    """Return the size of a file, or of the files in a folder."""
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file()) if path.is_dir() else path.stat().st_size


def network_of(work: Conversion, model: LoadedModel) -> LoadedModel:
    """Return the model with the options that concern the network; the others change the input of a finished file."""
    return replace(model, options=model.options.of_network(work.request.target.format))


def adapt_input(work: Conversion, model: LoadedModel, produced: Path) -> Path:
    """Return the file with the input that the options ask for; the values inside it stay the same."""
    if model.options == network_of(work, model).options:
        return produced
    path = work.folder / f"adapted-{produced.stem}{_suffix(work.request)}"
    with library_errors("change the input of the file"):
        load_input_adapter(work.request.target.format)(model, produced, path)
    return path


def inspect(work: Conversion, backend: Backend, model: LoadedModel, candidate: Candidate) -> FileContents:
    """Read back the contents of the produced file, and refuse it if they do not match the request."""
    with library_errors("read the produced file", Reason.INSPECTION_FAILED):
        facts = backend.inspect(candidate.path)
    check_facts(facts, model, work.request.recipe, float_layers=bool(candidate.float_layers))
    return facts


def run_both(work: Conversion, backend: Backend, model: LoadedModel, produced: Path, original: Run) -> Comparison:
    """Run the produced file and the original model on the same images and compare their outputs."""
    stride = model.metadata.get("stride", ARCHITECTURES[work.request.model.architecture].stride)
    sizes, chosen = verified_sizes(model, int(stride)), work.dataset.verification
    chosen = chosen if len(chosen) >= len(sizes) else chosen * len(sizes)  # a single image has all sizes
    images = PreparedImages(chosen, model.preprocessing, *sizes)
    with library_errors("run the produced file", Reason.VERIFICATION_FAILED):
        run_file = Stopwatch(backend.open_file(model, produced))
        cell = lookup(work.request.model.architecture, work.request.target)
        comparison = compare(
            model,
            run_file,
            images,
            original=original,
            first=VERIFICATION_COUNT,
            enough=work.request.threshold.minimum,
            least_fidelity=(cell.fidelity or 0.0) if work.dataset.is_own else None,
        )
    if not (cell.backend.has_runtime and run_file.counted):
        return comparison
    return replace(comparison, latency={"seconds": round(run_file.median(), 6), "images": run_file.counted})


def evaluate(
    work: Conversion, model: LoadedModel, run_file: Run, matched: MatchedImages, original: Records
) -> Evaluated:
    """Measure the produced file on the labelled images, and compare it with the records of the original."""
    asked, labelled = work.request.evaluation, work.labelled
    assert asked is not None
    assert labelled is not None
    with library_errors("run the produced file", Reason.VERIFICATION_FAILED):
        file = gate.measure(model, run_file, matched, work.task)
    judgement = gate.judge(asked, work.task, original, file)
    section = gate.describe(asked, labelled, matched, judgement, model)
    return Evaluated(judgement, section, labelled, matched, model)


def _measure_original(work: Conversion, model: LoadedModel, matched: MatchedImages) -> Records:
    """Return the records of the original: of another conversion of the export, through its store or this machine.

    Whoever measured them hands them over to the step that publishes.
    """
    assert work.labelled is not None
    kind, sigmas = str(work.labelled.labels.kind), matched.sigmas
    about = {"labelled": work.inputs.sources.evaluation, "images": matched.digest, "labels": kind, "sigmas": sigmas}
    more = {"nms": "afterwards" if model.suppression else True} if work.request.options.nms else {}
    key = _digest(work, _MEASURING, **about, **more, weights=model.weights)
    expected = Expected(key, len(matched.images), len(model.class_names))
    paths = [work.inputs.folder / name for name in work.request.original_files]
    if (shared := read_shared(paths, expected)) is not None:
        return shared
    measured: list[Records] = []

    def write(path: Path) -> None:
        measured.append(gate.measure(model, partial(run_model, model), matched, work.task))
        write_records(path, measured[0], expected.key)

    path, made = work.cache.provide(f"{expected.key}.records", write)
    announce("evaluated original", made=made)
    if not made:
        return read_records(path, expected, path.stat().st_size)
    if expected.serves(measured[0]) and path.stat().st_size <= FILE_LIMIT:
        shutil.copyfile(path, work.outputs / HANDED_OVER)
    return measured[0]
