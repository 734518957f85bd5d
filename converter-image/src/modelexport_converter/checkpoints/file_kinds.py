"""Recognises files that are no checkpoints by their first bytes, and names the way out. Pure.

The marks come from the formats' own specifications: Git LFS v3 (docs/spec.md), RFC 1952 (gzip), RFC 8878
(Zstandard), the .xz format 1.2, bzip2, 7-Zip's 7zFormat.txt, RAR's technical note, HDF5 (section II.A), NumPy's NEP 1,
the FlatBuffer schema of LiteRT ("TFL3"), and onnx.proto, whose first field is the version of its representation.
"""

import re
from collections.abc import Callable, Iterable

TEXT = "it is a text, not a checkpoint; check the uploaded file"
TORCH_TAR = ("sys_info", "pickle", "storages", "tensors")
"""The first records in tar archives of torch before 0.4."""
TAR, TAR_AT = b"ustar", 257
HEAD = 512
"""Bytes that are enough to recognise a file."""
ONE_FILE = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt"
"""Merges a ``torch.distributed`` checkpoint into one file."""

_UNPACK = "unpack it, and upload the checkpoint that is in it"
_SAVE = "load it with the library that wrote it, and save the network with torch.export.save as .pt2"
_SOURCE = "it is converted from a checkpoint; use the checkpoint itself"

_MARKS = (
    (
        b"version https://git-lfs.github.com/spec/",
        "a pointer of Git LFS",
        "run git lfs pull, and upload the file itself",
    ),
    (b"\x1f\x8b", "packed by gzip", _UNPACK),
    (b"\xfd7zXZ\0", "packed by xz", _UNPACK),
    (b"BZh", "packed by bzip2", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "packed by Zstandard", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "an archive of 7-Zip", _UNPACK),
    (b"Rar!\x1a\x07", "an archive of RAR", _UNPACK),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes them", _SAVE),
    (b"\x93NUMPY", "an array of NumPy", "save the state_dict of the model with torch.save"),
    (b"GGUF", "a GGUF file of a language model", "give a vision model's checkpoint"),
)
_PAGE = re.compile(rb"\s*<(!doctype html|html|head|\?xml|error)\b", re.IGNORECASE)


def explain_kind(head: bytes) -> str | None:
    """Return a phrase with the kind of a file by its first bytes, and a way out; ``None`` for an unknown kind."""
    for mark, what, way_out in _MARKS:
        if head.startswith(mark):
            return f"it is {what}; {way_out}"
    for is_kind, text in _KINDS:
        if is_kind(head):
            return text
    return None


def explain_tar(head: bytes) -> str | None:
    """Return a phrase about a tar archive; ``None`` if an old torch may have written it."""
    first = head[:100].partition(b"\0")[0].decode(errors="replace")
    if first.removeprefix("./").partition("/")[0] in TORCH_TAR:
        return None
    return f"it is a tar archive, whose first file is {first}; {_UNPACK}"


def explain_members(names: Iterable[str]) -> str:
    """Return a phrase about a zip archive that torch did not write, by the names in it."""
    names = sorted(names)
    if names and all(name.endswith(".npy") for name in names):
        return "it is an .npz of NumPy; save the state_dict of the model with torch.save"
    if any(name.endswith((".mlmodel", "weight.bin")) for name in names):
        return f"it is a Core ML package: {_SOURCE}"
    if any(name.endswith("saved_model.pb") for name in names):
        return f"it is a TensorFlow SavedModel: {_SOURCE}"
    if inner := next((name for name in names if name.endswith((".pt", ".pth", ".pt2", ".safetensors", ".ckpt"))), None):
        return f"it is a zip archive that holds {inner}; {_UNPACK}"
    return "it is a zip file, but neither torch.save nor torch.export.save wrote it"


def _is_onnx(head: bytes) -> bool:
    """Return whether a file begins with field 1, a version from 1 to 20, and then another field of ``ModelProto``."""
    return len(head) > 2 and head[0] == 0x08 and 1 <= head[1] <= 20 and head[2] in b"\x12\x1a\x22\x28\x32\x3a\x42"


def is_text(head: bytes) -> bool:
    """Return whether a file begins with ASCII text."""
    return bool(head) and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head[:64])


_KINDS: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (lambda head: head[4:8] == b"TFL3", f"it is a LiteRT (TFLite) file: {_SOURCE}"),
    (_is_onnx, f"it is an ONNX file: {_SOURCE}"),
    (
        lambda head: bool(_PAGE.match(head)),
        "it is an HTML or XML page, such as a login or error page of a server; download the checkpoint again, "
        "signed in, and check the file",
    ),
    (
        lambda head: not any(head),
        "its first bytes are zeros; it was probably damaged as it was copied: upload it again",
    ),
)
