"""The refusal of a file that is no checkpoint names its kind and a way out that works."""

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from converter.refusals import refuse_file
from modelexport.api.reasons import Reason
from modelexport.api.spec import DataRef
from modelexport_converter import stores
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.fetch import CHECKPOINT, fetch
from modelexport_converter.stores.opening import open_store

WEIGHTS = {"a.weight": torch.rand(3, 4), "a.bias": torch.rand(3)}


def saved(content: object = WEIGHTS) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def tensors(folder: Path) -> bytes:
    save_file(WEIGHTS, folder / "x.safetensors")
    return (folder / "x.safetensors").read_bytes()


def tar(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("runs/best.pt")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return stream.getvalue()


def arrays() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(3), b=np.ones(2))
    return stream.getvalue()


def script() -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), stream)
    return stream.getvalue()


def onnx() -> bytes:
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    return helper.make_model(graph).SerializeToString()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 6549796\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
UNPACK = "unpack it, and upload the checkpoint that is in it"
MAKE_CHECKPOINT = "use the checkpoint itself"

KINDS: dict[str, tuple[Callable[[Path], bytes], str, str]] = {
    "Git LFS": (lambda _: LFS, "a pointer of Git LFS", "run git lfs pull"),
    "page": (lambda _: PAGE, "an HTML or XML page", "signed in"),
    "answer": (
        lambda _: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "an HTML or XML page",
        "signed in",
    ),
    "words": (lambda _: b"Not Found", "it is a text", "check the uploaded file"),
    "JSON": (lambda _: b'{"error": "Invalid credentials in Authorization header"}', "it is a text", "uploaded file"),
    "gzip": (lambda _: gzip.compress(saved()), "packed by gzip", UNPACK),
    "tar.gz": (lambda _: gzip.compress(tar(saved())), "packed by gzip", UNPACK),
    "xz": (lambda _: lzma.compress(saved()), "packed by xz", UNPACK),
    "bzip2": (lambda _: bz2.compress(saved()), "packed by bzip2", UNPACK),
    "7z": (lambda _: b"7z\xbc\xaf\x27\x1c\0\4" + bytes(64), "an archive of 7-Zip", UNPACK),
    "rar": (lambda _: b"Rar!\x1a\x07\1\0" + bytes(64), "an archive of RAR", UNPACK),
    "tar": (lambda _: tar(saved()), "a tar archive, whose first file is runs/best.pt", UNPACK),
    "zip": (lambda _: zipped(best_dot_pt=saved()), "a zip archive that holds best.pt", UNPACK),
    "npz": (lambda _: arrays(), "an .npz of NumPy", "save the state_dict of the model with torch.save"),
    "Core ML": (
        lambda _: zipped(m_dot_mlpackage__Data__model_dot_mlmodel=b"x"),
        "it is a Core ML package",
        MAKE_CHECKPOINT,
    ),
    "SavedModel": (lambda _: zipped(m__saved_model_dot_pb=b"x"), "it is a TensorFlow SavedModel", MAKE_CHECKPOINT),
    "TorchScript": (lambda _: script(), "it is a TorchScript archive", "save the model with torch.export.save"),
    "ONNX": (lambda _: onnx(), "it is an ONNX file", MAKE_CHECKPOINT),
    "LiteRT": (lambda _: b"\x1c\0\0\0TFL3" + bytes(64), "it is a LiteRT (TFLite) file", MAKE_CHECKPOINT),
    "HDF5": (lambda _: b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file, as Keras writes", "as .pt2"),
    "npy": (lambda _: b"\x93NUMPY\1\0" + bytes(64), "an array of NumPy", "with torch.save"),
    "zeros": (lambda _: bytes(4096), "its first bytes are zeros", "upload it again"),
    "cut .pt": (lambda _: saved()[:-30], "its end is missing or damaged", "upload it again"),
    "cut tensors": (lambda folder: tensors(folder)[:-8], "it was probably cut", "upload it again"),
    "cut header": (lambda folder: tensors(folder)[:30], "it was probably cut", "upload it again"),
    "arrays": (
        lambda _: saved({"state_dict": {name: value.numpy() for name, value in WEIGHTS.items()}}),
        "its weights are arrays of NumPy",
        "torch.from_numpy of each",
    ),
    "pickle": (lambda _: pickle.dumps({"a": [1.0]}), "a pickle that torch.save did not write", "with torch.save"),
}


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_non_checkpoint_error_names_detected_format(kind: str, tmp_path: Path) -> None:
    make, what, way_out = KINDS[kind]
    (tmp_path / "best.pt").write_bytes(make(tmp_path))
    failure = refuse_file(tmp_path / "best.pt")
    assert failure.reason is Reason.CHECKPOINT_UNREADABLE
    message = str(failure)
    assert what in message
    assert way_out in message


def test_numpy_arrays_load_as_tensors(tmp_path: Path) -> None:
    content = {"a": np.ones((2, 2), np.float32)}
    torch.save({name: torch.from_numpy(array) for name, array in content.items()}, tmp_path / "x.pt")
    assert read_checkpoint(tmp_path / "x.pt").tensors["a"].shape == (2, 2)


@pytest.mark.filterwarnings("ignore")  # torch warns that one process saves what several may
def test_distributed_checkpoint_becomes_one_file(tmp_path: Path) -> None:
    from torch.distributed.checkpoint import format_utils, state_dict_saver

    folder = tmp_path / "store/bucket/last.ckpt"
    state_dict_saver.save({"model": dict(WEIGHTS)}, checkpoint_id=str(folder), no_dist=True)
    store, way_out = open_store({"MODELEXPORT_STORE": str(tmp_path / "store")}), "dcp_to_torch FOLDER model.pt"
    with pytest.raises(Failure, match=r"last\.ckpt is a folder of torch\.distributed; make one file of it") as caught:
        fetch(store, {}, DataRef("s3://bucket/last.ckpt"), CHECKPOINT, tmp_path / "x")
    assert caught.value.reason is Reason.CHECKPOINT_NOT_FOUND
    assert way_out in str(caught.value)
    for name in (".metadata", "__0_0.distcp"):
        failure = refuse_file(folder / name)
        assert failure.reason is Reason.CHECKPOINT_UNREADABLE
        assert way_out in str(failure)
    format_utils.dcp_to_torch_save(folder, tmp_path / "model.pt")
    found = read_checkpoint(tmp_path / "model.pt")
    assert found.tensors.keys() == WEIGHTS.keys()
    assert found.part == "model"


def test_folder_instead_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bucket/run/weights").mkdir(parents=True)
    (tmp_path / "bucket/run/weights/best.pt").touch()
    store = open_store({"MODELEXPORT_STORE": str(tmp_path)})
    with pytest.raises(Failure, match=r"run is a folder that holds weights/best\.pt; use the URI"):
        fetch(store, {}, DataRef("s3://bucket/run"), CHECKPOINT, tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (WEIGHTS, ""),
        ({"model": WEIGHTS}, "model"),
        ({"model": {"a.weight": torch.zeros(3, 4)}, "ema": WEIGHTS}, "ema"),
        ({"checkpoint": {"state_dict": WEIGHTS, "epoch": 3}}, "checkpoint.state_dict"),
    ],
)
def test_location_of_weights_is_recorded(content: object, part: str, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(saved(content))
    found = read_checkpoint(tmp_path / "x.pt")
    assert found.part == part
    assert found.tensors["a.weight"].sum() > 0


def test_endless_image_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelexport.api.spec import Calibration
    from modelexport_converter.inputs.dataset import fetch_dataset

    monkeypatch.setattr(stores, "NAMES_LIMIT", 3)
    (tmp_path / "data/many").mkdir(parents=True)
    for index in range(4):
        (tmp_path / f"data/many/{index}.png").touch()
    store = open_store({"MODELEXPORT_STORE": str(tmp_path)})
    with pytest.raises(Failure, match=r"many/ holds more than 3 objects; name a folder of fewer, or a zip") as caught:
        fetch_dataset(store, {}, Calibration(DataRef("s3://data/many/"), 3), tmp_path)
    assert caught.value.reason is Reason.CALIBRATION_TOO_LARGE
