"""Writes the page of an export after its conversions on this machine."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelexport.errors import BadInput
from modelexport.local.conversions import Conversion
from modelexport.published import Published, path_of, read_report_file
from modelexport.report_page.page import render
from modelexport.report_page.target import Target, read_target


def write_page(path: Path, name: str, targets: Sequence[Target]) -> None:
    """Write the page of an export.

    Raises:
        BadInput: the file cannot be written.
    """
    try:
        path.write_text(render(name, targets), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--output: {path}: {error.strerror}; use another file") from error


def read_targets(reports: Iterable[tuple[Published, Mapping[str, Any]]]) -> list[Target]:
    """Return what the page shows of targets with a report.

    Raises:
        BadInput: a report is invalid.
    """
    try:
        return [read_target(published, report) for published, report in reports]
    except ValueError as error:
        raise BadInput(f"a report is invalid: {error}; run the export again") from error


def write_run_page(path: Path, conversions: Sequence[Conversion], store: Path) -> bool:
    """Write the page of an export after a run into a directory store. Return whether there is one.

    Without a published file there is no page.

    Raises:
        BadInput: the file cannot be written.
    """
    if not any(conversion.succeeded for conversion in conversions):
        return False
    targets = [_target_of(conversion, store) for conversion in conversions]
    write_page(path, conversions[0].request.export, targets)
    return True


def _target_of(conversion: Conversion, store: Path) -> Target:
    """Return what the page shows of one conversion: its report, or why it has none."""
    request, result = conversion.request, conversion.result
    target, recipe = str(request.target), str(request.recipe)
    if result is None:
        return Target(Published(target, conversion.phase, recipe=recipe))
    if result.report_uri is None:
        failed = Published(
            target, str(result.reason), result.message, recipe, None, result.verification, result.accuracy
        )
        return Target(failed)
    try:
        path = path_of(store, result.report_uri)
        (found,) = read_targets([read_report_file(path, request.output)])
    except BadInput as error:
        return Target(Published(target, conversion.phase, str(error), recipe))
    return found
