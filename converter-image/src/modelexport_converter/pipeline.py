"""The straight line of a conversion: load, convert, quantise, inspect, verify.

What differs between formats is in ``backends``, what differs between architectures in ``architectures``.
"""

import hashlib
import importlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from modelexport.logs import announce
from modelexport.matrix import ARCHITECTURES, BACKENDS, Scheme
from modelexport.reasons import Reason
from modelexport.request import ConversionRequest
from modelexport.spec import Model
from modelexport.text import clean
from modelexport_converter.backends import Backend, Facts, load_backend
from modelexport_converter.calibration import VERIFICATION_COUNT, Dataset, open_dataset
from modelexport_converter.checkpoint import read_checkpoint
from modelexport_converter.culprits import naming_operators
from modelexport_converter.doubts import check_network
from modelexport_converter.handover import write_draft
from modelexport_converter.inspection import check_facts
from modelexport_converter.intake import Intake
from modelexport_converter.matching import check_program_parameters
from modelexport_converter.model import LoadedModel
from modelexport_converter.outcome import library_errors
from modelexport_converter.packing import pack
from modelexport_converter.pictures import Inputs
from modelexport_converter.progress import Stages
from modelexport_converter.report import REMARK_LIMIT, describe_model, tool_versions
from modelexport_converter.shared import SharedFolder
from modelexport_converter.statistics import ENOUGH_PICTURES
from modelexport_converter.verify import Comparison, check, check_evidence, compare


@dataclass(frozen=True)
class Conversion:
    """One conversion: what is asked, what it starts from, and where it may write.

    ``folder`` is its own scratch space, ``outputs`` takes what is to be published; ``shared`` holds converted files,
    from which targets of an export start.
    """

    request: ConversionRequest
    intake: Intake
    dataset: Dataset
    folder: Path
    outputs: Path
    shared: SharedFolder
    stages: Stages


def open_pictures(request: ConversionRequest, intake: Intake) -> Dataset:
    """Open the pictures of a request and choose among them, before anything is converted.

    Raises:
        Failure: ``CalibrationInvalid`` or ``CalibrationTooLarge``, they are not what they should be.
    """
    calibrates = request.scheme.needs_calibration
    return open_dataset(request.calibration, intake.pictures, intake.folder, calibrates=calibrates)


def run(work: Conversion) -> None:
    """Make and prove the file that a request asks for, and leave it with the draft of its report.

    Raises:
        Failure: with the reason that the user is told.
    """
    request, stage = work.request, work.stages.stage
    with stage("load"):
        backend, model = load_backend(request.target.format), check_model(work, load_model(work))
    with stage("convert"):
        converted = convert(work, backend, model)
    with stage("quantise"):
        produced = quantise(work, backend, model, converted)
    with stage("inspect"):
        facts = inspect(work, backend, model, produced)
    with stage("verify"):
        comparison = run_both(work, backend, model, produced)
        if work.dataset.is_own:
            check_evidence(comparison)
        verification = check(comparison, request.threshold)
    pack(produced, work.outputs / request.artifact_name)
    findings = {
        "agreements": dict(comparison.agreements),
        "pictures": {
            **work.dataset.describe(),
            "verified": comparison.pictures,
            "withEvidence": comparison.evidence,
        },
        "remarks": tuple(clean(remark, REMARK_LIMIT) for remark in remarks(work.dataset, model, comparison)),
        "model": describe_model(model, facts),
    }
    write_draft(work.outputs, verification, work.stages.effort(), findings)


def remarks(dataset: Dataset, model: LoadedModel, comparison: Comparison) -> Iterator[str]:
    """What a user should know of the model and the pictures although a file was published, a phrase each."""
    for warning in comparison.warnings:
        yield f"warning: {warning}"
    if dataset.unreadable:
        yield dataset.remark()
    if model.preprocessing.has_alpha and dataset.opaque:
        yield f"{dataset.opaque} of the pictures have no alpha and count as opaque"
    if not comparison.evidence:
        found = f"{comparison.nothing} (they are {comparison.pictures} built-in ones, which prove little)"
        yield f"{found}: name pictures of what the model has learned in spec.calibration"


