"""Reads the reports of published files from the store; for the command line and the SDK."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelexport import untrusted
from modelexport.client.transfer import PASSING, Opener
from modelexport.errors import TransferError
from modelexport.published import REPORT_LIMIT, Published


def report_uris_of(chosen: Sequence[Published]) -> list[str]:
    """Return the URIs of the reports of published targets."""
    return [one.report_uri for one in chosen if one.report_uri]


def read_report(target: Published, openers: Mapping[str, Opener]) -> Mapping[str, Any]:
    """Return the report of a published target, which must be of the file that the status names.

    Args:
        target: the target.
        openers: the openers of the reports, by URI.

    Raises:
        TransferError: the report cannot be downloaded, or is of another file.
    """
    if target.artifact is None or target.report_uri is None:
        raise TransferError(f"the status names no report of {target.target}; export again")
    uri = target.report_uri
    try:
        stream, _ = openers[uri](0)
        with stream:
            report = untrusted.load(stream.read(REPORT_LIMIT + 1).decode(), REPORT_LIMIT)
        digest = untrusted.record(report.get("artifact"), "artifact").get("sha256")
    except PASSING as error:
        raise TransferError(f"{uri} cannot be downloaded: {error}") from error
    except ValueError as error:
        raise TransferError(f"{uri} is not a valid report: {error}; export again") from error
    if digest != target.artifact.sha256:
        raise TransferError(f"{uri} is the report of another file than {target.target}; export again")
    return report
