"""Runs a file for ``FileProcess``: ``python file_runner.py MODULE FILE THREADS``.

MODULE is the path of ``executorch_runner.py`` or ``tensorflow_runner.py``, which load the file as a user's program
would. This program reads images from its input as raw float32, and writes the outputs, after a line of JSON that gives
their shapes by name. It imports nothing of ours, so it starts without torch.
"""

import json
import os
import runpy
import sys
from math import prod


def main() -> None:
    """Answer images until the input ends."""
    module, path, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints, the answers stay apart
    shape, outputs, run = runpy.run_path(module)["open_file"](path, int(threads))

    import numpy as np

    answers.write(json.dumps({"outputs": outputs}).encode() + b"\n")
    answers.flush()
    size = 4 * prod(shape)
    while len(content := sys.stdin.buffer.read(size)) == size:
        for output in run(np.frombuffer(content, np.float32).reshape(shape)):
            answers.write(output.astype(np.float32).tobytes())
        answers.flush()


if __name__ == "__main__":
    main()
