"""Task accuracy of cells, and of the INT8 recipes without calibration, on 128 images with known answers.

Every run measures YOLOv8 in all formats and recipes, YOLO11 and YOLO26 in the calibrated INT8 of each format except
ExecuTorch, and each other architecture in one of the first three formats, in calibrated INT8 and often in FP16 (see
``INT8_ONLY``). ``--all-cells`` measures the others as well, as ``make matrix`` does. Core ML runs in our evaluator. One
group per architecture and format keeps shared files in one process.
"""

from collections.abc import Iterator
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


def pairs(all_cells: bool) -> Iterator[tuple[str, Format]]:
    first = (Format.LITERT, Format.ONNX, Format.COREML)
    for place, architecture in enumerate(TRAINED):
        every = all_cells or architecture in ("YOLOv8", "YOLO11", "YOLO26")
        for fmt in BACKENDS if every else [first[place % len(first)]]:
            if fmt is not Format.EXECUTORCH or architecture == "YOLOv8" or all_cells:
                yield architecture, fmt


def cells(all_cells: bool) -> Iterator[Any]:
    for architecture, fmt in pairs(all_cells):
        backend, mark = BACKENDS[fmt], pytest.mark.xdist_group(f"{architecture}-{fmt}")
        rows = [(Precision.FP32, Recipe.FP32), (Precision.FP16, Recipe.FP16)]
        rows += [(Precision.INT8, recipe) for recipe in dict.fromkeys((backend.data_free, backend.calibrated))]
        if Precision.W8A16 not in backend.refused:
            rows.insert(-1, (Precision.W8A16, Recipe.STATIC_WI8_AI16))
        if architecture != "YOLOv8" and not all_cells:
            rows = rows[-1:] if architecture.startswith(INT8_ONLY) else [rows[1], rows[-1]]
        for precision, recipe in rows:
            yield pytest.param(architecture, fmt, precision, recipe, marks=mark, id=f"{architecture}-{fmt}-{recipe}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "recipe" in metafunc.fixturenames:
        selected = list(cells(metafunc.config.getoption("--all-cells")))
        metafunc.parametrize(("architecture", "fmt", "precision", "recipe"), selected)


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
