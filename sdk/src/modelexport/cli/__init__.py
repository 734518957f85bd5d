"""The ``modelexport`` command: exports without a cluster, their files, the support matrix, and checks."""

import argparse
import sys
from collections.abc import Sequence

from modelexport import __version__
from modelexport.cli import download, get, matrix, run, validate
from modelexport.cli.documents import BadInput

BAD_INPUT = 2

EPILOG = """examples:
  modelexport run examples/yolov8.yaml
  modelexport run export.yaml --store http://127.0.0.1:9000 --output-uri s3://exports/team
  modelexport get shapes --namespace team
  modelexport download shapes --namespace team --target LiteRT/INT8
  modelexport validate export.yaml
  modelexport matrix
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 all is well, 1 something failed, 2 the input is bad."""
    options = build_parser().parse_args(arguments)
    try:
        code: int = options.command(options)
    except BadInput as error:
        print(f"modelexport: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output, such as head, has seen enough
        return 0
    return code


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands; every command sets ``command`` to its function."""
    parser = argparse.ArgumentParser(
        prog="modelexport",
        description="Turn trained PyTorch vision models into verified LiteRT, ONNX and Core ML files.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"modelexport {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (run, get, download, validate, matrix):
        module.add_parser(commands)
    return parser
