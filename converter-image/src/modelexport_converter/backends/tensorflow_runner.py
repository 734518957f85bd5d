"""Loads a SavedModel into plain TensorFlow, as a user would; ``file_runner`` feeds it."""

import sys
from collections.abc import Callable
from typing import Any

SIGNATURE = "serving_default"
UNUSED = ("jax", "matplotlib", "pandas", "scipy", "sklearn")
"""Libraries that TensorFlow imports if they are there, which takes seconds, and that no SavedModel needs."""


def open_file(folder: str, threads: int) -> tuple[list[int], dict[str, list[int]], Callable[[Any], list[Any]]]:
    """Return the shape of the image, those of the outputs by name, and what returns the outputs for an image."""
    sys.modules.update(dict.fromkeys(UNUSED))  # type: ignore[arg-type]
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    function = tf.saved_model.load(folder).signatures[SIGNATURE]
    ((name, image),) = function.structured_input_signature[1].items()
    shapes = {output: spec.shape.as_list() for output, spec in function.structured_outputs.items()}

    def run(image: Any) -> list[Any]:
        results = function(**{name: tf.constant(image)})
        return [results[output].numpy() for output in shapes]

    return image.shape.as_list(), shapes, run
