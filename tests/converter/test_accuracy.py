"""Task accuracy of cells, and of the INT8 recipes without calibration, on 128 images with known answers.

Every run measures YOLOv8 in all formats and recipes, YOLO11 and YOLO26 in the calibrated INT8 of each format except
ExecuTorch, and each other architecture in one of the first three formats, in calibrated INT8 and often in FP16 (see
``INT8_ONLY``). The others have the marker ``all_cells``; ``make matrix`` measures them too. Core ML runs in our
evaluator. One group per architecture and format keeps shared files in one process.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from modelexport.matrix.support import ARCHITECTURES, BACKENDS, Format, Precision, Recipe
from modelexport_converter.backends import Array, load_backend
from modelexport_converter.verification.agreement import check, compare
from modelexport_converter.verification.inspection import check_facts
from trained.cells import TRAINED, eval_inputs, load_model, measure, open_cell, produce, recall, reference
from trained.model import Outputs

INT8_ONLY = ("YOLO11", "YOLO26", "FasterRCNN", "MaskRCNN", "RetinaResNet")
"""How the names of architectures begin whose FP16 needs ``--all-cells``: they take long, or resemble each other."""
MOST_LOST = {Precision.FP32: 0.0005, Precision.FP16: 0.002, Precision.INT8: 0.02, Precision.W8A16: 0.01}


def is_measured_in_every_run(architecture: str, fmt: Format, recipe: Recipe) -> bool:
    if architecture == "YOLOv8":
        return True
    first = (Format.LITERT, Format.ONNX, Format.COREML)
    formats = [first[list(TRAINED).index(architecture) % len(first)]]
    if architecture in ("YOLO11", "YOLO26"):
        formats = [one for one in BACKENDS if one is not Format.EXECUTORCH]
    recipes = [BACKENDS[fmt].calibrated, *([] if architecture.startswith(INT8_ONLY) else [Recipe.FP16])]
    return fmt in formats and recipe in recipes


def cells() -> Iterator[Any]:
    for architecture, (fmt, backend) in product(TRAINED, BACKENDS.items()):
        rows = [(Precision.FP32, Recipe.FP32), (Precision.FP16, Recipe.FP16)]
        rows += [(Precision.INT8, recipe) for recipe in dict.fromkeys((backend.data_free, backend.calibrated))]
        if Precision.W8A16 not in backend.refused:
            rows.insert(-1, (Precision.W8A16, Recipe.STATIC_WI8_AI16))
        for precision, recipe in rows:
            marks = [pytest.mark.xdist_group(f"{architecture}-{fmt}")]
            marks += [] if is_measured_in_every_run(architecture, fmt, recipe) else [pytest.mark.all_cells]
            yield pytest.param(architecture, fmt, precision, recipe, marks=marks, id=f"{architecture}-{fmt}-{recipe}")


@pytest.mark.parametrize(("architecture", "fmt", "precision", "recipe"), list(cells()))
def test_cell_keeps_model_accuracy_and_passes_checks(
    architecture: str, fmt: Format, precision: Precision, recipe: Recipe, record_property: Any
) -> None:
    model, path = load_model(architecture), produce(architecture, fmt, recipe)
    check_facts(load_backend(fmt).inspect(path), model, recipe)
    run, outputs = open_cell(architecture, fmt, recipe), list[Outputs]()

    def run_and_keep(image: Array) -> Outputs:
        outputs.append(run(image))
        return outputs[-1]

    comparison = compare(recall(architecture), run_and_keep, eval_inputs(architecture))
    check(comparison, ARCHITECTURES[architecture].thresholds[precision])
    measured = measure(architecture, outputs)
    record_property("accuracy", measured)
    record_property("agreement", comparison.agreements)
    assert min(reference(architecture).values()) > 0.6, "the model itself is not trained"
    lost = {name: value - measured[name] for name, value in reference(architecture).items()}
    assert max(lost.values()) <= MOST_LOST[precision], (lost, measured)
