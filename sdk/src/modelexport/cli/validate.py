"""``modelexport validate``: check files like the operator, without a cluster."""

import argparse
from pathlib import Path
from typing import Any

from modelexport.api.fields import InvalidSpec
from modelexport.cli.documents import (
    Document,
    check_class,
    explain_lists,
    parse_document,
    read_documents,
)
from modelexport.errors import BadInput
from modelexport.names import CLASS_KIND, EXPORT_KIND
from modelexport.planning.plan import check_support


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "validate",
        help="check files before applying them",
        description="Check every ModelExport and ExportClass of a YAML file against the API and the support matrix.",
        epilog="example: modelexport validate export.yaml",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="YAML file with one or more objects")
    parser.set_defaults(command=validate)


def validate(options: argparse.Namespace) -> int:
    """Check every file and print a line per object.

    Raises:
        BadInput: an object is invalid, or a file has neither a ModelExport nor an ExportClass.
    """
    for path in options.files:
        documents = read_documents(path)
        for document in documents:
            print(f"{document.where}: {_check(document)}")
        if not any(document.is_ours for document in documents):
            problem = f"has neither a {EXPORT_KIND} nor an {CLASS_KIND}{explain_lists(documents)}"
            raise BadInput(f"{path}: {problem}; see examples/yolov8.yaml")
    return 0


def _check(document: Document) -> str:
    if document.kind == CLASS_KIND:
        return f"{CLASS_KIND} {check_class(document)} is valid"
    if not document.is_ours:
        return f"{document.kind} is not a ModelExport kind, skipped"
    export = parse_document(document)
    try:
        check_support(export)
    except InvalidSpec as error:
        raise BadInput.from_spec(error, document.where) from error
    name, count = f"{EXPORT_KIND} {export.namespace}/{export.name}", f"{len(export.targets)} targets"
    datasets = [images.dataset for images in (export.calibration, export.evaluation) if images]
    if any(reference.uri.startswith("file://") for reference in (export.model.checkpoint, *datasets)):
        return f"{name} is valid for modelexport run, {count}; a cluster takes s3:// and https:// only"
    return f"{name} is valid, {count}"
