"""Reads the published files of an export from its status in a cluster, or from the reports of local runs."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from modelexport import names, untrusted
from modelexport.api.result import (
    Accuracy,
    Artifact,
    Verification,
    describe_measured,
    is_file_in,
    read_accuracy,
    read_artifact,
    read_verification,
)
from modelexport.api.rungs import QuantizationResult, read_quantization
from modelexport.errors import BadInput
from modelexport.planning.plan import export_folder
from modelexport.planning.progress import Progress, read_progress

SUCCEEDED = "Succeeded"
MESSAGE_LIMIT = 2048
"""Maximum characters of a message in a status, as in the CRD."""
REPORT_LIMIT = 1 << 24
"""Maximum characters of a report; a model with a thousand classes and as many outputs needs less than 1 % of it."""


@dataclass(frozen=True)
class Published:
    """The state of one target, such as ``LiteRT/INT8``, and its file once it is published.

    ``page_uri`` is the URI of the page about all targets of the export.
    """

    target: str
    state: str
    message: str = ""
    recipe: str = ""
    artifact: Artifact | None = None
    verification: Verification | None = None
    accuracy: Accuracy | None = None
    progress: Progress | None = None
    reason: str = ""
    report_uri: str | None = None
    quantization: QuantizationResult | None = None
    page_uri: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data; the key of ``recipe`` is ``scheme``."""
        return {
            **{"scheme" if name == "recipe" else name: value for name, value in asdict(self).items()},
            **describe_measured(self.verification, self.accuracy, self.quantization),
        }


Reports = tuple[tuple[Published, Mapping[str, Any]], ...]
"""Published targets, each with its report."""


def of_cluster(export: Mapping[str, Any]) -> tuple[Published, ...]:
    """Return the targets in the status of an export.

    Raises:
        BadInput: the operator has not written this status.
    """
    try:
        status = untrusted.record(export.get("status") or {}, "status")
        page = untrusted.uri(status["pageURI"], "pageURI") if status.get("pageURI") else None
        return tuple(_from_status(entry, page) for entry in status.get("targets") or ())
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"the status of the export is invalid: {error}; wait until the operator has rewritten it"
        ) from error


def _from_status(entry: Any, page: str | None) -> Published:
    fields = untrusted.record(entry, "a target")
    state, reason = (_word(fields, key) for key in ("state", "reason"))
    artifact, verification, accuracy, progress = map(fields.get, ("artifact", "verification", "accuracy", "progress"))
    return Published(
        target=_name_target(fields),
        state=state if state == reason else f"{state} ({reason})",
        message=untrusted.text(fields.get("message", ""), "message", MESSAGE_LIMIT),
        recipe=_word(fields, "scheme") if "scheme" in fields else "",
        artifact=None if artifact is None else read_artifact(artifact, size="sizeBytes"),
        verification=None if verification is None else read_verification(verification),
        accuracy=None if accuracy is None else read_accuracy(accuracy),
        progress=None if progress is None else read_progress(progress),
        reason=reason,
        report_uri=untrusted.uri(fields["reportURI"], "reportURI") if fields.get("reportURI") else None,
        quantization=_quantization(fields),
        page_uri=page,
    )


def _quantization(fields: Mapping[str, Any]) -> QuantizationResult | None:
    return None if fields.get("quantization") is None else read_quantization(fields["quantization"])


def _name_target(fields: Mapping[str, Any]) -> str:
    """Return a target as ``str(Target)`` writes it, of this version's formats or of another's."""
    return "/".join(_word(fields, key) for key in ("format", "precision", "name") if key != "name" or fields.get(key))


def _word(fields: Mapping[str, Any], key: str) -> str:
    return untrusted.word(fields.get(key), key)


def reports_of_directory(store: Path, output: str, namespace: str, name: str) -> Reports:
    """Return the targets that local runs of an export published into a directory, each from its latest run.

    Args:
        store: the directory.
        output: URI of the folder for all exports, as for ``plan_export``.
        namespace: namespace of the export.
        name: name of the export.

    Raises:
        BadInput: nothing is published there, or the store is a server.
    """
    if store.parts[:1] in (("http:",), ("https:",)):
        raise BadInput("--store: this command reads directories only; fetch the files of a server with an S3 client")
    uri = export_folder(output.rstrip("/"), namespace, name)
    folder = path_of(store, uri)
    reports = sorted(folder.glob(f"*/{names.REPORT_FILE}"), key=lambda path: path.stat().st_mtime)
    if not reports:
        raise BadInput(f"--store: {folder} has no reports of this export; check --store, --output-uri and --namespace")
    page = f"{uri}{names.PAGE_FILE}" if (folder / names.PAGE_FILE).is_file() else None
    found = (read_report_file(path, f"{uri}{path.parent.name}/") for path in reports)
    return tuple({one.target: (replace(one, page_uri=page), report) for one, report in found}.values())


def path_of(store: Path, uri: str) -> Path:
    """Return the path of ``s3://bucket/key`` in a directory store."""
    return store / uri.removeprefix("s3://")


def read_report_file(path: Path, folder: str) -> tuple[Published, Mapping[str, Any]]:
    """Read a report; its artifact must lie in the same folder.

    Raises:
        BadInput: it is no report.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return read_report_text(file.read(REPORT_LIMIT + 1), folder)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not a valid report ({error}); run the export again") from error


def read_report_text(text: str, folder: str) -> tuple[Published, Mapping[str, Any]]:
    """Read the text of a report; its artifact must lie in ``folder``, a URI that ends with a slash.

    Raises:
        ValueError: it is no report.
    """
    report = untrusted.load(text, REPORT_LIMIT)
    target = untrusted.record(untrusted.record(report.get("request"), "request").get("target"), "request.target")
    artifact = read_artifact(report.get("artifact"), size="sizeBytes")
    if not is_file_in(artifact.uri, folder):
        raise ValueError(f"{artifact.uri!r} is not in {folder}")
    published = Published(
        target=_name_target(target),
        state=SUCCEEDED,
        reason=SUCCEEDED,
        recipe=_word(report, "scheme"),
        artifact=artifact,
        verification=read_verification(report.get("verification")),
        accuracy=read_accuracy(report["accuracy"]) if "accuracy" in report else None,
        report_uri=f"{folder}{names.REPORT_FILE}",
        quantization=_quantization(report),
    )
    return published, report


def choose(found: Iterable[Published], wanted: str | None) -> tuple[Published, ...]:
    """Return all published targets, or the target ``wanted``: ``LiteRT/INT8`` or ``INT8/LiteRT``, in any case.

    Raises:
        BadInput: nothing is published, or the wanted target is not; with its state.
    """
    targets = tuple(found)
    if wanted is None:
        published = tuple(one for one in targets if one.artifact)
        if not published:
            states = "; ".join(f"{one.target} is {one.state}" for one in targets) or "it has no targets yet"
            raise BadInput(f"nothing is published yet: {states}")
        return published
    words = sorted(wanted.lower().split("/"))
    chosen = next((one for one in targets if sorted(one.target.lower().split("/")) == words), None)
    if chosen is None:
        known = ", ".join(one.target for one in targets) or "none"
        raise BadInput(f"--target: {wanted!r} is not a target of this export; use one of {known}")
    if chosen.artifact is None:
        raise BadInput(f"--target: {chosen.target} is not published: {chosen.state}: {chosen.message}".rstrip(": "))
    return (chosen,)
