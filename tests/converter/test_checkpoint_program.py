"""Archives of torch.export: used as they are, when they hold nothing but tensors and operators."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from converter.refusals import refuse_file
from converter.test_checkpoint import Payload
from modelexport.api.reasons import Reason
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.programs.module import ProgramModule

Edit = Callable[[str, bytes, Payload], bytes]


def write_program(path: Path) -> None:
    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x).relu()

    torch.export.save(torch.export.export(Small().eval(), (torch.zeros(1, 3),)), path)


def rewrite(
    source: Path, target: Path, edit: Callable[[str, bytes], bytes], more: dict[str, bytes] | None = None
) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, edit(name.partition("/")[2], old.read(name)))
        for name, content in (more or {}).items():
            new.writestr(f"{source.stem}/{name}", content)


def edit_json(content: bytes, change: Callable[[Any], None]) -> bytes:
    data = json.loads(content)
    change(data)
    return json.dumps(data).encode()


def test_program_loads_and_runs_as_saved(tmp_path: Path) -> None:
    write_program(tmp_path / "x.pt2")
    checkpoint = read_checkpoint(tmp_path / "x.pt2")
    assert checkpoint.program is not None
    weight, bias = (checkpoint.tensors[name] for name in ("linear.weight", "linear.bias"))
    (found,) = ProgramModule(checkpoint.program)(torch.ones(1, 3))
    torch.testing.assert_close(found, (torch.ones(1, 3) @ weight.T + bias).relu())


def _operator(name: str, content: bytes, payload: Payload) -> bytes:
    """Any dotted name below torch is resolved, and torch's modules import os."""

    def change(graph: Any) -> None:
        graph["graph_module"]["graph"]["nodes"][-1]["target"] = "torch.serialization.os.system"

    return edit_json(content, change) if name == "models/model.json" else content


def _symbolic_expression(name: str, content: bytes, payload: Payload) -> bytes:
    """Expressions go through sympy, which evaluates them as Python."""
    evil = {"as_expr": {"expr_str": f"__import__('os').system('touch {payload.proof}')", "hint": None}}

    def change(graph: Any) -> None:
        next(iter(graph["graph_module"]["graph"]["tensor_values"].values()))["sizes"][0] = evil

    return edit_json(content, change) if name == "models/model.json" else content


def _pickled_weight(name: str, content: bytes, payload: Payload) -> bytes:
    def change(config: Any) -> None:
        config["config"]["linear.weight"]["use_pickle"] = True

    if name == "data/weights/weight_0":
        return _saved(payload)
    return edit_json(content, change) if name.endswith("weights_config.json") else content


def _pickled_object(name: str, content: bytes, payload: Payload) -> bytes:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": None}

    def change(config: Any) -> None:
        config["config"]["evil"] = entry

    return edit_json(content, change) if name.endswith("constants_config.json") else content


def _sample_inputs(name: str, content: bytes, payload: Payload) -> bytes:
    return _saved(payload) if name.startswith("data/sample_inputs/") else content


def _guard(name: str, content: bytes, payload: Payload) -> bytes:
    def change(graph: Any) -> None:
        graph["guards_code"] = [f"__import__('os').system('touch {payload.proof}')"]

    return edit_json(content, change) if name == "models/model.json" else content


def _saved(payload: Payload) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (_operator, "torch.serialization.os.system"),
        (_symbolic_expression, "symbolic shapes"),
        (_pickled_weight, "linear.weight"),
        (_pickled_object, "opaque_obj_0"),
        (_guard, "guards"),
    ],
)
def test_malicious_program_never_runs(tmp_path: Path, edit: Edit, named: str) -> None:
    write_program(tmp_path / "good.pt2")
    payload = Payload(tmp_path / "it-ran")
    rewrite(tmp_path / "good.pt2", tmp_path / "x.pt2", lambda name, content: edit(name, content, payload))
    failure = refuse_file(tmp_path / "x.pt2")
    assert not payload.proof.exists()
    assert failure.reason is Reason.CHECKPOINT_UNSAFE, failure
    assert named in str(failure)


def test_example_inputs_are_not_loaded(tmp_path: Path) -> None:
    write_program(tmp_path / "good.pt2")
    payload = Payload(tmp_path / "it-ran")
    rewrite(tmp_path / "good.pt2", tmp_path / "x.pt2", lambda name, content: _sample_inputs(name, content, payload))
    assert read_checkpoint(tmp_path / "x.pt2").program is not None
    assert not payload.proof.exists()


@pytest.mark.parametrize("record", ["data/aotinductor/model/evil.so", "data/constants/opaque_obj_0"])
def test_program_holding_more_than_tensors_is_refused(tmp_path: Path, record: str) -> None:
    write_program(tmp_path / "good.pt2")
    more = {record: pickle.dumps(Payload(tmp_path / "it-ran"))}
    rewrite(tmp_path / "good.pt2", tmp_path / "x.pt2", lambda _, content: content, more)
    failure = refuse_file(tmp_path / "x.pt2")
    assert failure.reason is Reason.CHECKPOINT_UNSAFE
    assert record in str(failure)


