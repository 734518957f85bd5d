"""The arguments that draft an export from a local checkpoint, for ``convert`` and ``init``."""

import argparse
import re
from pathlib import Path

from rich.text import Text

from modelexport.api.quantization import DEFAULT_FLOAT_LAYERS, Effort
from modelexport.api.spec import DEFAULT_DROP, DEFAULT_SAMPLES
from modelexport.console import open_console
from modelexport.errors import BadInput
from modelexport.local.convert import choose_quantization
from modelexport.local.draft import Draft, draft_export
from modelexport.text import clean

SIZE_PATTERN = r"([0-9]{1,5})(?:[x,]([0-9]{1,5}))?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that describe the export of a checkpoint."""
    parser.add_argument("checkpoint", type=Path, metavar="FILE", help=".pt, .pth, .safetensors or .pt2")
    parser.add_argument(
        "--to",
        action="append",
        default=[],
        metavar="FORMAT/PRECISION",
        help="a target, such as LiteRT/INT8, or a format for all its precisions; a name and options may follow: "
        "ONNX/FP32/server:dynamicBatch=true,opset=18; repeat it for several",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="PATH",
        help="images like those that the model will see: a folder, a zip archive or an image",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=DEFAULT_SAMPLES,
        metavar="N",
        help=f"images to calibrate on; default: {DEFAULT_SAMPLES}",
    )
    parser.add_argument(
        "--evaluate",
        type=Path,
        metavar="PATH",
        help="labelled images to measure the accuracy on: a folder or a zip archive",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="DROP",
        help=f"accuracy that a file may lose on them, 0 to 1; default: {DEFAULT_DROP}",
    )
    parser.add_argument(
        "--effort",
        metavar="EFFORT",
        help=f"how far to go for an INT8 file that loses too much: {', '.join(Effort)}; default: {Effort.AUTO}",
    )
    parser.add_argument(
        "--max-float-layers",
        type=int,
        metavar="N",
        help=f"layers of it that may stay in float; default: {DEFAULT_FLOAT_LAYERS}",
    )
    parser.add_argument("--architecture", metavar="NAME", help="default: found in the checkpoint")
    parser.add_argument("--input-size", metavar="HxW", help="pixels; default: that of the training")
    parser.add_argument("--name", metavar="NAME", help="name of the export and its files; default: that of FILE")
    parser.add_argument("--extended", action="store_true", help="allow targets of the support level Extended")


def draft(options: argparse.Namespace) -> Draft:
    """Return the export that the options describe.

    Raises:
        BadInput: an option is invalid, or the checkpoint is of no known architecture.
    """
    size = _read_size(options.input_size)
    if options.max_drop is not None and options.evaluate is None:
        raise BadInput("--max-drop: no labelled images measure it; name them by --evaluate")
    with open_console(error_stream=True).status(Text(f"Reading {clean(str(options.checkpoint))}")):
        return draft_export(
            options.checkpoint,
            options.to,
            architecture=options.architecture,
            calibration=options.calibration,
            samples=options.samples,
            evaluate=options.evaluate,
            max_drop=float(DEFAULT_DROP) if options.max_drop is None else options.max_drop,
            quantization=choose_quantization(options.effort, options.max_float_layers),
            input_size=size,
            name=options.name,
            extended=options.extended,
        )


def _read_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(SIZE_PATTERN, text)
    if not found:
        raise BadInput(f"--input-size: {text!r} is not a size; use 640, or height x width: 480x640")
    return int(found[1]), int(found[2] or found[1])
