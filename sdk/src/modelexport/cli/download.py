"""``modelexport download``: download the published files of an export."""

import argparse
import sys
from pathlib import Path
from typing import Any

from modelexport import names
from modelexport.cli.selection import add_arguments, add_store_arguments, open_store, read_local
from modelexport.client.downloads import downloads, uris_of
from modelexport.client.transfer import open_file
from modelexport.console import open_console
from modelexport.errors import BadInput, TransferError
from modelexport.published import choose, of_cluster, path_of
from modelexport.text import clean

FAILED = 1
MESSAGE_LIMIT = 1000
"""Maximum characters of a message, which may quote the store."""

DESCRIPTION = f"""Download the published files of an export, and check their SHA-256. An interrupted download resumes.
With {names.ACCESS_KEY_ENV} and {names.SECRET_KEY_ENV} in the environment, links are signed on this machine.
Otherwise a short-lived Pod in the export's namespace signs them; kubectl creates it, with your rights."""

EPILOG = """examples:
  modelexport download shapes --namespace team --target LiteRT/INT8 --output models
  modelexport download shapes --endpoint http://127.0.0.1:9000      (with: kubectl port-forward svc/minio 9000)
  modelexport download shapes --store modelexport-store

exit codes: 0 success, 1 some files could not be downloaded, 2 invalid input
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "download",
        help="download the published files of an export",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument("--target", metavar="FORMAT/PRECISION", help="one target; default: all published targets")
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="default: the current directory")
    add_store_arguments(parser)
    parser.set_defaults(command=download)


def download(options: argparse.Namespace) -> int:
    """Download the files of an export and return the exit code.

    Raises:
        BadInput: the export, the target or an option is invalid.
    """
    if options.store:
        targets = choose(read_local(options), options.target)
        chosen = downloads(targets, {uri: open_file(path_of(options.store, uri)) for uri in uris_of(targets)})
    else:
        export, openers = open_store(options)
        targets = choose(of_cluster(export), options.target)
        chosen = downloads(targets, openers(uris_of(targets)))
    console, failed = open_console(error_stream=True), False
    for one in chosen:
        path = one.path_in(options.output)
        try:
            is_new = one.fetch(path, console)
            print(f"{one.target:<14} {path}{'' if is_new else ' (already downloaded)'}")
        except TransferError as error:
            print(clean(f"{one.target}: {error}", MESSAGE_LIMIT), file=sys.stderr)
            failed = True
        except OSError as error:
            raise BadInput(f"--output: {options.output}: {error.strerror}; use another folder") from error
    return FAILED if failed else 0
