"""Pickles made to do harm, written instruction by instruction, in archives as torch.save writes them."""

import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

PROTOCOL_2, STOP = b"\x80\x02", b"."
FLOATS = b"ctorch\nFloatStorage\n"


def archive(
    path: Path, pickled: bytes, records: Mapping[str, bytes] | None = None, method: int = zipfile.ZIP_STORED
) -> Path:
    """A file as torch.save writes it, around a pickle."""
    with zipfile.ZipFile(path, "w", method) as written:
        written.writestr("archive/data.pkl", pickled)
        written.writestr("archive/byteorder", "little")
        for name, content in (records or {"data/0": bytes(16)}).items():
            written.writestr(f"archive/{name}", content)
        written.writestr("archive/version", "3\n")
    return path


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str = "0", count: int = 4, kind: bytes = FLOATS) -> bytes:
    """A reference to a record of numbers."""
    return b"(" + text("storage") + kind + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(shape: tuple[int, ...], steps: tuple[int, ...], offset: int = 0, held: bytes | None = None) -> bytes:
    """A call that makes a tensor of a storage."""
    arguments = (held or storage()) + number(offset) + numbers(shape) + numbers(steps) + b"\x89"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"ccollections\nOrderedDict\n)RtR"


def state_dict(*items: tuple[str, bytes]) -> bytes:
    """A pickle of a dict of tensors or of anything."""
    return PROTOCOL_2 + b"}(" + b"".join(text(name) + value for name, value in items) + b"u" + STOP


GOOD = ("w", tensor((2, 2), (2, 1)))


def beside(value: bytes) -> bytes:
    """A good weight, and something else in a part that no reader needs."""
    return state_dict(("model", b"}(" + text("w") + GOOD[1] + b"u"), ("history", value))


def ways_to_call(module: str, name: str) -> dict[str, bytes]:
    """Every instruction that creates an object by name, each calling ``name`` with a command."""
    argument = text("touch it-ran")
    named = f"c{module}\n{name}\n".encode()
    stacked = b"\x8c" + bytes([len(module)]) + module.encode() + b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93"
    return {
        "REDUCE of GLOBAL": named + argument + b"\x85R",
        "REDUCE of STACK_GLOBAL": stacked + argument + b"\x85R",
        "INST": b"(" + argument + f"i{module}\n{name}\n".encode(),
        "OBJ": b"(" + named + argument + b"o",
        "NEWOBJ": named + argument + b"\x85\x81",
        "NEWOBJ_EX": named + argument + b"\x85}\x92",
        "BUILD of a module": f"c{module}\n__dict__\n".encode() + b"}" + text(name) + text("x") + b"sb",
        "memoised": named + b"q\x05" + b"0" + b"h\x05" + argument + b"\x85R",
        "duplicated": named + b"2" + argument + b"\x85R" + b"\x86",
        "as an element": b"](" + named + argument + b"\x85Re",
        "of _reconstructor": b"ccopyreg\n_reconstructor\n(" + named + b"cbuiltins\nobject\nNtR",
        "in a tuple": named + argument + b"\x85R\x85",
        "unused": named + b"0N",
    }


def two_tables(path: Path, small: Callable[[Path], Path], large: Callable[[Path], Path]) -> Path:
    """Two archives in one file: the table of the first behind the records of the second."""
    first, second = small(path.with_suffix(".a")).read_bytes(), large(path.with_suffix(".b")).read_bytes()
    path.write_bytes(second + first)
    return path
