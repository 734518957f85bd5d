"""What an export published: told by its status on a cluster, or by the reports in the directory of a local run."""

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from modelexport import names
from modelexport.cli.documents import BadInput
from modelexport.cli.kubectl import Body, Kubectl
from modelexport.cli.run import DEFAULT_OUTPUT
from modelexport.plan import export_folder
from modelexport.result import Artifact, Verification

EXPORTS = f"{names.EXPORT_PLURAL}.{names.GROUP}"
SUCCEEDED = "Succeeded"


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
    """Return the targets in the status of an export."""
    return tuple(map(_from_status, export.get("status", {}).get("targets") or ()))


def _from_status(entry: Body) -> Published:
    artifact, verification = entry.get("artifact"), entry.get("verification")
    state, reason = entry["state"], entry.get("reason", "")
    return Published(
        target=f"{entry['format']}/{entry['precision']}",
        state=state if state == reason else f"{state} ({reason})",
        message=entry.get("message", ""),
        scheme=entry.get("scheme", ""),
        artifact=artifact and Artifact(artifact["uri"], artifact["sha256"], artifact["sizeBytes"]),
        verification=verification and Verification.from_dict(verification),
    )


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
    return tuple({found.target: found for found in map(_from_report, reports)}.values())


def path_of(store: Path, uri: str) -> Path:
    """Return the file of ``s3://bucket/key`` in a directory store."""
    return store / uri.removeprefix("s3://")


def _from_report(path: Path) -> Published:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        artifact, target = report["artifact"], report["request"]["target"]
        return Published(
            target=f"{target['format']}/{target['precision']}",
            state=SUCCEEDED,
            scheme=report["scheme"],
            artifact=Artifact(artifact["uri"], artifact["sha256"], artifact["sizeBytes"]),
            verification=Verification.from_dict(report["verification"]),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path} is no report of this version ({error!r}); run the export again") from error


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
