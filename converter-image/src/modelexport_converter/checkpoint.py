"""Reads a local checkpoint without running anything that is in it.

The kind of a file is told by its content, never by its name. Ultralytics' ``.pt`` files are pickles of whole modules;
here every class that they may name becomes an inert ``_Node``, so what is rebuilt is a tree of plain data and tensors,
and no class of the checkpoint, or of the package that wrote it, is ever called.
"""

import io
import json
import pickle
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from modelexport.reasons import Reason
from modelexport_converter.failures import Failure
from modelexport_converter.fetch import CHECKPOINT
from modelexport_converter.programs.graph import Program
from modelexport_converter.programs.reading import read_program

Facts = Mapping[str, Any]

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_EARLIER_PROGRAM = "serialized_exported_program.json"
"""What torch.export.save once wrote: a plain zip file with its parts side by side."""
EPSILON = "batch_norm_epsilon"
"""The one number of a pickled network that changes its results and is in no state dict, as a fact."""

UNPACKED_LIMIT = CHECKPOINT.limit
"""What no checkpoint unpacks to: torch compresses nothing, and a file of this size is refused itself."""

_MODELS = ("ema", "model_ema", "model", "state_dict", "model_state_dict")
"""Where a checkpoint keeps its weights; averaged ones come first, as they are what their author evaluates."""
_PREFIXES = ("module.", "_orig_mod.")
"""What ``DataParallel`` and ``torch.compile`` put before every name."""

_PLAIN = (bool, int, float, str, type(None))

# Where ultralytics has kept its layers: one module until 8.0.120, three since.
_LAYERS = {
    "block": ("Bottleneck", "C2f", "DFL", "Proto", "SPPF"),
    "conv": ("Concat", "Conv"),
    "head": ("Classify", "Detect", "Pose", "Segment"),
}
_TORCH_LAYERS = (
    "activation.SiLU",
    "batchnorm.BatchNorm2d",
    "container.ModuleList",
    "container.Sequential",
    "conv.Conv2d",
    "conv.ConvTranspose2d",
    "dropout.Dropout",
    "linear.Linear",
    "pooling.AdaptiveAvgPool2d",
    "pooling.MaxPool2d",
    "upsampling.Upsample",
)
_TASKS = ("ClassificationModel", "DetectionModel", "PoseModel", "SegmentationModel")
_TRANSFORMS = (
    "functional.InterpolationMode",
    "transforms.CenterCrop",
    "transforms.Compose",
    "transforms.Normalize",
    "transforms.Resize",
    "transforms.ToTensor",
)
ALLOWED_GLOBALS = (
    *(f"torch.nn.modules.{name}" for name in _TORCH_LAYERS),
    *(f"ultralytics.nn.modules.{module}.{name}" for module, names in _LAYERS.items() for name in names),
    *(f"ultralytics.nn.modules.{name}" for names in _LAYERS.values() for name in names),
    *(f"ultralytics.nn.tasks.{name}" for name in _TASKS),
    *(f"torchvision.transforms.{name}" for name in _TRANSFORMS),
    # Until 2024 ultralytics' modules kept a method and a constant so: Detect.forward, InterpolationMode.BILINEAR.
    "builtins.getattr",
    # Folders among the arguments of ultralytics' training; Python 3.13 has moved the classes.
    *(f"{module}.{system}Path" for module in ("pathlib", "pathlib._local") for system in ("Posix", "Windows")),
    # How torchvision's training scripts were called, which they keep beside the weights.
    "argparse.Namespace",
    # Accuracies, which Megvii's trainer keeps beside the weights as numbers of numpy 1 or 2.
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "ultralytics.utils.IterableSimpleNamespace",
    "ultralytics.yolo.utils.IterableSimpleNamespace",
)
"""Every global that a pickle may name beyond the tensors that torch itself allows; each is read as inert data."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    ``tensors`` is the state dict, floating-point values as float32. ``facts`` is the plain data that came with it (for
    example ``names``, ``imgsz``, ``kpt_shape``). ``program`` is set for a ``.pt2`` archive only, which carries its own
    network.
    """

    tensors: Mapping[str, torch.Tensor]
    facts: Facts = field(default_factory=dict)
    program: Program | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read an ultralytics ``.pt``, a state dict, a ``.safetensors`` or a ``.pt2`` file.

    Raises:
        Failure: with reason ``CheckpointUnreadable``, ``CheckpointUnsafe`` or ``WeightsNotFinite``.
    """
    with _open(path) as file:
        head = file.read(9)
    if head.startswith(_ZIP):
        checkpoint = _read_zip(path)
    elif head.startswith(_PICKLE):
        checkpoint = _refuse_legacy(path)
    elif head[8:] == b"{":
        checkpoint = _read_safetensors(path)
    else:
        raise _unreadable(path, "it is no .pt, .safetensors or .pt2 file")
    _check_finite(checkpoint)
    return checkpoint


def _open(path: Path) -> io.BufferedReader:
    try:
        if path.stat().st_size == 0:
            raise _unreadable(path, "it is empty")
        return path.open("rb")
    except OSError as error:
        raise Failure(Reason.CHECKPOINT_UNREADABLE, f"the checkpoint cannot be opened: {error.strerror}") from error


def _read_zip(path: Path) -> Checkpoint:
    _check_unpacked(path)
    try:
        records = set(torch._C.PyTorchFileReader(str(path)).get_all_records())
    except RuntimeError as error:
        raise _unreadable(path, _explain_zip(path)) from error
    if "archive_format" in records:
        program = read_program(path)
        return Checkpoint(program.tensors, program=program)
    if "constants.pkl" in records:
        raise _unreadable(path, "it is a TorchScript archive; save the model with torch.export.save as .pt2 instead")
    if "data.pkl" not in records:
        raise _unreadable(path, _explain_zip(path))
    return _read_pickle(path)


def _explain_zip(path: Path) -> str:
    """Say what a zip file is that torch does not read."""
    with zipfile.ZipFile(path) as archive:
        if _EARLIER_PROGRAM in archive.namelist():
            return "an earlier torch wrote this .pt2; export the model again with torch 2.8 or newer"
    return "it is a zip file, but neither torch.save nor torch.export.save wrote it"


def _check_unpacked(path: Path) -> None:
    """Stop at an archive that unpacks to more than a checkpoint may have, before anything of it is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        cut = "its end is missing or damaged; it was probably cut while it was copied"
        raise _unreadable(path, cut) from error
    if unpacked > UNPACKED_LIMIT:
        raise _unreadable(path, f"it unpacks to {unpacked:,} bytes, the limit is {UNPACKED_LIMIT:,}")


