"""``modelexport program``: print a short program that opens a published file."""

import argparse
from typing import Any

from modelexport.cli.selection import add_arguments, add_store_arguments, open_store, read_local_reports
from modelexport.client.reports import read_report, report_uris_of
from modelexport.errors import BadInput
from modelexport.published import choose, of_cluster
from modelexport.reading.facts import read_facts
from modelexport.reading.programs import LANGUAGES, write_programs

EPILOG = """examples:
  modelexport program shapes --namespace team --target LiteRT/INT8 --language Kotlin
  modelexport program shapes --store modelexport-store --target ONNX/FP32 --language C++ > program.cpp
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "program",
        help="print a short program that opens a published file",
        description="Print a short program that prepares an image, gives it to a published file and reads the outputs, "
        "with the names, shapes and preprocessing of its report. The reports come from the store, as in modelexport "
        "download.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    add_store_arguments(parser)
    parser.add_argument("--target", metavar="FORMAT/PRECISION", required=True, help="the target whose file it opens")
    parser.add_argument("--language", choices=LANGUAGES, help="default: the one that apps use for the format")
    parser.set_defaults(command=program)


def program(options: argparse.Namespace) -> int:
    """Print the program of a target.

    Raises:
        BadInput: the target is not published, its report is invalid, or the language does not open its format.
    """
    if options.store:
        reports = read_local_reports(options)
        (chosen,) = choose((one for one, _ in reports), options.target)
        report = next(report for one, report in reports if one is chosen)
    else:
        export, openers = open_store(options)
        (chosen,) = choose(of_cluster(export), options.target)
        report = read_report(chosen, openers(report_uris_of((chosen,))))
    try:
        programs = write_programs(read_facts(report))
    except ValueError as error:
        raise BadInput(f"the report of {chosen.target} is invalid: {error}; run the export again") from error
    language = options.language or next(iter(programs))
    if language not in programs:
        raise BadInput(f"--language: {chosen.target} is not opened in {language}; use one of {', '.join(programs)}")
    print(programs[language], end="")
    return 0
