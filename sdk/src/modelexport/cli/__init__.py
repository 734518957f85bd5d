"""The ``modelexport`` command: local exports, published files, the support matrix and validation."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from modelexport import __version__
from modelexport.cli import completion, convert, download, get, init, matrix, program, report, run, validate
from modelexport.errors import BadInput, ModelExportError

FAILED, BAD_INPUT = 1, 2
PROGRAM = "modelexport"
PLUGIN_FILE, KUBECTL_PLUGIN = "kubectl-modelexport", "kubectl modelexport"
"""The same program as a plugin of kubectl, which finds plugins by the names of their files."""

EPILOG = """examples:
  modelexport convert best.pt --to LiteRT/INT8 --to CoreML/FP16 --calibration photos/
  modelexport init best.pt
  modelexport run examples/yolov8.yaml
  modelexport run export.yaml --store http://127.0.0.1:9000 --output-uri s3://exports/team
  modelexport get shapes --namespace team
  modelexport download shapes --namespace team --target LiteRT/INT8
  modelexport report shapes --namespace team
  modelexport program shapes --namespace team --target LiteRT/INT8 --language Kotlin
  modelexport validate export.yaml
  modelexport matrix
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 success, 1 failure, 2 invalid input."""
    prog = KUBECTL_PLUGIN if Path(sys.argv[0]).name == PLUGIN_FILE else PROGRAM
    options = build_parser(prog).parse_args(arguments)
    try:
        code: int = options.command(options)
    except BadInput as error:
        print(f"modelexport: {error}", file=sys.stderr)
        return BAD_INPUT
    except ModelExportError as error:
        print(f"modelexport: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output, such as head, closed the pipe
        return 0
    return code


def build_parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """Build the parser of all commands; every command sets ``command`` to its function."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Turn trained PyTorch vision models into verified LiteRT, ONNX, Core ML, PyTorch, TensorFlow "
        "and ExecuTorch files.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"modelexport {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (convert, init, run, get, download, report, program, validate, matrix, completion):
        module.add_parser(commands)
    parser.set_defaults(build_parser=build_parser)  # for the command that describes all commands
    return parser