def _check_extent(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Stop at tensors that repeat a few bytes without end: a step of zero makes any shape of one number."""
    extent = sum(tensor.numel() * max(tensor.element_size(), 4) for tensor in tensors.values())
    if extent > UNPACKED_LIMIT:
        raise _unreadable(path, f"its tensors come to {extent:,} bytes, the limit is {UNPACKED_LIMIT:,}")


def _read_pickle(path: Path) -> Checkpoint:
    try:
        with torch.serialization.safe_globals([(_Node, name) for name in ALLOWED_GLOBALS]):
            _check_globals(torch.serialization.get_unsafe_globals_in_checkpoint(path))
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # The restricted unpickler knows every instruction that torch.save writes; any other was put there on purpose.
        raise Failure(Reason.CHECKPOINT_UNSAFE, _unsafe("instructions that torch.save never writes")) from error
    except (EOFError, KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise _unreadable(path, f"its content is damaged ({type(error).__name__})") from error
    return _interpret(path, content)


def _interpret(path: Path, content: Any) -> Checkpoint:
    """Find the model in what ``torch.save`` wrote: a pickled module or a state dict, bare or in a dict."""
    content = content if isinstance(content, dict) else {"model": content}
    model = next((content[name] for name in _MODELS if _holds_weights(content.get(name))), content)
    tensors = dict(model.walk()) if isinstance(model, _Node) else _tensors_of(model)
    if not tensors:
        raise _unreadable(path, f"it holds no weights, neither bare nor under {', '.join(_MODELS)}")
    attributes = vars(model) if isinstance(model, _Node) else {}
    facts = {**_plain(content), **_plain(content.get("train_args"))}
    facts |= {**_plain(attributes.get("yaml")), **_plain(attributes)}
    if isinstance(model, _Node) and (epsilon := model.find("eps")) is not None:
        facts[EPSILON] = epsilon
    _check_extent(path, tensors)
    return Checkpoint(_to_float(_unwrapped(tensors)), facts)


def _holds_weights(content: Any) -> bool:
    return isinstance(content, _Node) or (isinstance(content, dict) and bool(_tensors_of(content)))


def _unwrapped(tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Take off the prefixes of wrappers; the counter of averaged weights has none."""
    weights = {name: value for name, value in tensors.items() if name != "n_averaged"}
    for prefix in _PREFIXES:
        if weights and all(name.startswith(prefix) for name in weights):
            return _unwrapped({name.removeprefix(prefix): value for name, value in weights.items()})
    return weights


def _refuse_legacy(path: Path) -> Checkpoint:
    """Stop at a bare pickle, the format of torch before 1.6 and of most attacks, and name what it would import."""
    with path.open("rb") as file:
        names = sorted({name for name in _named_globals(file) if not _is_tensor_global(name)})
    _check_globals([name for name in names if name not in ALLOWED_GLOBALS])
    raise _unreadable(path, "it has the format of torch before 1.6; load and save it again with a newer torch")


def _named_globals(file: io.BufferedReader) -> Iterator[str]:
    """Names that a pickle imports; for ``STACK_GLOBAL`` the last two texts before it, which is how pickle writes it."""
    texts: list[str] = []
    try:
        while True:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name in {"GLOBAL", "INST"}:
                    yield str(argument).replace(" ", ".")
                elif opcode.name == "STACK_GLOBAL":
                    yield ".".join(texts[-2:])
                elif isinstance(argument, str):
                    texts.append(argument)
    except ValueError:
        return  # Behind the pickles come the raw numbers of the tensors.


def _is_tensor_global(name: str) -> bool:
    return name in torch._weights_only_unpickler._get_allowed_globals()


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            facts = {key: _decoded(value) for key, value in (file.metadata() or {}).items()}
            tensors = {key: file.get_tensor(key) for key in list(file.keys())}
            return Checkpoint(_to_float(_unwrapped(tensors)), facts)
    except SafetensorError as error:
        raise _unreadable(path, str(error)) from error


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


class _Node:
    """Stands for an object of any allowed class: keeps its state, has no behaviour."""

    def __new__(cls, *_: Any) -> "_Node":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        """Accept what the real class would have been called with."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)

    def find(self, attribute: str) -> Any:
        """The first value that a module at or below this one has for an attribute."""
        if attribute in self.__dict__:
            return self.__dict__[attribute]
        children = (child for child in self.__dict__.get("_modules", {}).values() if isinstance(child, _Node))
        return next((value for child in children if (value := child.find(attribute)) is not None), None)

    def walk(self, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
        """Every parameter and buffer below, by the name that it has in a state dict."""
        for kind in ("_parameters", "_buffers"):
            for name, value in self.__dict__.get(kind, {}).items():
                if isinstance(value, torch.Tensor):
                    yield prefix + name, value.detach()
        for name, child in self.__dict__.get("_modules", {}).items():
            if isinstance(child, _Node):
                yield from child.walk(f"{prefix}{name}.")


def _tensors_of(content: Any) -> dict[str, torch.Tensor]:
    return (
        {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
        if isinstance(content, dict)
        else {}
    )


def _to_float(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def _plain(content: Any) -> dict[str, Any]:
    """The part of an object's or a dict's content that is plain data."""
    items = vars(content) if isinstance(content, _Node) else content
    return {str(key): value for key, value in items.items() if _is_plain(value)} if isinstance(items, dict) else {}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, _PLAIN) and _is_plain(item) for key, item in value.items())
    return all(map(_is_plain, value)) if isinstance(value, list | tuple) else isinstance(value, _PLAIN)


def _check_globals(names: list[str]) -> None:
    if names:
        raise Failure(Reason.CHECKPOINT_UNSAFE, _unsafe(", ".join(sorted(names))))


def _check_finite(checkpoint: Checkpoint) -> None:
    """Stop at weights that are NaN or infinite, and at NaN in what else a program has: masks of it are infinite."""
    program, tensors = checkpoint.program, checkpoint.tensors
    weights = tensors if program is None else program.parameters
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        bad = ~torch.isfinite(tensor) if name in weights else torch.isnan(tensor)
        if bad.any():
            way_out = "use a checkpoint from before training diverged"
            message = f"{int(bad.sum())} of {tensor.numel()} values of {name} are NaN or infinite; {way_out}"
            raise Failure(Reason.WEIGHTS_NOT_FINITE, message)


def _unsafe(what: str) -> str:
    return (
        f"the checkpoint's pickle asks for {what}, which is not among what is known of supported models, so nothing "
        "of it was run; save the weights as .safetensors, or the model with torch.export.save as .pt2"
    )


def _unreadable(path: Path, problem: str) -> Failure:
    message = f"the checkpoint ({path.stat().st_size} bytes) cannot be read: {problem}"
    return Failure(Reason.CHECKPOINT_UNREADABLE, message)
