"""Mutations that keep the format of an input, so that it passes the reader's first check."""

import json
import pickletools
import random
from collections.abc import Callable, Iterator
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes | None]
"""Changes content; ``None`` where it does not have the form that is kept."""

WORDS = (
    "",
    "x",
    "\x1b[2J",
    "\u202e",
    "../../etc/passwd",
    "__class__",
    "os.system",
    "a" * 300,
    "𐀀",
    "\ud800",
    "NaN",
    "1",
)
NUMBERS = (0, 1, -1, 2, 7, 255, 65_536, 1 << 31, (1 << 31) - 1, 1 << 53, 1 << 62, 1 << 63, -(1 << 63), 10**40)
FLOATS = (0.0, -0.0, 1e308, 5e-324, 1.5, -1.0, float("inf"), float("nan"))
MOST_CHANGES = 4


def random_value(chance: random.Random, depth: int = 2) -> Any:
    """Any value that JSON has."""
    kind = chance.randrange(7 if depth else 5)
    if kind < 5:
        return (None, chance.random() < 0.5, chance.choice(NUMBERS), chance.choice(FLOATS), chance.choice(WORDS))[kind]
    parts = [random_value(chance, depth - 1) for _ in range(chance.randrange(4))]
    return parts if kind == 5 else {chance.choice(WORDS): part for part in parts}


