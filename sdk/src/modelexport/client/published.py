"""What an export published: told by its status on a cluster, or by the reports in the directory of a local run."""

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelexport import names, untrusted
from modelexport.cli.documents import BadInput
from modelexport.cli.kubectl import Body, Kubectl
from modelexport.cli.run import DEFAULT_OUTPUT
from modelexport.plan import export_folder
from modelexport.result import Artifact, Verification, is_file_in, read_artifact, read_verification

EXPORTS = f"{names.EXPORT_PLURAL}.{names.GROUP}"
SUCCEEDED = "Succeeded"
MESSAGE_LIMIT = 2048
"""Characters of a message of a status, as the definition has it."""
REPORT_LIMIT = 1 << 24
"""Characters of a report; one of a model with a thousand classes and as many outputs has less than a hundredth."""


@dataclass(frozen=True)
class Published:
    """One target of an export, and its file once that is published. ``target`` is written as ``LiteRT/INT8``."""

    target: str
    state: str
    message: str = ""
    scheme: str = ""
    artifact: Artifact | None = None
    verification: Verification | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which export is meant, and where it is."""
    parser.add_argument("name", metavar="NAME", help="name of the ModelExport")
    parser.add_argument("-n", "--namespace", help="default: that of the kubeconfig's context; locally: default")
    parser.add_argument("--kubeconfig", metavar="FILE", help="as for kubectl")
    parser.add_argument("--context", metavar="NAME", help="as for kubectl")
    parser.add_argument("--store", type=Path, metavar="DIR", help="the directory of a local run, in a cluster's place")
    parser.add_argument(
        "--output-uri", default=DEFAULT_OUTPUT, metavar="URI", help=f"of the local run; default: {DEFAULT_OUTPUT}"
    )


def choose_kubectl(options: argparse.Namespace) -> Kubectl:
    """Return kubectl with the user's choice of cluster and namespace."""
    chosen = ((name, getattr(options, name)) for name in ("kubeconfig", "context", "namespace"))
    return Kubectl(tuple(f"--{name}={value}" for name, value in chosen if value))


def read_export(kubectl: Kubectl, name: str) -> Body:
    """Return a ModelExport of the cluster.

    Raises:
        BadInput: there is none of this name, or the user may not see it.
    """
    return kubectl.read(EXPORTS, name)


def of_cluster(export: Body) -> tuple[Published, ...]:
    """Return the targets in the status of an export.

    Raises:
        BadInput: the status is none that the operator has written.
    """
    try:
        status = untrusted.record(export.get("status") or {}, "status")
        return tuple(map(_from_status, status.get("targets") or ()))
    except (TypeError, ValueError) as error:
        raise BadInput(f"the status of the export cannot be read: {error}; the operator writes it anew") from error


def _from_status(entry: Any) -> Published:
    fields = untrusted.record(entry, "a target")
    state, reason = (_word(fields, key) for key in ("state", "reason"))
    artifact, verification = fields.get("artifact"), fields.get("verification")
    return Published(
        target=f"{_word(fields, 'format')}/{_word(fields, 'precision')}",
        state=state if state == reason else f"{state} ({reason})",
        message=untrusted.text(fields.get("message", ""), "message", MESSAGE_LIMIT),
        scheme=_word(fields, "scheme") if "scheme" in fields else "",
        artifact=None if artifact is None else read_artifact(artifact, size="sizeBytes"),
        verification=None if verification is None else read_verification(verification),
    )


def _word(fields: Mapping[str, Any], key: str) -> str:
    return untrusted.word(fields.get(key), key)


def of_directory(options: argparse.Namespace) -> tuple[Published, ...]:
    """Return what local runs of an export published into a directory; of a target, what came last.

    Raises:
        BadInput: nothing is there, or the store is a server.
    """
    if options.store.parts[:1] in (("http:",), ("https:",)):
        raise BadInput("--store: get and download read a directory, no server; fetch its files with a client of S3")
    uri = export_folder(options.output_uri.rstrip("/"), options.namespace or "default", options.name)
    folder = path_of(options.store, uri)
    reports = sorted(folder.glob(f"*/{names.REPORT_FILE}"), key=lambda path: path.stat().st_mtime)
    if not reports:
        raise BadInput(f"--store: {folder} holds no report of an export; name the --store of the run, and --namespace")
    found = (_from_report(path, f"{uri}{path.parent.name}/") for path in reports)
    return tuple({one.target: one for one in found}.values())


def path_of(store: Path, uri: str) -> Path:
    """Return the file of ``s3://bucket/key`` in a directory store."""
    return store / uri.removeprefix("s3://")


def _from_report(path: Path, folder: str) -> Published:
    """Read the report in a folder; the file that it tells of has to lie beside it."""
    try:
        with path.open(encoding="utf-8") as file:
            report = untrusted.load(file.read(REPORT_LIMIT + 1), REPORT_LIMIT)
        target = untrusted.record(untrusted.record(report.get("request"), "request").get("target"), "request.target")
        artifact = read_artifact(report.get("artifact"), size="sizeBytes")
        if not is_file_in(artifact.uri, folder):
            raise ValueError(f"{artifact.uri!r} is not in {folder}")
        return Published(
            target=f"{_word(target, 'format')}/{_word(target, 'precision')}",
            state=SUCCEEDED,
            scheme=_word(report, "scheme"),
            artifact=artifact,
            verification=read_verification(report.get("verification")),
        )
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is no report of this version ({error}); run the export again") from error


def choose(found: Iterable[Published], wanted: str | None) -> tuple[Published, ...]:
    """Return the published targets, or the one that is wanted: ``LiteRT/INT8`` or ``INT8/LiteRT``, in any case.

    Raises:
        BadInput: nothing is published, or the target is not; with its reason.
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
        raise BadInput(f"--target: {wanted!r} is no target of this export; it has {known}")
    if chosen.artifact is None:
        raise BadInput(f"--target: {chosen.target} is not published: {chosen.state}: {chosen.message}".rstrip(": "))
    return (chosen,)
