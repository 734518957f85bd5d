"""Commands on published files, each in a process of its own: delete them, and sign links to them."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.api.result import ConversionResult
from modelexport.logs import announce
from modelexport.signing import Credentials, presign
from modelexport_converter.failures import Failure


def run_command(command: str, environ: Mapping[str, str]) -> ConversionResult:
    """Run the command named by the first argument of the process.

    Raises:
        Failure: it failed, or this version has no such command.
    """
    if command not in COMMANDS:
        message = f"the converter has no command {command!r}; use the converter image of the operator's version"
        raise Failure(Reason.CLASS_INVALID, message)
    return COMMANDS[command](environ)


def clean(environ: Mapping[str, str]) -> ConversionResult:
    """Delete the files of an export, and parts that unfinished uploads left.

    Raises:
        Failure: the reason of the first file that could not be deleted, with a list of all of them; or published files
            are missing, since the store may be another one than they were published to.
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
    words = f"{len(outcomes[Removal.REMOVED])} files were removed"
    if foreign := outcomes[Removal.FOREIGN]:
        words += f"; published for another ModelExport and left: {', '.join(foreign)}"
    if missing := [uri for uri in outcomes[Removal.ABSENT] if uri in published]:
        found = f"{len(missing)} published files were not found in {store.endpoint}: {', '.join(missing)}"
        raise Failure(Reason.FILES_REMAIN, f"{found} ({words})")
    return ConversionResult(Reason.FILES_REMOVED, words)


def sign(environ: Mapping[str, str]) -> ConversionResult:
    """Announce a presigned link for each file; anybody who has it can download the file until it expires.

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
        raise Failure(Reason.CLASS_INVALID, f"{name} is not a JSON list of URIs: {error}") from error


COMMANDS: Mapping[str, Callable[[Mapping[str, str]], ConversionResult]] = {names.CLEAN: clean, names.PRESIGN: sign}
