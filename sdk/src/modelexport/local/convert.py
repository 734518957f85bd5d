"""Converts a checkpoint on this machine, from a path to files in a folder."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from modelexport import names
from modelexport.api.fields import InvalidSpec
from modelexport.api.quantization import Effort, Quantization
from modelexport.api.request import ConversionRequest
from modelexport.api.result import Artifact, ConversionResult
from modelexport.api.spec import DEFAULT_DROP, DEFAULT_SAMPLES
from modelexport.console import open_console
from modelexport.errors import BadInput, ModelExportError
from modelexport.local.conversions import Conversion
from modelexport.local.draft import Draft, draft_export
from modelexport.local.page import write_run_page
from modelexport.local.run import DEFAULT_OUTPUT, DEFAULT_STORE, choose_jobs, make_conversions, prepare_store, run_all
from modelexport.matrix.support import Target
from modelexport.planning.plan import plan_export


@dataclass(frozen=True)
class Converted:
    """The outcome of one target.

    Attributes:
        target: format and precision.
        result: reason, message, digest, verification, seconds and memory.
        file: the file, if the conversion succeeded.
        report: its ``report.json``, likewise.
        log: the log of the converter, if the conversion failed.
    """

    target: Target
    result: ConversionResult
    file: Path | None = None
    report: Path | None = None
    log: Path | None = None

    @property
    def succeeded(self) -> bool:
        """Whether there is a file."""
        return self.file is not None

    def check(self) -> Path:
        """Return the file.

        Raises:
            ModelExportError: the conversion failed; with its reason and the way out.
        """
        if self.file is None:
            advice = self.result.reason.policy.advice
            raise ModelExportError(f"{self.target}: {self.result.message}; {advice}", reason=self.result.reason)
        return self.file


def convert(
    checkpoint: str | Path,
    to: str | Target | Sequence[str | Target] = (),
    *,
    calibration: str | Path | None = None,
    samples: int = DEFAULT_SAMPLES,
    evaluate: str | Path | None = None,
    max_drop: float = float(DEFAULT_DROP),
    effort: str | Effort | None = None,
    max_float_layers: int | None = None,
    architecture: str | None = None,
    input_size: tuple[int, int] | None = None,
    name: str | None = None,
    extended: bool = False,
    output: str | Path | None = None,
    store: str | Path = DEFAULT_STORE,
    jobs: int | None = None,
    progress: bool = True,
) -> tuple[Converted, ...]:
    """Convert and verify a checkpoint on this machine, one process per target.

    The folder of the files also gets ``report.html``, a page that shows the answers of each file beside the original's.

    Args:
        checkpoint: a ``.pt``, ``.pth``, ``.safetensors`` or ``.pt2`` file.
        to: targets such as ``LiteRT/INT8`` or, with a name and options, ``ONNX/FP32/server:dynamicBatch=true``; by
            default the usual one of each format.
        calibration: a folder of images, a zip archive of images, or an image: they prove the files, and INT8 is
            calibrated on them.
        samples: the number of images to calibrate on.
        evaluate: labelled images as a folder or zip archive; a file that loses more than ``max_drop`` on them fails.
        max_drop: the accuracy that a file may lose, 0 to 1.
        effort: how far to go for an INT8 file that loses too much: ``Auto``, ``Ranges`` or ``MixedPrecision``.
        max_float_layers: as many layers of it as this may stay in float; by default 16.
        architecture: a row of the support matrix; by default it is found in the checkpoint.
        input_size: (height, width) in pixels; by default that of the training.
        name: name of the export and its files; by default that of the checkpoint.
        extended: whether to allow targets of the support level Extended.
        output: the folder for the files; by default ``NAME-export``.
        store: the folder that keeps what was converted, so that it is not converted again.
        jobs: parallel conversions; by default as many as CPUs and memory allow.
        progress: whether to show progress, as a table in a terminal or a notebook and as lines elsewhere.

    Returns:
        The outcome of each target, in the order of ``to``. A target can fail while others succeed.

    Raises:
        BadInput: an argument is invalid, or the checkpoint is of no known architecture.
        ModelExportError: the conversion was interrupted.
    """
    drafted = draft_export(
        Path(checkpoint),
        to,
        architecture=architecture,
        calibration=None if calibration is None else Path(calibration),
        samples=samples,
        evaluate=None if evaluate is None else Path(evaluate),
        max_drop=max_drop,
        quantization=choose_quantization(effort, max_float_layers),
        input_size=input_size,
        name=name,
        extended=extended,
    )
    console = open_console(error_stream=True) if progress else Console(quiet=True)
    run = start(drafted, None if output is None else Path(output), str(store), jobs)
    if not run.execute(console):
        raise ModelExportError("the conversion was interrupted; run it again to go on")
    converted = run.collect()
    run.write_page()
    if all(one.succeeded for one in converted):
        shutil.rmtree(run.logs)
    return converted


def choose_quantization(effort: str | Effort | None, max_float_layers: int | None) -> Quantization | None:
    """Return what was chosen of ``spec.quantization``; ``None`` if nothing was.

    Raises:
        BadInput: the effort is not known.
    """
    if effort is None and max_float_layers is None:
        return None
    try:
        chosen = Quantization(Effort(effort or Effort.AUTO))
    except ValueError as error:
        known = ", ".join(Effort)
        raise BadInput(f"--effort (effort=): {effort!r} is not known; use one of {known}") from error
    return chosen if max_float_layers is None else replace(chosen, max_float_layers=max_float_layers)


@dataclass(frozen=True)
class ConvertRun:
    """The conversions of one draft, and the folders that they read and write."""

    conversions: Sequence[Conversion]
    output: Path
    store: str
    jobs: int
    logs: Path

    def execute(self, console: Console) -> bool:
        """Run the conversions and return whether the run completed."""
        return run_all(console, self.conversions, self.store, self.jobs)

    def place_of(self, artifact: Artifact) -> str:
        """Return the path of a file in the output folder."""
        return str(self.output / artifact.uri.rpartition("/")[2])

    def collect(self) -> tuple[Converted, ...]:
        """Copy the files and their reports into the output folder and return the outcome of each target.

        Raises:
            BadInput: the folder cannot be written.
        """
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            return tuple(self._collect(conversion) for conversion in self.conversions if conversion.result)
        except OSError as error:
            raise BadInput(f"--output (output=): {self.output}: {error.strerror}; use another folder") from error

    def write_page(self) -> Path | None:
        """Write the page about all targets into the output folder. Return its path; ``None`` if all of them failed.

        Raises:
            BadInput: it cannot be written.
        """
        page = self.output / names.PAGE_FILE
        return page if write_run_page(page, self.conversions, Path(self.store)) else None

    def _collect(self, conversion: Conversion) -> Converted:
        result, target = conversion.result, conversion.request.target
        assert result is not None
        if result.artifact is None or result.report_uri is None:
            return Converted(target, result, log=conversion.log)
        file = self.output / conversion.request.artifact_name
        report = self.output / f"{conversion.request.artifact_name}.{names.REPORT_FILE}"
        for uri, path in ((result.artifact.uri, file), (result.report_uri, report)):
            source = Path(self.store) / uri.removeprefix("s3://")
            # The file appears complete or not at all.
            partial = path.with_name(f".{path.name}.partial")
            shutil.copyfile(source, partial)
            os.replace(partial, path)  # noqa: PTH105 - as short
        return Converted(target, result, file, report)


def start(drafted: Draft, output: Path | None, store: str, jobs: int | None) -> ConvertRun:
    """Return the conversions of a draft, ready to run.

    Raises:
        BadInput: a folder or the number of jobs is invalid, or a target is not Stable.
    """
    if store.startswith(("http://", "https://")):
        raise BadInput("--store: files are converted into a folder; for an S3 server use modelexport run")
    require_folder(output)
    requests = plan(drafted)
    folder = output or Path(f"{drafted.export.name}-export")
    store = prepare_store(store)
    logs = Path(tempfile.mkdtemp(prefix="modelexport-logs-"))
    return ConvertRun(make_conversions(requests, logs), folder, store, choose_jobs(jobs, requests), logs)


def plan(drafted: Draft) -> Sequence[ConversionRequest]:
    """Return the conversions of a draft.

    Raises:
        BadInput: a target is not Stable.
    """
    try:
        return plan_export(drafted.export, DEFAULT_OUTPUT)
    except InvalidSpec as error:
        raise BadInput.from_spec(error) from error


def require_folder(output: Path | None) -> None:
    """Check that the output is no file, before hours of work.

    Raises:
        BadInput: it is.
    """
    if output is not None and output.exists() and not output.is_dir():
        raise BadInput(f"--output: {output} is a file; name a folder")