def test_dynamic_program_is_refused_with_remedy(tmp_path: Path) -> None:
    shapes = ({0: torch.export.Dim("batch", min=1, max=8)},)
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(2, 3),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "x.pt2")
    failure = refuse_file(tmp_path / "x.pt2")
    assert failure.reason is Reason.CHECKPOINT_MISMATCH
    assert "static shapes, without dynamic_shapes" in str(failure)


@pytest.mark.parametrize("record", ["models/model.json", "data/weights/model_weights_config.json"])
def test_program_on_gpu_is_refused_with_remedy(tmp_path: Path, record: str) -> None:
    write_program(tmp_path / "good.pt2")
    on_device = (b'"type": "cpu"', b'"type": "cuda"')
    rewrite(
        tmp_path / "good.pt2",
        tmp_path / "x.pt2",
        lambda name, content: content.replace(*on_device) if name == record else content,
    )
    failure = refuse_file(tmp_path / "x.pt2")
    assert failure.reason is Reason.CHECKPOINT_MISMATCH
    assert "was exported on cuda; move the model and its example input to the CPU" in str(failure)


def test_old_program_layout_never_reaches_unpickler(tmp_path: Path) -> None:
    """torch.export.load falls back to an older layout, whose parts are pickles."""
    payload = Payload(tmp_path / "it-ran")
    write_program(tmp_path / "good.pt2")
    rewrite(
        tmp_path / "good.pt2",
        tmp_path / "x.pt2",
        lambda name, content: b"{}" if name == "models/model.json" else content,
    )
    with zipfile.ZipFile(tmp_path / "x.pt2", "a") as archive:
        archive.writestr("version", "8.20")
        archive.writestr("serialized_exported_program.json", b"{}")
        for name in ("state_dict", "constants", "example_inputs"):
            archive.writestr(f"serialized_{name}.pt", _saved(payload))
    assert refuse_file(tmp_path / "x.pt2").reason in {Reason.CHECKPOINT_UNREADABLE, Reason.CHECKPOINT_UNSAFE}
    assert not payload.proof.exists()


class Masked(torch.nn.Module):
    """A weight that is trained, beside a mask of -inf and 0 that is not."""

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.register_buffer("mask", torch.tensor([-torch.inf, 0]), persistent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.weight + self.get_buffer("mask")).softmax(1)


def write_masked(path: Path, module: torch.nn.Module) -> None:
    torch.export.save(torch.export.export(module.eval(), (torch.zeros(1, 2),)), path)


@pytest.mark.parametrize(("persistent", "folder"), [(True, "weights"), (False, "constants")])
def test_expanded_tensor_in_program_is_refused(tmp_path: Path, persistent: bool, folder: str) -> None:
    """torch reads bytes, shape and strides from the archive; each of them may be anything."""
    write_masked(tmp_path / "good.pt2", Masked(persistent))

    def stretch(name: str, content: bytes) -> bytes:
        def change(config: Any) -> None:
            meta = config["config"]["mask"]["tensor_meta"]
            meta["sizes"], meta["strides"] = [{"as_int": 1 << 40}], [{"as_int": 0}]

        return edit_json(content, change) if name == f"data/{folder}/model_{folder}_config.json" else content

    rewrite(tmp_path / "good.pt2", tmp_path / "x.pt2", stretch)
    failure = refuse_file(tmp_path / "x.pt2")
    assert failure.reason is Reason.CHECKPOINT_UNREADABLE
    assert "its tensors come to 4,398,046,511,112 bytes, the limit is 4,294,967,296" in str(failure)


@pytest.mark.parametrize("persistent", [True, False])
def test_mask_may_be_infinite_but_not_nan(tmp_path: Path, persistent: bool) -> None:
    module = Masked(persistent)
    write_masked(tmp_path / "x.pt2", module)
    assert read_checkpoint(tmp_path / "x.pt2").tensors["mask"].tolist() == [-torch.inf, 0]
    module.get_buffer("mask")[0] = torch.nan
    write_masked(tmp_path / "x.pt2", module)
    failure = refuse_file(tmp_path / "x.pt2")
    assert failure.reason is Reason.WEIGHTS_NOT_FINITE
    assert "1 of 2 values of mask" in str(failure)


def test_program_weight_may_not_be_infinite(tmp_path: Path) -> None:
    module = Masked(persistent=True)
    torch.nn.init.constant_(module.weight, torch.inf)
    write_masked(tmp_path / "x.pt2", module)
    assert "2 of 2 values of weight" in str(refuse_file(tmp_path / "x.pt2"))