def load_model(work: Conversion) -> LoadedModel:
    """Read the checkpoint and build the model that the request describes."""
    return _load(work, work.request.model)


def _load(work: Conversion, model: Model) -> LoadedModel:
    architecture = importlib.import_module(ARCHITECTURES[model.architecture].impl)
    checkpoint = read_checkpoint(work.intake.checkpoint)
    if checkpoint.program is not None:
        check_program_parameters(model.parameters)
    loaded: LoadedModel = architecture.load(checkpoint, model)
    return replace(loaded, weights=checkpoint.part)


def check_model(work: Conversion, model: LoadedModel) -> LoadedModel:
    """Refuse a rebuilt network that its statistics of normalisation give away, and note what is doubtful."""
    dataset = work.dataset

    def prepare(model: LoadedModel) -> Inputs:
        return Inputs(dataset.verification[:ENOUGH_PICTURES], model.preprocessing, model.input_size)

    return check_network(model, work.request.model, lambda asked: _load(work, asked), prepare, own=dataset.is_own)


def convert(work: Conversion, backend: Backend, model: LoadedModel) -> Path:
    """Return the file before quantisation, made now or by another conversion of the same export."""
    base = _base(work.request)

    def write(model: LoadedModel, path: Path) -> None:
        backend.convert(model, base, path)

    with library_errors("convert the model"), naming_operators(model, write, f"part{_suffix(work.request)}"):
        path, made = work.shared.provide(_key(work), partial(write, model))
    announce("converted file", scheme=base, made=made)
    return path


def _base(request: ConversionRequest) -> Scheme:
    return BACKENDS[request.target.format].base(request.scheme)


def _key(work: Conversion) -> str:
    """Name the converted file by all that it is made from."""
    request = work.request
    content = {
        "checkpoint": work.intake.sources.checkpoint,
        "architecture": request.model.architecture,
        "parameters": asdict(request.model.parameters),
        "format": request.target.format,
        "scheme": _base(request),
        "versions": tool_versions(),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{digest}{_suffix(request)}"


def _suffix(request: ConversionRequest) -> str:
    """The suffix by which a library knows its format; the archive of a folder is made later."""
    return BACKENDS[request.target.format].suffix.removesuffix(".zip")


def quantise(work: Conversion, backend: Backend, model: LoadedModel, converted: Path) -> Path:
    """Return the file in the scheme of the request; the converted one itself where that is its scheme."""
    scheme, dataset = work.request.scheme, work.dataset
    if scheme is _base(work.request):
        return converted
    produced = work.folder / f"produced{_suffix(work.request)}"
    with library_errors(f"quantise the model by {scheme}"):
        backend.quantise(
            model, converted, scheme, Inputs(dataset.calibration, model.preprocessing, model.input_size), produced
        )
    return produced


def inspect(work: Conversion, backend: Backend, model: LoadedModel, produced: Path) -> Facts:
    """Read back what the produced file holds, and refuse it where that is not what was asked."""
    with library_errors("read the produced file", Reason.INSPECTION_FAILED):
        facts = backend.inspect(produced)
    check_facts(facts, model, work.request.scheme)
    return facts


def run_both(work: Conversion, backend: Backend, model: LoadedModel, produced: Path) -> Comparison:
    """Run the produced file and the model on the same pictures."""
    pictures = Inputs(work.dataset.verification, model.preprocessing, model.input_size)
    with library_errors("run the produced file", Reason.VERIFICATION_FAILED):
        run_file = backend.open_file(model, produced)
        return compare(model, run_file, pictures, first=VERIFICATION_COUNT, enough=work.request.threshold.minimum)
