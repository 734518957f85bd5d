"""Checkpoints made to do harm: each is refused with its reason, within 10 s and 1 GiB, and nothing of it runs."""

import codecs
import io
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modelexport.api.reasons import Reason
from modelexport_converter.architectures.yolov8.loader import load
from modelexport_converter.checkpoints.archive import TorchArchive
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.checkpoints.denylist import is_harmful
from modelexport_converter.checkpoints.lazy_weights import read_one
from modelexport_converter.checkpoints.module_tree import Module
from modelexport_converter.checkpoints.pickles import PickledObject, Storage, StoredTensor
from modelexport_converter.failures import Failure
from security.canary import SECRET, canary
from security.hostile_pickles import (
    GOOD,
    PROTOCOL_2,
    STOP,
    archive,
    beside,
    number,
    state_dict,
    storage,
    tensor,
    text,
    two_tables,
    ways_to_call,
)
from trained.cells import ask

OUTCOMES = {
    Reason.CHECKPOINT_UNSAFE,
    Reason.CHECKPOINT_UNREADABLE,
    Reason.CHECKPOINT_MISMATCH,
    Reason.WEIGHTS_NOT_FINITE,
}


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Do all imports of the readers before the canary listens."""
    for name in ("cp437", "raw_unicode_escape"):  # of names in zip files, of texts in old pickles
        codecs.lookup(name)
    folder = tmp_path_factory.mktemp("warm")
    torch.save({"w": torch.ones(1)}, folder / "x.pt")
    save_file({"w": torch.ones(1)}, folder / "x.safetensors")
    for name in ("x.pt", "x.safetensors"):
        dict(read_checkpoint(folder / name).tensors)
    (folder / "y.pt").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(Failure):
        read_checkpoint(folder / "y.pt")


def refuse(path: Path) -> Failure:
    """The failure of a checkpoint whose weights are all read."""
    with canary(path) as held, pytest.raises(Failure) as caught:
        dict(read_checkpoint(path).tensors)
    held.check()
    assert caught.value.reason in OUTCOMES
    assert SECRET not in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert not list(path.parent.glob("it-ran*"))
    return caught.value


def reason_of(path: Path) -> Reason | None:
    try:
        dict(read_checkpoint(path).tensors)
    except Failure as failure:
        return failure.reason
    return None


def accept(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint with something harmless beside them."""
    with canary(path) as held:
        weights = dict(read_checkpoint(path).tensors)
    held.check()
    return weights


class Payload:
    """Unpickling it creates a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


class EvalPayload(Payload):
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({str(self.proof)!r}, 'w')",)


class ImportPayload(Payload):
    """Hides behind a name that torch's own checkpoints use."""

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.Inner(self.proof), "x")

    class Inner(Payload):
        pass


def _zip_format(payload: Payload, path: Path) -> None:
    torch.save({"model": payload}, path)


def _legacy_format(payload: Payload, path: Path) -> None:
    torch.save({"model": payload}, path, _use_new_zipfile_serialization=False)


def _bare_pickle(protocol: int) -> Callable[[Payload, Path], None]:
    def write(payload: Payload, path: Path) -> None:
        path.write_bytes(pickle.dumps({"model": payload}, protocol=protocol))

    return write


def _zipped_pickle(protocol: int) -> Callable[[Payload, Path], None]:
    def write(payload: Payload, path: Path) -> None:
        archive(path, pickle.dumps({"model": payload}, protocol=protocol))

    return write


def _beside_good_weights(payload: Payload, path: Path) -> None:
    """A second pickle in a good checkpoint, under the name that is read and one level deeper."""
    buffer = io.BytesIO()
    torch.save({"model": {"w": torch.ones(3)}}, buffer)
    with zipfile.ZipFile(buffer) as good, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as evil:
        for name in good.namelist():
            evil.writestr(name, pickle.dumps(payload, protocol=2) if name.endswith("data.pkl") else good.read(name))
        evil.writestr("archive/nested/data.pkl", pickle.dumps(payload, protocol=2))


