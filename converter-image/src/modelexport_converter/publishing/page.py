"""Writes the page about all targets of an export, again with each target that is published.

Conversions of one export end in any order and at the same time. Each writes its report first, then the page of all
reports that it finds, and looks again: if another report has come meanwhile, it writes the page again. So whoever
writes the page last has seen every report that was there before.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.logs import announce
from modelexport.published import Published, read_report_text
from modelexport.report_page.page import render
from modelexport.report_page.target import Target, read_target
from modelexport.text import clean
from modelexport_converter.failures import Failure
from modelexport_converter.stores import Store

MOST_REPORTS, MOST_ROUNDS = 64, 8
SHOWN = 200


def publish_page(store: Store, request: ConversionRequest, environ: Mapping[str, str], folder: Path) -> None:
    """Write the page to ``folder`` and upload it. Without the reports' URIs in the environment there is none.

    Raises:
        Failure: the store rejects it.
    """
    uris = _read_uris(environ.get(names.REPORTS_ENV, "{}"))
    path, page, seen = folder / names.PAGE_FILE, request.shared_uri(names.PAGE_FILE), dict[str, str]()
    for _ in range(MOST_ROUNDS if uris else 0):
        texts = {target: store.read_text(uri) for target, uri in uris.items()}
        digests = {target: hashlib.sha256(text.encode()).hexdigest() for target, text in texts.items() if text}
        if digests == seen:
            return
        targets = [_read(target, uris[target], texts.pop(target)) for target in uris]
        path.write_text(render(request.export, targets), encoding="utf-8")
        store.upload(path, page, {})
        announce("page", uri=page, reports=len(digests))
        seen = digests


def _read_uris(text: str) -> Mapping[str, str]:
    try:
        found = json.loads(text)
        if len(found) > MOST_REPORTS:
            raise ValueError(f"at most {MOST_REPORTS} reports are read")
        return {str(target): str(uri) for target, uri in found.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise Failure(Reason.CLASS_INVALID, f"{names.REPORTS_ENV} is not a JSON object of URIs: {error}") from error


def _read(target: str, uri: str, text: str | None) -> Target:
    """Return what the page shows of a target; anyone who can write to the bucket can have written its report."""
    if not text:
        return Target(Published(target, "not published", "There was no report when this page was written."))
    try:
        published, report = read_report_text(text, f"{uri.rpartition('/')[0]}/")
        if published.target != target:
            raise ValueError(f"it is of {published.target}")
        return read_target(published, report)
    except ValueError as error:
        return Target(Published(target, "invalid report", clean(f"{uri} is not a valid report: {error}", SHOWN)))
