"""Task accuracy of all cells, and of the INT8 schemes without calibration, on 128 pictures with known answers.

Core ML runs in our evaluator. A group per architecture and format keeps to one process what is made once.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from converter.cells import TRAINED, eval_inputs, load_model, measure, open_cell, produce, recall, reference
from converter.trained import Outputs
from modelexport.matrix import ARCHITECTURES, BACKENDS, Format, Precision, Scheme
from modelexport_converter.backends import Array, load_backend
from modelexport_converter.inspection import check_facts
from modelexport_converter.verify import check, compare

MOST_LOST = {Precision.FP32: 0.0005, Precision.FP16: 0.002, Precision.INT8: 0.02}


def cells() -> Iterator[Any]:
    for architecture in TRAINED:
        for fmt, backend in BACKENDS.items():
            rows = [(Precision.FP32, Scheme.FP32), (Precision.FP16, Scheme.FP16)]
            rows += [(Precision.INT8, scheme) for scheme in dict.fromkeys((backend.data_free, backend.calibrated))]
            for precision, scheme in rows:
                mark = pytest.mark.xdist_group(f"{architecture}-{fmt}")
                yield pytest.param(
                    architecture, fmt, precision, scheme, marks=mark, id=f"{architecture}-{fmt}-{scheme}"
                )


def test_the_trained_models_have_learned_their_task() -> None:
    assert {name: min(reference(name).values()) > 0.6 for name in TRAINED} == dict.fromkeys(TRAINED, True)


@pytest.mark.parametrize(("architecture", "fmt", "precision", "scheme"), list(cells()))
def test_a_cell_keeps_the_accuracy_of_the_model_and_passes_its_checks(
    architecture: str, fmt: Format, precision: Precision, scheme: Scheme, record_property: Any
) -> None:
    model, path = load_model(architecture), produce(architecture, fmt, scheme)
    check_facts(load_backend(fmt).inspect(path), model, scheme)
    run, outputs = open_cell(architecture, fmt, scheme), list[Outputs]()

    def run_and_keep(image: Array) -> Outputs:
        outputs.append(run(image))
        return outputs[-1]

    comparison = compare(recall(architecture), run_and_keep, eval_inputs(architecture))
    check(comparison, ARCHITECTURES[architecture].thresholds[precision])
    measured = measure(architecture, outputs)
    record_property("accuracy", measured)
    record_property("agreement", comparison.agreements)
    lost = {name: value - measured[name] for name, value in reference(architecture).items()}
    assert max(lost.values()) <= MOST_LOST[precision], (lost, measured)