DISGUISES = {
    "zip": _zip_format,
    "legacy": _legacy_format,
    "beside": _beside_good_weights,
    **{f"bare {protocol}": _bare_pickle(protocol) for protocol in range(6)},
    **{f"zipped {protocol}": _zipped_pickle(protocol) for protocol in range(6)},
}


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("payload", [Payload, EvalPayload, ImportPayload])
@pytest.mark.parametrize("disguise", DISGUISES)
def test_malicious_pickle_never_runs(tmp_path: Path, disguise: str, payload: type[Payload], suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    DISGUISES[disguise](payload(tmp_path / "it-ran"), path)
    failure = refuse(path)
    assert failure.reason is Reason.CHECKPOINT_UNSAFE, failure
    assert any(name in str(failure) for name in ("posix.system", "builtins.eval", "__builtin__.eval"))


def test_payload_would_run_unprotected(tmp_path: Path) -> None:
    _zip_format(Payload(tmp_path / "it-ran"), tmp_path / "x.pt")
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert (tmp_path / "it-ran").exists()


def test_canary_detects_execution(tmp_path: Path) -> None:
    with canary() as held:
        (tmp_path / "x").write_text("x", encoding="ascii")
        os.system("true")
        exec("1")
        sys.modules.pop("this_is_no_module", None)
    assert [event.partition(" ")[0] for event in held.events] == ["open", "os.system", "compile", "exec"]


@pytest.mark.parametrize("way", ways_to_call("posix", "system"))
def test_no_opcode_calls_its_global(tmp_path: Path, way: str) -> None:
    failure = refuse(archive(tmp_path / "x.pt", beside(ways_to_call("posix", "system")[way])))
    assert failure.reason is Reason.CHECKPOINT_UNSAFE
    assert "posix." in str(failure)


HARMFUL = """\
os.system os.popen os.execv os.remove posix.system posix.unlink nt.system subprocess.Popen subprocess.call
subprocess.check_output commands.getoutput sys.exit sys.settrace sys.modules shutil.rmtree shutil.copy socket.socket
socket.create_connection builtins.eval builtins.exec builtins.compile builtins.open builtins.__import__ builtins.input
builtins.globals builtins.setattr builtins.delattr builtins.breakpoint __builtin__.eval __builtin__.execfile
__builtin__.file importlib.import_module importlib.machinery.SourceFileLoader runpy.run_path runpy.run_module
ctypes.CDLL ctypes.cast webbrowser.open pty.spawn code.interact codeop.compile_command pdb.run bdb.Bdb timeit.timeit
cProfile.run profile.run trace.Trace doctest.debug_script pickle.loads _pickle.loads marshal.loads shelve.open dbm.open
tempfile.mktemp glob.glob fileinput.input zipfile.ZipFile tarfile.open gzip.open bz2.open lzma.open sqlite3.connect
http.client.HTTPConnection http.server.HTTPServer urllib.request.urlopen ftplib.FTP smtplib.SMTP telnetlib.Telnet
asyncio.create_subprocess_shell multiprocessing.Process signal.signal atexit.register gc.get_objects inspect.getsource
logging.FileHandler logging.config.listen codecs.open io.open io.FileIO _io.open types.FunctionType types.CodeType
operator.attrgetter operator.methodcaller functools.reduce platform.popen pip.main pip._internal.main
setuptools.setup ensurepip.bootstrap venv.create torch.load torch.hub.load torch.hub.load_state_dict_from_url
torch.ops.load_library torch.jit.load torch.package.PackageImporter torch.utils.cpp_extension.load
torch.utils.cpp_extension.load_inline torch.utils.collect_env.run torch.fx.graph_module.reduce_graph_module
torch.storage._load_from_bytes torch.serialization.os.system torch._inductor.codecache.compile_file numpy.load
numpy.memmap numpy.testing._private.utils.runstring numpy.f2py.compile numpy.ctypeslib.load_library pandas.eval
pandas.read_pickle numexpr.evaluate sympy.sympify joblib.load dill.loads cloudpickle.loads yaml.unsafe_load
requests.get huggingface_hub.hf_hub_download gdown.download
"""


@pytest.mark.parametrize("path", HARMFUL.split())
def test_harmful_name_is_reported(tmp_path: Path, path: str) -> None:
    module, _, name = path.rpartition(".")
    call = f"c{module}\n{name}\n".encode() + text("it-ran") + b"\x85R"
    failure = refuse(archive(tmp_path / "x.pt", beside(call)))
    assert failure.reason is Reason.CHECKPOINT_UNSAFE
    assert path in str(failure)


@pytest.mark.parametrize(
    "name", ["__globals__", "__subclasses__", "__builtins__", "__class__.__base__", "os.system", "__reduce_ex__", "sys"]
)
def test_attribute_chain_is_harmful(tmp_path: Path, name: str) -> None:
    call = b"cbuiltins\ngetattr\n(ctorch.nn.modules.linear\nLinear\n" + text(name) + b"tR"
    failure = refuse(archive(tmp_path / "x.pt", beside(call)))
    assert failure.reason is Reason.CHECKPOINT_UNSAFE
    assert f"getattr of {name}" in str(failure)


def test_computed_attribute_name_is_harmful(tmp_path: Path) -> None:
    call = b"cbuiltins\ngetattr\n(ctorch\nnn\n" + b"cbuiltins\nstr\n" + text("os") + b"\x85R" + b"tR"
    assert "a name that is computed" in str(refuse(archive(tmp_path / "x.pt", beside(call))))


@pytest.mark.parametrize(
    "path",
    [
        *(
            "ultralytics.utils.loss.v8DetectionLoss",
            "collections.defaultdict",
            "datetime.datetime",
            "types.SimpleNamespace",
        ),
        *(
            "numpy._core.multiarray._reconstruct",
            "numpy.dtype",
            "dill._dill._create_type",
            "omegaconf.dictconfig.DictConfig",
        ),
        *(
            "torch.optim.adamw.AdamW",
            "torch.nn.modules.loss.BCEWithLogitsLoss",
            "functools.partial",
            "builtins.getattr",
        ),
        *("logging.getLogger", "pathlib.PosixPath", "_codecs.encode", "lightning.pytorch.callbacks.ModelCheckpoint"),
        *(
            "argparse.Namespace",
            "random.Random",
            "mmengine.config.Config",
            "builtins.map",
            "uuid.UUID",
            "decimal.Decimal",
        ),
        *("torch._dynamo.eval_frame.OptimizedModule", "models.yolo.Model", "__main__.Net", "utils.callbacks.Callbacks"),
    ],
)
def test_common_training_state_is_harmless(path: str) -> None:
    assert not is_harmful(path)


UNKNOWN_TO_TORCH = {
    "EXT1": b"\x82\x01",
    "EXT2": b"\x83\x01\x00",
    "EXT4": b"\x84\x01\x00\x00\x00",
    "PERSID": b"Pos.system\n",
    "NEXT_BUFFER": b"\x97",
    "READONLY_BUFFER": b"N\x98",
    "a persistent id of text": text("os.system") + b"Q",
    "a persistent id of None": b"NQ",
    "a persistent id of a list": b"]Q",
    "a persistent id of an object": b"cnumpy\ndtype\nQ",
    "a persistent id of another kind": b"("
    + text("module")
    + b"cnumpy\ndtype\n"
    + text("0")
    + text("cpu")
    + number(1)
    + b"tQ",
    "a persistent id of four parts": b"(" + text("storage") + b"cnumpy\ndtype\n" + text("0") + text("cpu") + b"tQ",
}


@pytest.mark.parametrize("name", UNKNOWN_TO_TORCH)
def test_opcodes_never_written_by_torch_are_refused(tmp_path: Path, name: str) -> None:
    failure = refuse(archive(tmp_path / "x.pt", beside(UNKNOWN_TO_TORCH[name])))
    assert failure.reason is Reason.CHECKPOINT_UNSAFE
    assert "that torch.save never writes" in str(failure)


def nested(opening: bytes, closing: bytes, count: int) -> bytes:
    return opening * count + closing * count


def shared_lists(levels: int) -> bytes:
    """A list that holds one list twice, which holds one twice, and so on: 2 to the power of levels."""
    return b"]q\x00" + b"".join(b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(levels))


def shared_modules(levels: int) -> bytes:
    """A module that holds one module twice, and so on: 2 to the power of levels names."""

    def module(children: bytes) -> bytes:
        state = b"}(" + text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + children + b"u"
        return b"ctorch.nn.modules.container\nSequential\n)\x81" + state + b"b"

    below = module(b"}").replace(text("_parameters") + b"}", text("_parameters") + b"}" + text("w") + GOOD[1] + b"s")
    content = below + b"q\x00"
    for level in range(levels):
        held = b"h" + bytes([level])
        content += module(b"}(" + text("0") + held + text("1") + held + b"u") + b"q" + bytes([level + 1])
    return content


def colliding_keys(count: int) -> bytes:
    """A dict of integers that all have one hash."""
    prime = (1 << 61) - 1
    return b"}(" + b"".join(number(prime * index) + b"N" for index in range(1, count)) + b"u"


ENDLESS = {
    "instructions": PROTOCOL_2 + b"N0" * 1_500_000 + b"N" + STOP,
    "marks": PROTOCOL_2 + b"(" * 2_500_000 + STOP,
    "lists in lists": PROTOCOL_2 + nested(b"](", b"e", 400_000) + STOP,
    "tuples in tuples": PROTOCOL_2 + b")" + b"\x85" * 1_000_000 + STOP,
    "objects in objects": PROTOCOL_2 + b")" + b"\x85R" * 0 + nested(b"cx\ny\n(", b"tR", 300_000) + STOP,
    "dicts in dicts": PROTOCOL_2 + nested(b"}" + text("model"), b"s", 100_000) + STOP,
    "memo": PROTOCOL_2 + b"]" + b"".join(b"r" + struct.pack("<I", index) for index in range(1_000_000)) + STOP,
    "sets": PROTOCOL_2 + b"\x8f" * 1_900_000 + STOP,
    "dicts": PROTOCOL_2 + b"}" * 1_900_000 + STOP,
    "shared modules": PROTOCOL_2 + shared_modules(60) + STOP,
    "a list in itself": PROTOCOL_2 + b"]q\x00h\x00a" + STOP,
    "a dict in itself": PROTOCOL_2 + b"}q\x00" + text("model") + b"h\x00s" + STOP,
    "long number": PROTOCOL_2 + b"\x8b" + struct.pack("<I", 40 << 20) + b"\x7f" * (40 << 20) + STOP,
    "long decimal": PROTOCOL_2 + b"L" + b"9" * (1 << 20) + b"L\n" + STOP,
    "long text": PROTOCOL_2 + text("x" * (40 << 20)) + STOP,
    "long name": PROTOCOL_2 + b"c" + b"os\x1b[31m" * (1 << 20) + b"\nsystem\n" + STOP,
    "text that is not there": PROTOCOL_2 + b"X\xff\xff\xff\xff" + STOP,
    "bytes that are not there": PROTOCOL_2 + b"\x8e" + b"\xff" * 8 + STOP,
    "copies of a dict": PROTOCOL_2
    + b"}q\x00("
    + b"".join(number(index) + b"N" for index in range(100_000))
    + b"u"
    + b"ccollections\nOrderedDict\nq\x01"
    + b"h\x01h\x00\x85R" * 100_000
    + STOP,
    "states of an object": PROTOCOL_2
    + b"}q\x00("
    + b"".join(number(index) + b"N" for index in range(100_000))
    + b"u"
    + b"cx\ny\n)\x81"
    + b"h\x00b" * 200_000
    + STOP,
    "names of weights": state_dict(*((f"{index}.w", b"h\x00") for index in range(3))).replace(b"}(", b"}(", 1),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_unbounded_pickle_is_refused(tmp_path: Path, name: str) -> None:
    refuse(archive(tmp_path / "x.pt", ENDLESS[name]))


@pytest.mark.parametrize(
    "content", [colliding_keys(100_000), shared_lists(200)], ids=["colliding keys", "shared lists"]
)
def test_unbounded_content_beside_weights_is_skipped(tmp_path: Path, content: bytes) -> None:
    assert set(accept(archive(tmp_path / "x.pt", beside(content)))) == {"w"}


@pytest.mark.parametrize("position", range(0, 150, 3))
def test_cut_or_changed_pickle_is_refused_or_loaded(tmp_path: Path, position: int) -> None:
    """A changed byte leads to a refusal with a reason, or to other numbers, and to nothing else."""
    good = beside(b"ccollections\nOrderedDict\n)R")
    position = position * len(good) // 150
    for changed in (good[:position], good[:position] + bytes([good[position] ^ 0x55]) + good[position + 1 :]):
        path = archive(tmp_path / "x.pt", changed)
        with canary(path) as held:
            reason = reason_of(path)
        held.check()
        assert reason is None or reason in OUTCOMES


TENSORS = {
    "steps of 0": tensor((1 << 30, 1 << 10), (0, 0)),
    "overlapping steps": tensor((1 << 24, 1 << 24), (1, 0)),
    "behind the record": tensor((4, 4), (4, 1)),
    "offset behind the record": tensor((2,), (1,), offset=1 << 40),
    "negative offset": tensor((2,), (1,), offset=-1),
    "negative shape": tensor((-2,), (1,)),
    "negative step": tensor((2,), (-1,)),
    "shape of a huge number": tensor((1 << 62, 1 << 62), (0, 0)),
    "shape without steps": tensor((2, 2), ()),
    "many axes": tensor((1,) * 64, (0,) * 64),
    "missing record": tensor((2,), (1,), held=storage("7")),
    "record outside": tensor((2,), (1,), held=storage("../../etc/passwd")),
    "record of the pickle": tensor((2,), (1,), held=storage("../data.pkl")),
    "complex": tensor((1,), (1,), held=storage(kind=b"ctorch\nComplexFloatStorage\n")),
    "quantised": tensor((1,), (1,), held=storage(kind=b"ctorch\nQInt8Storage\n")),
    "of another module": tensor((1,), (1,), held=storage(kind=b"cevil\nFloatStorage\n")),
}


@pytest.mark.parametrize("name", TENSORS)
def test_impossible_tensor_is_refused(tmp_path: Path, name: str) -> None:
    refuse(archive(tmp_path / "x.pt", state_dict(("layer.weight", TENSORS[name]))))


def made_by(function: str, *arguments: bytes) -> bytes:
    module, _, name = function.rpartition(".")
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


OTHER_TENSORS = {
    "sparse": made_by("torch._utils._rebuild_sparse_tensor", b"ctorch\nsparse_coo\n", b"N"),
    "quantised": made_by("torch._utils._rebuild_qtensor", storage(), b"NN"),
    "nested": made_by("torch._utils._rebuild_nested_tensor", GOOD[1]),
    "meta": made_by("torch._utils._rebuild_meta_tensor_no_storage", b"ctorch\nfloat32\n", b"NN"),
    "another class": made_by("torch._utils._rebuild_wrapper_subclass", b"cx\nY\n"),
    "a typed tensor": made_by(
        "torch._tensor._rebuild_from_type_v2", b"ctorch._utils\n_rebuild_tensor_v2\n", b"cx\nY\n", b")", b"N"
    ),
    "a typed call": made_by(
        "torch._tensor._rebuild_from_type_v2", b"cx\ny\n", b"ctorch\nTensor\n", b"(" + text("it-ran") + b"t", b"N"
    ),
    "from numpy": made_by("torch._utils._rebuild_device_tensor_from_numpy", b"N"),
}


@pytest.mark.parametrize("name", OTHER_TENSORS)
def test_tensor_of_unsupported_kind_is_refused(tmp_path: Path, name: str) -> None:
    failure = refuse(archive(tmp_path / "x.pt", state_dict(("layer.weight", OTHER_TENSORS[name]))))
    assert "layer.weight is" in str(failure)


NAN = struct.pack("<4f", 1.0, float("nan"), 2.0, 3.0)
ATTRIBUTE = b"}" + text("is_floating_point") + b"cbuiltins\nbool\ns"
PARAMETER = b"ctorch.nn.parameter\nParameter\n"
HIDING = {
    "in a parameter": made_by("torch._utils._rebuild_parameter", GOOD[1], b"\x88N"),
    "in a parameter that overrides is_floating_point": made_by(
        "torch._utils._rebuild_parameter_with_state", GOOD[1], b"\x88N", ATTRIBUTE
    ),
    "in a tensor that has attributes": made_by(
        "torch._tensor._rebuild_from_type_v2",
        b"ctorch._utils\n_rebuild_parameter\n",
        PARAMETER,
        b"(" + GOOD[1] + b"\x88Nt",
        ATTRIBUTE,
    ),
    "in a parameter that is built": PARAMETER + GOOD[1] + b"\x88\x86\x81" + ATTRIBUTE + b"b",
}


@pytest.mark.parametrize("name", HIDING)
def test_nan_is_always_found(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "x.pt", state_dict(("layer.weight", HIDING[name])), {"data/0": NAN})
    assert refuse(path).reason is Reason.WEIGHTS_NOT_FINITE


def zeros(path: Path) -> Path:
    """An archive that unpacks to 3 GiB and is 3 MB small."""
    chunk = bytes(1 << 20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("archive/data.pkl", state_dict(("w", tensor((768 << 20,), (1,)))))
        with written.open("archive/data/0", "w", force_zip64=True) as record:
            for _ in range(3 << 10):
                record.write(chunk)
    return path


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zeros(tmp_path_factory.mktemp("bomb") / "bomb.pt")


def small(path: Path) -> Path:
    return archive(path, state_dict(GOOD))


def test_archive_expanding_without_bound_is_refused(bomb: Path) -> None:
    assert "it unpacks to 3,2" in str(refuse(bomb))


@pytest.mark.parametrize("order", ["small last", "large last"])
def test_second_zip_directory_is_refused(tmp_path: Path, bomb: Path, order: str) -> None:
    path = tmp_path / "x.pt"
    parts = [bomb.read_bytes(), small(tmp_path / "small.pt").read_bytes()]
    path.write_bytes(b"".join(parts if order == "small last" else reversed(parts)))
    assert "more than one table of contents" in str(refuse(path))


def behind(found: bytes, more: bytes) -> bytes:
    return found + more


def commented(found: bytes) -> bytes:
    return found[:-2] + struct.pack("<H", 3) + b"abc"


def misplaced(found: bytes) -> bytes:
    return found[:-6] + struct.pack("<I", 1) + found[-2:]


def claimed_size(found: bytes) -> bytes:
    """The table claims 4 GiB for a record."""
    position = found.rindex(b"PK\x01\x02")
    return found[: position + 20] + b"\xff\xff\xff\x7f" * 2 + found[position + 28 :]


def renamed(found: bytes) -> bytes:
    """The table and the records give the pickle different names."""
    return found.replace(b"archive/data.pkl", b"archive/evil.pkl", 1)


def encrypted(found: bytes) -> bytes:
    position = found.index(b"PK\x01\x02")
    return found[: position + 8] + b"\x01" + found[position + 9 :]


def unknown_method(found: bytes) -> bytes:
    position = found.index(b"PK\x01\x02")
    return found[: position + 10] + b"\x63\x00" + found[position + 12 :]


ARCHIVES: dict[str, Callable[[bytes], bytes]] = {
    "bytes behind": lambda found: behind(found, b"x"),
    "a second end": lambda found: behind(found, found[-22:]),
    "a comment": commented,
    "a misplaced table": misplaced,
    "a claimed size": claimed_size,
    "two names": renamed,
    "encrypted": encrypted,
    "unknown method": unknown_method,
    "no table": lambda found: found[: found.index(b"PK\x01\x02")],
    "half of a table": lambda found: found[:-40],
    "something before": lambda found: b"PK\x03\x04" + found,
    "only an end": lambda found: b"PK\x03\x04" + found[-22:],
    "zip64 of elsewhere": lambda found: found[:-22] + b"PK\6\7" + struct.pack("<IQI", 0, 0, 1) + found[-22:],
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_crafted_archive_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(ARCHIVES[name](small(tmp_path / "good.pt").read_bytes()))
    assert refuse(path).reason is Reason.CHECKPOINT_UNREADABLE


def test_damaged_record_is_reported_with_its_tensor(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pt", state_dict(GOOD), {"data/0": b"its sixteen byte"})
    path.write_bytes(path.read_bytes().replace(b"its sixteen byte", b"its sixteen bits"))
    failure = refuse(path)
    assert failure.reason is Reason.CHECKPOINT_UNREADABLE
    assert str(failure).startswith("w cannot be read from the checkpoint: its record data/0 is damaged")


@pytest.mark.parametrize(("key", "offset"), [("0", 99), ("no-such-record", 0)])
def test_stride_outside_record_is_reported(tmp_path: Path, key: str, offset: int) -> None:
    stored = StoredTensor(Storage(torch.float32, key), torch.float32, offset, (3,), (1,))
    reader = partial(read_one, TorchArchive(small(tmp_path / "x.pt")))
    head = Module("model.22", PickledObject("ultralytics.nn.modules.head.Detect", (), {"stride": stored}), {}, reader)
    with pytest.raises(Failure, match=r"model[.]22[.]stride cannot be read from the checkpoint") as caught:
        head.numbers("stride")
    assert caught.value.reason is Reason.CHECKPOINT_UNREADABLE


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("again", ["archive/data.pkl", "archive/DATA.PKL", "archive/data/0"])
def test_duplicate_record_names_are_refused(tmp_path: Path, again: str) -> None:
    path = small(tmp_path / "x.pt")
    with zipfile.ZipFile(path, "a") as written:
        written.writestr(again, state_dict(GOOD))
    assert "two of its records have one name" in str(refuse(path))


def test_too_many_records_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as written:
        for index in range(100_002):
            written.writestr(zipfile.ZipInfo(f"a/{index}"), b"")
    assert "the limit is 100,000" in str(refuse(tmp_path / "x.pt"))


def headed(header: bytes) -> bytes:
    """A file of safetensors with one number."""
    return struct.pack("<Q", len(header)) + header + bytes(4)


SAFETENSORS = {
    "header of 2 EiB": struct.pack("<Q", 1 << 61) + b"{}",
    "header of 64 MiB": struct.pack("<Q", 64 << 20) + b"{" + bytes(1 << 20),
    "header that is cut": struct.pack("<Q", 100) + b"{",
    "no JSON": struct.pack("<Q", 4) + b"{ab}",
    "lists in lists": struct.pack("<Q", 200_006) + b'{"a":' + b"[" * 200_000 + b"}",
    "tensor behind the end": headed(b'{"w":{"dtype":"F32","shape":[99],"data_offsets":[0,396]}}'),
    "shape of a huge number": headed(b'{"w":{"dtype":"F32","shape":[4294967296,2],"data_offsets":[0,4]}}'),
    "unknown numbers": headed(b'{"w":{"dtype":"X99","shape":[1],"data_offsets":[0,4]}}'),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_crafted_safetensors_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(SAFETENSORS[name])
    assert refuse(tmp_path / "x.safetensors").reason is Reason.CHECKPOINT_UNREADABLE


@pytest.mark.parametrize("value", ["[" * 100_000, "9" * 10_000, '{"a":' * 50_000, "NaN", "\x1b[31mred"], ids=range(5))
def test_hostile_metadata_does_no_harm(tmp_path: Path, value: str) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "x.safetensors", {"names": value, "imgsz": value})
    assert set(accept(tmp_path / "x.safetensors")) == {"w"}


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07w", "\u202egpj.w", "w\n\nSucceeded", "a" * 100_000], ids=range(4))
def test_names_are_cleaned_before_display(tmp_path: Path, name: str) -> None:
    failure = refuse(archive(tmp_path / "x.pt", state_dict((name, GOOD[1])), {"data/0": NAN}))
    assert failure.reason is Reason.WEIGHTS_NOT_FINITE


def test_class_name_is_cleaned_before_display(tmp_path: Path) -> None:
    held = b"}(" + text("_parameters") + b"}" + text("w") + GOOD[1] + b"s" + text("_modules") + b"}u"
    path = archive(tmp_path / "x.pt", PROTOCOL_2 + b"cevil\x1b[2J\xe2\x80\xae\nNet\n)\x81" + held + b"b" + STOP)
    with canary(path) as held_canary, pytest.raises(Failure) as caught:
        load(read_checkpoint(path), ask("YOLOv8"))
    held_canary.check()
    assert str(caught.value).isprintable()


def test_concatenated_archives_are_refused(tmp_path: Path) -> None:
    assert "more than one table" in str(refuse(two_tables(tmp_path / "x.pt", small, small)))
