"""Asks the converter for the architecture of a local checkpoint, in a process without credentials."""

import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from modelexport import names, untrusted
from modelexport.api.reasons import Reason
from modelexport.api.result import ConversionResult
from modelexport.api.spec import CLASS_COUNT_LIMIT, INPUT_SIZE_LIMIT
from modelexport.environment import scrub
from modelexport.errors import BadInput, ModelExportError
from modelexport.local.runner import CONVERTER_ENV, converter_command, read_result
from modelexport.logs import parse_event
from modelexport.matrix.support import ARCHITECTURES
from modelexport.text import clean

TIMEOUT_SECONDS = 600
TAIL_BYTES = 1000
"""End of the log that a message quotes."""
NAMES_SHOWN, NAME_LIMIT = 100, 60
PHRASES_LIMIT, PHRASE_LIMIT = 20, 200


@dataclass(frozen=True)
class Identified:
    """The architecture of a checkpoint, and what it records of its network.

    Attributes:
        architecture: a row of the support matrix.
        variant: the variant of the architecture, if it has some.
        input_size: (height, width) in pixels of the files that are made of it.
        num_classes: the number of classes; 0 if the network has none.
        class_names: the first of their names.
        assumptions: properties of the network that the checkpoint does not state.
    """

    architecture: str
    variant: str | None
    input_size: tuple[int, int]
    num_classes: int
    class_names: tuple[str, ...]
    assumptions: tuple[str, ...]

    @classmethod
    def read(cls, event: Mapping[str, Any]) -> Self:
        """Read the converter's event; the process that wrote it has opened a file of a stranger.

        Raises:
            ValueError: a field is missing or invalid.
        """
        architecture = untrusted.word(event.get("architecture"), "architecture")
        if architecture not in ARCHITECTURES:
            raise ValueError(f"architecture: {architecture} is not known")
        variant, size = event.get("variant"), event.get("inputSize")
        if not isinstance(size, list) or len(size) != 2:
            raise ValueError("inputSize: is not a height and a width")
        height, width = (untrusted.whole(side, "inputSize", INPUT_SIZE_LIMIT) for side in size)
        return cls(
            architecture,
            None if variant is None else untrusted.word(variant, "variant"),
            (height, width),
            untrusted.whole(event.get("numClasses"), "numClasses", CLASS_COUNT_LIMIT),
            untrusted.texts(event.get("classNames"), "classNames", NAMES_SHOWN, NAME_LIMIT),
            untrusted.texts(event.get("assumptions"), "assumptions", PHRASES_LIMIT, PHRASE_LIMIT),
        )

    def describe(self) -> str:
        """Return the architecture with its variant, input size and classes in a line."""
        height, width = self.input_size
        classes = f", {self.num_classes} classes" if self.num_classes else ""
        shown = ", ".join(self.class_names[:5]) + (", …" if self.num_classes > 5 else "")
        named = f" ({shown})" if self.num_classes and self.class_names else ""
        variant = f" {self.variant}" if self.variant else ""
        return f"{self.architecture}{variant}, {height}x{width}{classes}{named}"


def require_converter() -> None:
    """Check that this Python can convert, or that another converter is named.

    Raises:
        BadInput: torch is not installed.
    """
    if not os.environ.get(CONVERTER_ENV) and importlib.util.find_spec("torch") is None:
        way_out = f"run pip install 'modelexport[converter]', or set {CONVERTER_ENV} to the command of a converter"
        raise BadInput(f"the converter is not installed, which reads checkpoints on this machine; {way_out}")


def identify(checkpoint: Path, architecture: str | None = None) -> Identified:
    """Return the architecture of a checkpoint.

    Args:
        checkpoint: a local file.
        architecture: the architecture that it should have; by default it is found.

    Raises:
        BadInput: it cannot be read, or is of no known architecture or another one than ``architecture``.
        ModelExportError: the converter failed.
    """
    require_converter()
    with tempfile.TemporaryDirectory(prefix="modelexport-identify-") as folder:
        result, events = _ask_converter(checkpoint, architecture, Path(folder))
    if not result.succeeded:
        kind = ModelExportError if result.reason is Reason.INTERNAL_ERROR else BadInput
        raise kind(f"{checkpoint}: {result.message}", reason=result.reason, field="spec.model.checkpoint")
    try:
        return Identified.read(next((event for event in events if event.get("event") == "identified"), {}))
    except ValueError as error:
        raise ModelExportError(f"{checkpoint}: the converter's answer is invalid: {error}") from error


def _ask_converter(
    checkpoint: Path, architecture: str | None, folder: Path
) -> tuple[ConversionResult, list[dict[str, Any]]]:
    """Run the converter's ``identify`` and return its result and its events."""
    message, log = folder / "message.json", folder / "log"
    environ = {
        **scrub(os.environ),
        "HOME": str(folder),
        names.WORK_DIR_ENV: str(folder),
        names.CHECKPOINT_ENV: str(checkpoint),
        names.TERMINATION_LOG_ENV: str(message),
        **({names.ARCHITECTURE_ENV: architecture} if architecture else {}),
    }
    with log.open("wb") as stderr:
        done = subprocess.run(  # noqa: S603 - the converter, not a shell
            [*converter_command(), names.IDENTIFY],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
    result = read_result(message, done.returncode, log)
    if result.reason is Reason.INTERNAL_ERROR:  # the log goes with the folder
        tail = log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
        result = replace(result, message=f"{result.message}: {clean(tail)}")
    return result, [parse_event(line) for line in done.stdout.splitlines()]
