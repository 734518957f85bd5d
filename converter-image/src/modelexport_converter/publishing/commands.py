"""What else is done to published files, each in a process of its own: removing them, and signing links to them."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from modelexport import names
from modelexport.logs import announce
from modelexport.reasons import Reason
from modelexport.result import ConversionResult
from modelexport.signing import Credentials, presign
from modelexport_converter.failures import Failure


def run_command(command: str, environ: Mapping[str, str]) -> ConversionResult:
    """Do what the first argument of the process asks for.

    Raises:
        Failure: it cannot be done, or is nothing that this version does.
    """
    if command not in COMMANDS:
        message = f"{command!r} is nothing that this converter does; use the converter image of the operator's version"
        raise Failure(Reason.CLASS_INVALID, message)
    return COMMANDS[command](environ)


def clean(environ: Mapping[str, str]) -> ConversionResult:
    """Remove the files of an export, and what unfinished uploads to them left.

    Raises:
        Failure: the reason of the first file that could not be removed, with all of them; or files that were published
            are not there: the store may be another one than that to which they went.
    """
    from modelexport_converter.stores.s3 import Removal, S3Store  # signing a link needs no client

    store = S3Store.connect(environ)
    outcomes: defaultdict[Removal, list[str]] = defaultdict(list)
    problems: list[Failure] = []
    remaining = []
    published = set(_read_uris(environ.get(names.PUBLISHED_ENV, "[]"), names.PUBLISHED_ENV))
    for uri in _read_files(environ):
        try:
            store.abort_uploads(uri)
            outcome = store.remove_own(uri)
            outcomes[outcome].append(uri)
            announce("file", uri=uri, outcome=outcome)
        except Failure as failure:
            announce("file", uri=uri, outcome="remains", message=str(failure))
            problems.append(failure)
            remaining.append(uri)
    if problems:
        raise Failure(problems[0].reason, f"{problems[0]} ({len(remaining)} files remain: {', '.join(remaining)})")
    words = _tell(outcomes[Removal.REMOVED], outcomes[Removal.FOREIGN])
    if missing := [uri for uri in outcomes[Removal.ABSENT] if uri in published]:
        found = f"{len(missing)} published files were not found in {store.endpoint}: {', '.join(missing)}"
        raise Failure(Reason.FILES_REMAIN, f"{found} ({words})")
    return ConversionResult(Reason.FILES_REMOVED, words)


def _tell(removed: list[str], foreign: list[str]) -> str:
    text = f"{len(removed)} files were removed"
    return f"{text}; published for another ModelExport and left: {', '.join(foreign)}" if foreign else text


def sign(environ: Mapping[str, str]) -> ConversionResult:
    """Announce a link for each file, with which anybody can fetch it for a while.

    Raises:
        Failure: the environment has no credentials.
    """
    credentials = Credentials.from_environ(environ)
    if credentials is None:
        message = f"{names.ACCESS_KEY_ENV} and {names.SECRET_KEY_ENV} are not set; the class names no Secret"
        raise Failure(Reason.STORAGE_DENIED, message)
    uris = _read_files(environ)
    for uri in uris:
        announce("signed", uri=uri, url=presign("GET", environ[names.STORE_ENV], uri, credentials, datetime.now(UTC)))
    return ConversionResult(Reason.SUCCEEDED, f"{len(uris)} links were signed")


def _read_files(environ: Mapping[str, str]) -> list[str]:
    return _read_uris(environ.get(names.FILES_ENV, ""), names.FILES_ENV)


def _read_uris(text: str, name: str) -> list[str]:
    try:
        return [str(uri) for uri in json.loads(text)]
    except (ValueError, TypeError) as error:
        raise Failure(Reason.CLASS_INVALID, f"{name} is no list of URIs in JSON: {error}") from error


COMMANDS: Mapping[str, Callable[[Mapping[str, str]], ConversionResult]] = {names.CLEAN: clean, names.PRESIGN: sign}
