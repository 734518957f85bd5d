"""``modelexport validate``: check files as the operator would, without a cluster."""

import argparse
from pathlib import Path
from typing import Any

from modelexport.cli.documents import BadInput, Document, check_class, parse_document, read_documents
from modelexport.fields import InvalidSpec
from modelexport.names import CLASS_KIND, EXPORT_KIND
from modelexport.plan import check_support
from modelexport.spec import ModelExport
from modelexport.text import clean


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "validate",
        help="check files before they are applied",
        description="Check every ModelExport and ExportClass of a YAML file against the API and the support matrix.",
        epilog="example: modelexport validate export.yaml",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="YAML file with one or more objects")
    parser.set_defaults(command=validate)


def validate(options: argparse.Namespace) -> int:
    """Check every file and print a line per object.

    Raises:
        BadInput: an object is invalid.
    """
    for path in options.files:
        for document in read_documents(path):
            print(f"{document.where}: {_check(document)}")
    return 0


def _check(document: Document) -> str:
    if document.kind == CLASS_KIND:
        return f"{CLASS_KIND} {check_class(document)} is valid"
    if document.kind != EXPORT_KIND:
        return f"{clean(document.kind, 80)} is not of ModelExport, passed over"
    export = parse_document(document)
    try:
        check_support(export)
    except InvalidSpec as error:
        raise BadInput(f"{document.where}: {error}") from error
    name, count = f"{EXPORT_KIND} {export.namespace}/{export.name}", f"{len(export.targets)} targets"
    if _is_local(export):
        return f"{name} is valid for modelexport run, {count}; a cluster takes s3:// and https:// only"
    return f"{name} is valid, {count}"


def _is_local(export: ModelExport) -> bool:
    """The CRD refuses ``file://``, which only a local run can read."""
    references = [export.model.checkpoint, *([export.calibration.dataset] if export.calibration else [])]
    return any(reference.uri.startswith("file://") for reference in references)
