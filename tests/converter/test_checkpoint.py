"""Checkpoints of users are read or refused, and nothing in them ever runs."""

import argparse
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from converter.refusals import refuse_file
from modelexport.api.reasons import Reason
from modelexport_converter.checkpoints import archive
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.failures import Failure
from trained.yolov8_cells import CLASSES, WEIGHTS


class Payload:
    """Unpickling it creates a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("architecture", WEIGHTS)
def test_ultralytics_checkpoint_loads_without_ultralytics(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "ultralytics"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    checkpoint = read_checkpoint(WEIGHTS[architecture])
    assert tuple(checkpoint.facts["names"].values()) == CLASSES
    assert checkpoint.facts["imgsz"] in {128, 160}
    assert checkpoint.tensors["model.0.conv.weight"].shape == (16, 3, 3, 3)
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {torch.float32, torch.int64}


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    torch.save({"ema": {"w": torch.ones(1)}, "model": {"w": torch.zeros(1)}}, tmp_path / "x.pt")
    assert read_checkpoint(tmp_path / "x.pt").tensors["w"].item() == 1


def test_bare_state_dict_loads(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2, dtype=torch.float16)}, tmp_path / "x.pt")
    assert read_checkpoint(tmp_path / "x.pt").tensors["w"].dtype is torch.float32


@pytest.mark.parametrize("name", ["model", "state_dict", "model_state_dict", "ema", "model_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_wrapped_weights_and_their_metadata_are_found(tmp_path: Path, name: str, prefix: str) -> None:
    weights = {f"{prefix}a.w": torch.ones(2), f"{prefix}module.w": torch.ones(2)}
    torch.save({name: weights, "optimizer": {"state": {}}, "epoch": 3, "names": ["x", "y"]}, tmp_path / "x.pt")
    checkpoint = read_checkpoint(tmp_path / "x.pt")
    assert set(checkpoint.tensors) == {"a.w", "module.w"}
    assert (checkpoint.facts["names"], checkpoint.facts["epoch"]) == (["x", "y"], 3)


def test_counter_of_averaged_weights_is_ignored(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(1, 1))
    torch.save({"model_ema": averaged.state_dict(), "model": {"weight": torch.zeros(1)}}, tmp_path / "x.pt")
    assert set(read_checkpoint(tmp_path / "x.pt").tensors) == {"weight", "bias"}


def test_layer_named_model_is_not_unwrapped(tmp_path: Path) -> None:
    torch.save({"model": torch.ones(2), "other": torch.ones(2)}, tmp_path / "x.pt")
    assert set(read_checkpoint(tmp_path / "x.pt").tensors) == {"model", "other"}


def test_torchvision_training_checkpoint_loads(tmp_path: Path) -> None:
    arguments = argparse.Namespace(model="fcn_resnet50", epochs=30, lr=0.01)
    torch.save({"model": {"w": torch.ones(1)}, "epoch": 29, "args": arguments}, tmp_path / "x.pt")
    assert set(read_checkpoint(tmp_path / "x.pt").tensors) == {"w"}


def test_methods_and_paths_in_ultralytics_pickle_stay_inert(tmp_path: Path) -> None:
    kept = {"detect": torch.nn.Conv2d.forward, "train_args": {"project": tmp_path, "imgsz": 320}}
    torch.save({"model": {"w": torch.ones(1)}, **kept}, tmp_path / "x.pt")
    checkpoint = read_checkpoint(tmp_path / "x.pt")
    assert set(checkpoint.tensors) == {"w"}
    assert checkpoint.facts == {"imgsz": 320}


def test_safetensors_load_with_metadata(tmp_path: Path) -> None:
    facts = {"names": json.dumps({"0": "cat"}), "imgsz": "320", "note": "free text"}
    save_file({"w": torch.ones(2)}, tmp_path / "x.safetensors", facts)
    checkpoint = read_checkpoint(tmp_path / "x.safetensors")
    assert checkpoint.facts == {"names": {"0": "cat"}, "imgsz": 320, "note": "free text"}
    assert list(checkpoint.tensors) == ["w"]


def test_safetensors_length_resembling_pickle_is_not_pickle(tmp_path: Path) -> None:
    for length in range(500, 800):
        save_file({"w": torch.ones(2)}, tmp_path / "x", {"note": "x" * length})
        if (tmp_path / "x").read_bytes().startswith(b"\x80\x02"):
            assert list(read_checkpoint(tmp_path / "x").tensors) == ["w"]
            return
    raise AssertionError("no length of a header begins so")


def test_format_is_detected_by_content_not_name(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "x.pt")
    assert list(read_checkpoint(tmp_path / "x.pt").tensors) == ["w"]


def test_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    failure = refuse_file(tmp_path / "none.pt")
    assert failure.reason is Reason.CHECKPOINT_UNREADABLE
    assert "No such file" in str(failure)


def test_empty_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pt").touch()
    failure = refuse_file(tmp_path / "x.pt")
    assert failure.reason is Reason.CHECKPOINT_UNREADABLE
    assert "(0 bytes)" in str(failure)


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "pt2"])
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_truncated_checkpoint_error_gives_size(tmp_path: Path, suffix: str, share: float) -> None:
    whole = tmp_path / f"whole.{suffix}"
    {"pt": _write_pt, "safetensors": _write_safetensors, "pt2": _write_pt2}[suffix](whole)
    size = int(whole.stat().st_size * share)
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[:size])
    failure = refuse_file(cut)
    assert failure.reason is Reason.CHECKPOINT_UNREADABLE
    assert f"({size} bytes)" in str(failure)


def _write_pt(path: Path) -> None:
    torch.save({"model": {"w": torch.ones(1000)}}, path)


def _write_safetensors(path: Path) -> None:
    save_file({"w": torch.ones(1000)}, path)


def _write_pt2(path: Path) -> None:
    torch.export.save(torch.export.export(torch.nn.Linear(3, 2).eval(), (torch.zeros(1, 3),)), path)


@pytest.mark.parametrize(
    "content", [b"hello, I am no checkpoint", b"PK\x03\x04 nor a zip", b"\x89PNG\r\n\x1a\n" + bytes(64)]
)
def test_non_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    assert refuse_file(tmp_path / "x.pt").reason is Reason.CHECKPOINT_UNREADABLE


def test_unrelated_zip_file_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/readme.txt", "hello")
    assert "neither torch.save nor torch.export.save wrote it" in str(refuse_file(tmp_path / "x.pt"))


def test_program_of_older_torch_is_refused_with_remedy(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    assert "export the model again with torch 2.8 or newer" in str(refuse_file(tmp_path / "x.pt2"))


def test_torchscript_archive_is_refused_with_remedy(tmp_path: Path) -> None:
    with pytest.warns((DeprecationWarning, FutureWarning), match="torch.jit"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(3, 2)), tmp_path / "x.pt")
    failure = refuse_file(tmp_path / "x.pt")
    assert failure.reason is Reason.CHECKPOINT_UNREADABLE
    assert "torch.export.save" in str(failure)


def test_non_finite_weights_are_refused_by_name(tmp_path: Path) -> None:
    torch.save(
        {"model": {"a": torch.ones(3), "b.weight": torch.tensor([1.0, float("nan"), float("inf")])}}, tmp_path / "x.pt"
    )
    tensors = read_checkpoint(tmp_path / "x.pt").tensors
    assert tensors["a"].tolist() == [1, 1, 1]
    with pytest.raises(Failure, match=r"2 of 3 values of b\.weight") as caught:
        dict(tensors)
    assert caught.value.reason is Reason.WEIGHTS_NOT_FINITE


def test_unknown_class_loads_as_plain_data(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.GELU())}, tmp_path / "x.pt")
    assert set(read_checkpoint(tmp_path / "x.pt").tensors) == {"0.weight", "0.bias"}


def test_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "UNPACKED_LIMIT", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in ("archive/data.pkl", "archive/version"):
            bomb.writestr(name, bytes(1 << 20))
    failure = refuse_file(tmp_path / "bomb.pt")
    assert failure.reason is Reason.CHECKPOINT_UNREADABLE
    assert "it unpacks to 2,097,152 bytes, the limit is 1,048,576" in str(failure)


def test_expanded_tensor_without_bound_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(1 << 20, 1 << 20)}, tmp_path / "flat.pt")
    failure = refuse_file(tmp_path / "flat.pt")
    assert failure.reason is Reason.CHECKPOINT_UNREADABLE
    assert "its tensors come to more than" in str(failure)
