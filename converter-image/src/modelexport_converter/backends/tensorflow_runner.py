"""Runs a SavedModel in plain TensorFlow, as a user would: ``python tensorflow_runner.py FOLDER THREADS``.

A process of its own, because TensorFlow ends the process on some faults. It reads images from its input as raw
float32, and writes the outputs, after a line of JSON that gives their names and shapes.
"""

import json
import os
import sys
from math import prod

SIGNATURE = "serving_default"
UNUSED = ("jax", "matplotlib", "pandas", "scipy", "sklearn")
"""Libraries that TensorFlow imports if they are there, which takes seconds, and that no SavedModel needs."""


def main() -> None:
    """Answer images until the input ends."""
    folder, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints, the answers stay apart

    sys.modules.update(dict.fromkeys(UNUSED))  # type: ignore[arg-type]
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    tf.config.threading.set_inter_op_parallelism_threads(1)
    function = tf.saved_model.load(folder).signatures[SIGNATURE]
    ((name, image),) = function.structured_input_signature[1].items()
    shapes = {output: spec.shape.as_list() for output, spec in function.structured_outputs.items()}
    answers.write(json.dumps({"input": image.shape.as_list(), "outputs": shapes}).encode() + b"\n")
    answers.flush()
    size = 4 * prod(image.shape)
    while len(content := sys.stdin.buffer.read(size)) == size:
        given = np.frombuffer(content, np.float32).reshape(image.shape)
        results = function(**{name: tf.constant(given)})
        for output in shapes:
            answers.write(results[output].numpy().astype(np.float32).tobytes())
        answers.flush()


if __name__ == "__main__":
    main()
