"""Classifiers: the results of the op `classify`, and damaged packages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - its name everywhere

from converter.coreml.building import TARGET, edit_specification
from modelexport_converter.coreml import Classifier, Feature, ProgramError, load_model, load_program
from modelexport_converter.coreml.library import coremltools

_NAMES = ["ant", "bee", "cat"]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A classifier whose probabilities are its input, with the input doubled as another output."""

    def network(x: Any) -> Any:
        return mb.identity(x=x, name="probabilities"), mb.add(x=x, y=x, name="doubled")

    model = coremltools.convert(
        mb.program(input_specs=[mb.TensorSpec(shape=(1, 3))], opset_version=TARGET.iOS16)(network),
        minimum_deployment_target=TARGET.iOS16,
        compute_precision=coremltools.precision.FLOAT32,
        classifier_config=coremltools.ClassifierConfig(_NAMES, predicted_probabilities_output="probabilities"),
        skip_model_load=True,
    )
    model.save(str(path := tmp_path / "classes.mlpackage"))
    return path


def test_classifier_gives_the_best_name_and_every_probability(package: Path) -> None:
    model = load_model(package)
    assert isinstance(model, Classifier)
    results = model.run({"x": np.array([[0.25, 0.5, 0.25]], np.float32)})
    assert results["classLabel"] == "bee"
    assert results["classLabel_probs"] == {"ant": 0.25, "bee": 0.5, "cat": 0.25}
    assert np.asarray(results["doubled"]).tolist() == [[0.5, 1, 0.5]]


def test_first_of_equal_classes_wins(package: Path) -> None:
    assert load_model(package).run({"x": np.array([[0.2, 0.4, 0.4]], np.float32)})["classLabel"] == "bee"


def test_classifier_describes_its_outputs(package: Path) -> None:
    model = load_model(package)
    assert model.outputs == (
        Feature("classLabel", (), "string"),
        Feature("classLabel_probs", (3,), "dictionary"),
        Feature("doubled", (1, 3), "float32"),
    )
    assert model.op_types()["classify"] == 1


def test_classifier_is_no_program_alone(package: Path) -> None:
    with pytest.raises(ProgramError, match="is a classifier, not an ML program alone"):
        load_program(package)


def _classes(operations: Any) -> Any:
    return operations[-1].inputs["classes"].arguments[0].value.immediateValue.list.values


def _drop_a_class(operations: Any) -> None:
    del _classes(operations)[-1]


def _repeat_a_class(operations: Any) -> None:
    _classes(operations)[2].CopyFrom(_classes(operations)[1])


def _empty_a_class(operations: Any) -> None:
    del _classes(operations)[1].immediateValue.tensor.strings.values[:]


def _drop_the_classes(operations: Any) -> None:
    del operations[-1].inputs["classes"]


def _drop_an_output(operations: Any) -> None:
    del operations[-1].outputs[1]


def _classify_nothing(operations: Any) -> None:
    operations[-1].inputs["probabilities"].arguments[0].name = "nothing"


def _classify_first(operations: Any) -> None:
    operations.append(operations[0])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(_drop_a_class, "has 2 names, 2 different ones, for probabilities of shape", id="fewer classes"),
        pytest.param(_repeat_a_class, "has 3 names, 2 different ones, for probabilities", id="a class twice"),
        pytest.param(_empty_a_class, "has classes that are no texts", id="a class without a name"),
        pytest.param(_drop_the_classes, "has not the form of a classifier", id="no classes"),
        pytest.param(_drop_an_output, "has not the form of a classifier", id="one output"),
        pytest.param(_classify_nothing, "results that it does not compute: nothing", id="unknown probabilities"),
        pytest.param(_classify_first, "only tensors can be evaluated", id="an op after it"),
    ],
)
def test_damaged_classifier_is_refused(damage: Callable[[Any], None], message: str, package: Path) -> None:
    def change(model: Any) -> None:
        function = model.mlProgram.functions["main"]
        damage(function.block_specializations[function.opset].operations)

    edit_specification(package, change)
    with pytest.raises(ProgramError, match=message):
        load_model(package)
