"""From the saved `.mlpackage`: reading, proof of precision, and damaged files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - its name everywhere
from coremltools.optimize import coreml as compression

from converter.coreml.building import SPECIFICATION, TARGET, edit_specification, normal
from modelexport_converter.coreml import ProgramError, load_program
from modelexport_converter.coreml.library import Model_pb2, coremltools

_WEIGHT, _BIAS = normal(8, 64, seed=1), normal(8, seed=2)
_X = normal(2, 64)
_EXPECTED = _X @ _WEIGHT.T + _BIAS
_WEIGHT_FILE = "Data/com.apple.CoreML/weights/weight.bin"


def _convert(precision: str = "FLOAT32", target: Any = TARGET.iOS16) -> Any:
    def linear(x: Any) -> Any:
        return mb.linear(x=x, weight=_WEIGHT, bias=_BIAS, name="y")

    return coremltools.convert(
        mb.program(input_specs=[mb.TensorSpec(shape=_X.shape)], opset_version=target)(linear),
        minimum_deployment_target=target,
        compute_precision=getattr(coremltools.precision, precision),
        skip_model_load=True,
    )


def _compress(compress: Callable[..., Any], options: Any, target: Any = TARGET.iOS16) -> Any:
    return compress(_convert(target=target), compression.OptimizationConfig(global_config=options))


def _quantised() -> Any:
    return _compress(compression.linear_quantize_weights, compression.OpLinearQuantizerConfig(weight_threshold=64))


def _quantised_to_4_bits() -> Any:
    options = compression.OpLinearQuantizerConfig(
        dtype="int4", granularity="per_block", block_size=16, weight_threshold=64
    )
    return _compress(compression.linear_quantize_weights, options, TARGET.iOS18)


def _palettised(bits: int, target: Any) -> Any:
    options = compression.OpPalettizerConfig(mode="uniform", nbits=bits, weight_threshold=64)
    return _compress(compression.palettize_weights, options, target)


def _pruned() -> Any:
    options = compression.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=64)
    return _compress(compression.prune_weights, options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "linear.mlpackage"
    _convert().save(str(path))
    return path


@pytest.fixture
def package(saved: Path, tmp_path: Path) -> Path:
    """A copy of the saved package, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / saved.name))


@pytest.mark.parametrize(
    ("convert", "weights"),
    [
        pytest.param(_convert, {"float32": 520}, id="fp32"),
        pytest.param(lambda: _convert("FLOAT16"), {"float16": 520}, id="fp16"),
        pytest.param(_quantised, {"int8": 512, "float32": 8}, id="int8"),
        pytest.param(_quantised_to_4_bits, {"int4": 512, "float32": 8}, id="int4 in blocks"),
        pytest.param(lambda: _palettised(8, TARGET.iOS16), {"palette8": 512, "float32": 8}, id="an 8-bit palette"),
        pytest.param(lambda: _palettised(6, TARGET.iOS16), {"palette6": 512, "float32": 8}, id="a 6-bit palette"),
        pytest.param(
            lambda: _palettised(3, TARGET.iOS18), {"palette3": 512, "float32": 8}, id="a 3-bit palette of iOS18"
        ),
        pytest.param(_pruned, {"sparse float32": 512, "float32": 8}, id="sparse fp32"),
    ],
)
def test_weights_are_counted_and_decompressed_as_in_coremltools(
    convert: Callable[[], Any], weights: dict[str, int], tmp_path: Path
) -> None:
    model = convert()
    model.save(str(tmp_path / "stored.mlpackage"))
    compression.decompress_weights(model).save(str(tmp_path / "dense.mlpackage"))
    stored, dense = (load_program(tmp_path / f"{name}.mlpackage") for name in ("stored", "dense"))

    assert stored.weight_types() == weights
    found: list[Any] = [program.run({"x": _X})["y"] for program in (stored, dense)]
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("convert", "tolerance"),
    [
        pytest.param(_convert, 1e-5, id="fp32 within 1e-5"),
        # Inputs and weights of about 1 with 11 bits each, 64 products of them.
        pytest.param(lambda: _convert("FLOAT16"), 0.02, id="fp16 within 0.02"),
        # Half a step of 3/127, 64 times, in random directions.
        pytest.param(_quantised, 0.2, id="int8 within 0.2"),
    ],
)
def test_saved_program_runs_in_converted_precision(
    convert: Callable[[], Any], tolerance: float, tmp_path: Path
) -> None:
    convert().save(str(tmp_path / "linear.mlpackage"))
    result: Any = load_program(tmp_path / "linear.mlpackage").run({"x": _X})["y"]

    np.testing.assert_allclose(result, _EXPECTED, rtol=0, atol=tolerance)


