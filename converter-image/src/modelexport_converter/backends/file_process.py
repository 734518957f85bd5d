"""Runs a file in a process of its own, since its runtime ends the process on some faults."""

import json
import subprocess
import sys
import tempfile
import weakref
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelexport_converter.backends import Array, file_runner


class FileProcess:
    """A process that runs a file by our program ``file_runner``.

    The program writes a line of JSON, ``{"outputs": {NAME: SHAPE}}``. Then it reads images as raw float32, and answers
    each with its outputs, raw float32 in this order.
    """

    def __init__(self, library: str, module: str, path: Path) -> None:
        """Take the name of the library for errors, and the paths of the module that opens the file, and of the file."""
        self._library = library
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(  # noqa: S603 (our own program)
            [sys.executable, "-I", file_runner.__file__, module, str(path), str(torch.get_num_threads())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._end = weakref.finalize(self, _end, self._process, self._errors)
        self._shapes: dict[str, list[int]] = json.loads(self._take(None))["outputs"]

    def run(self, images: Array) -> dict[str, Array]:
        """Return the outputs for images of the shape that the file takes, by name."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(images.tobytes())
            self._process.stdin.flush()
        except BrokenPipeError:
            self._take(1)  # says why
        return {
            name: np.frombuffer(self._take(4 * prod(shape)), np.float32).reshape(shape)
            for name, shape in self._shapes.items()
        }

    def _take(self, size: int | None) -> bytes:
        """Return bytes of the answer, or its line.

        Raises:
            RuntimeError: the process ended, with the end of what it wrote.
        """
        assert self._process.stdout is not None
        content = self._process.stdout.readline() if size is None else self._process.stdout.read(size)
        if len(content) < (1 if size is None else size):
            code = self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"{self._library} ended with exit code {code}: {' '.join(lines[-1:])}")
        return content


def _end(process: "subprocess.Popen[bytes]", errors: Any) -> None:
    for stream in (process.stdin, process.stdout, errors):
        if stream is not None:
            stream.close()
    process.wait()