def json_tree(data: bytes, chance: random.Random) -> bytes | None:
    """Change values and keys anywhere in a JSON text, or replace them by others of it."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return None
    for _ in range(chance.randint(1, MOST_CHANGES)):
        places = list(_places(tree))
        if not places:
            return json.dumps(random_value(chance)).encode()
        holder, key = chance.choice(places)
        _change(chance, holder, key, [holder[key] for holder, key in places])
    return json.dumps(tree, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _places(tree: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in list(keys):
        yield tree, key
        if depth < 40:
            yield from _places(tree[key], depth + 1)


def _change(chance: random.Random, holder: Any, key: Any, values: list[Any]) -> None:
    match chance.randrange(8):
        case 0:
            holder[key] = random_value(chance)
        case 1 | 2:  # a value of the same kind from elsewhere
            alike = [value for value in values if type(value) is type(holder[key])]
            holder[key] = json.loads(json.dumps(chance.choice(alike)))
        case 3:
            holder[key] = json.loads(json.dumps(chance.choice(values)))
        case 4:
            del holder[key]
        case 5:
            holder[key] = _near(chance, holder[key])
        case 6 if isinstance(holder, list):
            holder.insert(key, json.loads(json.dumps(holder[key])))
        case 7 if isinstance(holder, list):
            chance.shuffle(holder)
        case _ if isinstance(holder, dict):
            others = [name for value in values if isinstance(value, dict) for name in value]
            holder[chance.choice([*others, *WORDS])] = holder.pop(key)


def _near(chance: random.Random, value: Any) -> Any:
    """Another value of the same type."""
    match value:
        case bool():
            return not value
        case int():
            return chance.choice([value + 1, value - 1, -value, value * 1000, *NUMBERS])
        case float():
            return chance.choice([-value, value * 1e9, *FLOATS])
        case str():
            at = chance.randint(0, len(value))
            return value[:at] + chance.choice(WORDS) + value[at + chance.randrange(2) :]
        case list():
            return [value] if chance.random() < 0.3 else value * chance.choice([0, 2, 100 if len(value) < 20 else 2])
    return [value]


def opcodes(data: bytes, chance: random.Random) -> bytes | None:
    """Insert, repeat, move, replace and leave out instructions of a pickle."""
    try:
        starts = [position for _, _, position in pickletools.genops(data)]
    except Exception:
        return None
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(chance.randint(1, MOST_CHANGES)):
        at, other = chance.randrange(len(parts) + 1), chance.randrange(len(parts) or 1)
        match chance.randrange(6):
            case 0:
                parts.insert(at, chance.choice(INSTRUCTIONS))
            case 1 if parts:
                parts.insert(at, parts[other])
            case 2 if parts:
                del parts[other]
            case 3 if parts:
                parts[other] = chance.choice(INSTRUCTIONS)
            case 4 if parts:
                parts.insert(at, parts.pop(other))
            case 5 if parts:
                parts[at:at] = parts[other : other + chance.randrange(1, 30)]
    return b"".join(parts)


def _globals() -> list[bytes]:
    names = """torch._utils _rebuild_tensor_v2;torch._utils _rebuild_tensor_v3;torch._utils _rebuild_parameter
    torch._utils _rebuild_parameter_with_state;torch._tensor _rebuild_from_type_v2;torch FloatStorage;torch HalfStorage
    torch.storage UntypedStorage;torch float8_e5m2;torch Size;collections OrderedDict;collections defaultdict
    copyreg _reconstructor;copyreg __newobj__;builtins getattr;builtins dict;builtins list;builtins set;os system
    torch.nn.modules.conv Conv2d;torch.nn.modules.container Sequential;ultralytics.nn.tasks DetectionModel
    torch.nn.parameter Parameter;torch Tensor;numpy._core.multiarray scalar;torch._utils _rebuild_sparse_tensor"""
    pairs = (name.split() for line in names.splitlines() for name in line.split(";"))
    return [f"c{module}\n{name}\n".encode() for module, name in pairs]


def _text(value: str) -> bytes:
    return (
        b"X"
        + len(value.encode("utf-8", "surrogatepass")).to_bytes(4, "little")
        + value.encode("utf-8", "surrogatepass")
    )


def _number(value: int) -> bytes:
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


INSTRUCTIONS = (
    *(bytes([code]) for code in b"(}])N.0120tal\x85\x86\x87\x88\x89R\x81\x92\x8f\x90\x91\x93\x94QbesudoP"),
    *(b"q" + bytes([index]) for index in range(4)),
    *(b"h" + bytes([index]) for index in range(4)),
    *(b"K" + bytes([index]) for index in (0, 1, 2, 255)),
    *(b"G" + bytes.fromhex(text) for text in ("7ff0000000000000", "7ff8000000000000", "3ff0000000000000")),
    *map(_number, NUMBERS),
    *map(
        _text, (*WORDS, "model", "ema", "state_dict", "_modules", "_parameters", "_buffers", "weight", "storage", "0")
    ),
    *map(_text, ("training", "yaml", "names", "args", "train_args", "cpu", "model.0.conv.weight")),
    *_globals(),
    b"j\xff\xff\xff\x7f",
    b"ios\nsystem\n",
    b"I01\n",
    b"L9999999999999999999999L\n",
    b"F1e999\n",
    b"S'x'\n",
    b"V\\ud800\n",
    b"\x96\x04\x00\x00\x00\x00\x00\x00\x00abcd",
    b"\x8e\x00\x00\x00\x00\x00\x00\x00\x10",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x80\x05",
)
"""Instructions with arguments that a reader could trip over."""


def spliced(words: tuple[bytes, ...]) -> Mutator:
    """Move, repeat and leave out lines and words, and insert words of a language."""

    def mutate(data: bytes, chance: random.Random) -> bytes | None:
        for _ in range(chance.randint(1, MOST_CHANGES)):
            at = chance.randint(0, len(data))
            end = min(len(data), at + chance.choice([0, 1, 4, 30]))
            lines = data.split(b"\n")
            match chance.randrange(5):
                case 0 | 1:
                    data = data[:at] + chance.choice(words) + data[end:]
                case 2:
                    data = data[:at] + data[at:end] * chance.choice([0, 2, 50]) + data[end:]
                case 3:
                    lines.insert(chance.randrange(len(lines)), chance.choice(lines))
                    data = b"\n".join(lines)
                case 4:
                    chance.shuffle(lines)
                    data = b"\n".join(lines)
        return data

    return mutate