def test_package_can_be_deleted_after_run(package: Path) -> None:
    program = load_program(package)
    program.run({"x": _X})
    shutil.rmtree(package)

    result: Any = program.run({"x": _X})["y"]
    np.testing.assert_allclose(result, _EXPECTED, rtol=0, atol=1e-5)


def _remove_manifest(package: Path) -> None:
    (package / "Manifest.json").unlink()


def _empty_manifest(package: Path) -> None:
    (package / "Manifest.json").write_text(json.dumps({}))


def _list_manifest(package: Path) -> None:
    (package / "Manifest.json").write_text(json.dumps([]))


def _point_at_another_package(package: Path) -> None:
    other = shutil.copytree(package, package.parent / "other.mlpackage")
    manifest = json.loads((package / "Manifest.json").read_text())
    entry = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
    entry["path"] = str(other / SPECIFICATION)
    (package / "Manifest.json").write_text(json.dumps(manifest))


def _remove_specification(package: Path) -> None:
    (package / SPECIFICATION).unlink()


def _cut_specification(package: Path) -> None:
    path = package / SPECIFICATION
    path.write_bytes(path.read_bytes()[:-7])


def _remove_weights(package: Path) -> None:
    (package / _WEIGHT_FILE).unlink()


def _cut_weights(package: Path) -> None:
    path = package / _WEIGHT_FILE
    path.write_bytes(path.read_bytes()[:-100])


def _cut_records(package: Path) -> None:
    path = package / _WEIGHT_FILE
    path.write_bytes(path.read_bytes()[:70])


def _scramble_record(package: Path) -> None:
    path = package / _WEIGHT_FILE
    path.write_bytes(path.read_bytes().replace(bytes.fromhex("efbeadde"), bytes(4)))


def _grow_weight(package: Path) -> None:
    edit_specification(
        package, lambda model: _blob_values(model)[0].type.tensorType.dimensions[0].constant.__setattr__("size", 9)
    )


def _point_outside(package: Path) -> None:
    (package.parent / "secret.bin").write_bytes(b"secret")
    name = "@model_path/../../../secret.bin"
    edit_specification(package, lambda model: _blob_values(model)[0].blobFileValue.__setattr__("fileName", name))


def _rename_function(package: Path) -> None:
    def rename(model: Any) -> None:
        functions = model.mlProgram.functions
        functions["other"].CopyFrom(functions["main"])
        del functions["main"]

    edit_specification(package, rename)


def _replace_by_another_kind(package: Path) -> None:
    model = Model_pb2.Model(specificationVersion=4)
    model.neuralNetwork.SetInParent()
    (package / SPECIFICATION).write_bytes(model.SerializeToString())


def _blob_values(model: Any) -> list[Any]:
    function = model.mlProgram.functions["main"]
    operations = function.block_specializations[function.opset].operations
    values = [op.attributes["val"] for op in operations if op.type == "const"]
    return [value for value in values if value.WhichOneof("value") == "blobFileValue"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(_remove_manifest, "is not an .mlpackage: FileNotFoundError", id="without its manifest"),
        pytest.param(_empty_manifest, "is not an .mlpackage: KeyError", id="with an empty manifest"),
        pytest.param(_list_manifest, "is not an .mlpackage: TypeError", id="with a list as its manifest"),
        pytest.param(_point_at_another_package, "a specification outside of it", id="of another's specification"),
        pytest.param(_remove_specification, "cannot read the specification", id="without its specification"),
        pytest.param(_cut_specification, "cannot read the specification", id="with a truncated specification"),
        pytest.param(_remove_weights, "weight file that is not in the package", id="without its weights"),
        pytest.param(_cut_weights, "weight.bin is truncated", id="with truncated weights"),
        pytest.param(_cut_records, "weight.bin ends before the blob", id="with next to no weights"),
        pytest.param(_scramble_record, "weight.bin has no blob at offset", id="with scrambled weights"),
        pytest.param(
            _grow_weight, r"a float32 tensor of shape \[9.* needs .* bytes", id="with a weight of another size"
        ),
        pytest.param(_point_outside, "not in the package: .*secret.bin", id="that points at another file"),
        pytest.param(_rename_function, "has no function 'main', but .*other", id="without a main function"),
        pytest.param(_replace_by_another_kind, "is a neuralNetwork, not an ML program", id="of the older kind"),
    ],
)
def test_loading_refuses_package(damage: Callable[[Path], None], message: str, package: Path) -> None:
    damage(package)

    with pytest.raises(ProgramError, match=message):
        load_program(package)
