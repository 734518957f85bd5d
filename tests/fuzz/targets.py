"""Every reader of untrusted input, as a function of bytes that raises if the reader misbehaves.

A reader may refuse its input by the exceptions and reasons that it documents, in a message that is safe to show. Any
other exception, opened file or imported module is a finding, and so are more than 10 seconds or a GiB.
"""

import codecs
import json
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fuzz.mutators import Mutator, json_tree, opcodes, spliced
from modelexport.api.reasons import Reason
from modelexport.api.request import ConversionRequest
from modelexport.api.result import ConversionResult
from modelexport.bounded_yaml import NotPlain, load_documents
from modelexport.cli.documents import read_documents, read_exports
from modelexport.errors import BadInput
from modelexport.planning.progress import Progress, read_progress
from modelexport.text import clean, is_clean
from modelexport.untrusted import load as load_json
from modelexport_converter.architectures import custom
from modelexport_converter.architectures.yolov8 import loader as yolov8
from modelexport_converter.checkpoints.checkpoint import read_checkpoint
from modelexport_converter.failures import Failure
from modelexport_converter.publishing import converted_output
from modelexport_operator.kube.partial_decoding import WHOLE, decoders_of
from modelexport_operator.kube.resources import JOBS, PODS
from modelexport_operator.kube.watch_stream import Line, LineReader, UnreadableError, WatchEndedError, parse_event
from security import hostile_pickles, hostile_programs, test_hostile_outputs, test_hostile_pickles, test_hostile_yaml
from security.canary import SECRET, canary
from tiny_request import REQUEST
from trained.cells import ask

CORPUS = Path(__file__).parent / "corpus"
RELEASE = Path(__file__).parents[2] / "testdata/models/releases/8.3.0-classify-finished.pt"
OUTPUT = "s3://exports/default/tiny/"
PROGRESS = Progress("convert", "2026-01-02T03:04:05Z", "2026-01-02T03:04:00Z", 25, 15)
SMALL = 4096
"""Bytes of a hostile input that is still a seed."""
REFUSALS = {
    Reason.CHECKPOINT_UNREADABLE,
    Reason.CHECKPOINT_UNSAFE,
    Reason.CHECKPOINT_MISMATCH,
    Reason.WEIGHTS_NOT_FINITE,
}


@dataclass(frozen=True)
class Target:
    """A reader: its function, its seed inputs, their mutator, its largest input in bytes, and its share of the time."""

    read: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    mutate: Mutator | None = None
    longest: int = 1 << 14
    share: int = 1


@cache
def folder() -> Path:
    """A folder in memory, for readers of files."""
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm"))


def prepare(name: str, contents: Iterable[bytes]) -> None:
    """Read the seeds once, so that imports happen before the canary listens; the fuzzer repeats findings."""
    for codec in (
        "cp437",
        "raw_unicode_escape",
        "unicode_escape",
        "latin-1",
        "utf_16_be",
        "utf_16_le",
        "utf_32_be",
        "utf_32_le",
    ):
        codecs.lookup(codec)
    for content in contents:
        with suppress(AssertionError):
            TARGETS[name].read(content)


def check_words(error: Exception) -> None:
    """Check that the message of a refusal is short, acts on no terminal and leaks no secret."""
    words = str(error)
    assert is_clean(words), words
    assert SECRET not in words
    assert len(words) < 2000, len(words)


def _check_reason(failure: Failure, reasons: set[Reason]) -> None:
    assert failure.reason in reasons, failure.reason


@contextmanager
def refusing(*kinds: type[Exception], reasons: set[Reason] | None = None, allowed: Path = CORPUS) -> Iterator[None]:
    """Accept refusals of these kinds, a ``Failure`` only with these reasons; check that nothing else happened."""
    with canary(allowed) as held:
        try:
            yield
        except kinds as error:
            if isinstance(error, Failure):
                _check_reason(error, reasons or set())
            check_words(error)
    held.check()


def _read_file(name: str, content: bytes, architecture: str | None = None) -> None:
    path = folder() / name
    path.write_bytes(content)
    with refusing(Failure, reasons=REFUSALS, allowed=path):
        checkpoint = read_checkpoint(path)
        dict(checkpoint.tensors)
        if architecture is not None and checkpoint.program is not None:
            custom.load(checkpoint, ask("Custom"))
        elif architecture is not None:
            yolov8.load(checkpoint, ask("YOLOv8"))


def read_pickle(data: bytes) -> None:
    """A pickle, in an archive with one record of numbers."""
    _read_file("x.pt", _pickled(data))


def _pickled(data: bytes) -> bytes:
    return hostile_pickles.archive(folder() / "made.pt", data).read_bytes()


def read_tree(data: bytes) -> None:
    """The pickle of a small network of ultralytics, in an archive with its numbers, and the network of its tree."""
    path = folder() / "made.pt"
    hostile_pickles.archive(path, data, _release())
    _read_file("x.pt", path.read_bytes(), "YOLOv8")


@cache
def _release() -> Mapping[str, bytes]:
    return {name: content for name, content in _records(RELEASE).items() if name.startswith("data/")}


def _records(path: Path) -> Mapping[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def read_archive(data: bytes) -> None:
    """Any file in place of a checkpoint."""
    _read_file("x.bin", data, "any")


def read_program(data: bytes) -> None:
    """The JSON records of a program, as one object, in an archive with the numbers of a sound one."""
    try:
        records = json.loads(data)
        parts = {str(name): json.dumps(part).encode() for name, part in records.items()}
        hostile_programs.write(folder() / "made.pt2", {**_program(), **parts})
    except (ValueError, AttributeError, RecursionError, OverflowError):
        return
    _read_file("x.pt2", (folder() / "made.pt2").read_bytes(), "Custom")


_JSON = (hostile_programs.MODEL, hostile_programs.WEIGHTS, hostile_programs.CONSTANTS)


@cache
def _program() -> hostile_programs.Records:
    return hostile_programs.save_base(folder() / "base.pt2")


def _compact(records: hostile_programs.Records) -> bytes:
    parts = {name: json.loads(records[name]) for name in _JSON if name in records}
    for node in parts[_JSON[0]]["graph_module"]["graph"]["nodes"]:
        node["metadata"] = {}
    return json.dumps(parts, separators=(",", ":")).encode()


def _programs() -> list[bytes]:
    edits = [
        hostile_programs.nested(3),
        hostile_programs.wrapped([hostile_programs.given("", "as_bool", False)]),
        hostile_programs.spec("out_spec", hostile_programs.tree("builtins.dict", ["a"])),
        hostile_programs.weight(dtype=5),
    ]
    made = [_compact(_program())]
    for edit in edits:
        records = dict(_program())
        edit(records)
        made.append(_compact(records))
    return made


def read_safetensors(data: bytes) -> None:
    """A safetensors file with the given JSON header, and numbers."""
    _read_file("x.safetensors", struct.pack("<Q", len(data)) + data + bytes(64))


def read_message(data: bytes) -> None:
    """A termination message, and a report of a bucket."""
    text = data.decode("utf-8", "replace")
    with refusing(ValueError):
        result = ConversionResult.from_json(text, output=OUTPUT)
        assert ConversionResult.from_json(result.to_json(), output=OUTPUT) == result, result
    with refusing(ValueError):
        ConversionResult.from_json(text)
    with refusing(ValueError):
        load_json(text, 4096)


def read_request(data: bytes) -> None:
    """The request of a conversion, in the environment of its Pod."""
    try:
        with canary():
            request = ConversionRequest.from_json(data.decode("utf-8", "replace"))
    except ValueError:
        return
    assert ConversionRequest.from_json(request.to_json()) == request


def read_status_progress(data: bytes) -> None:
    """The progress in the status of a ModelExport, which anyone with write access to statuses can have written."""
    with refusing(ValueError):
        progress = read_progress(load_json(data.decode("utf-8", "replace"), SMALL))
        assert read_progress(progress.to_dict()) == progress


def read_draft(data: bytes) -> None:
    """The draft report that a conversion left. The reader opens files, so no canary listens."""
    outputs, scratch = folder() / "outputs", folder() / "scratch"
    outputs.mkdir(exist_ok=True)
    scratch.mkdir(exist_ok=True)
    (outputs / test_hostile_outputs.NAME).write_bytes(b"a converted file")
    (outputs / converted_output.DRAFT_FILE).write_bytes(data)
    (scratch / "artifact").unlink(missing_ok=True)
    try:
        taken = converted_output.take_output(outputs, REQUEST, 7, scratch)
    except Failure as failure:
        _check_reason(failure, {Reason.OUTPUT_REFUSED})
        check_words(failure)
    else:
        json.dumps([taken.findings, taken.verification.to_dict()], allow_nan=False).encode()


def clean_text(data: bytes) -> None:
    """Any text: cleaning it twice equals cleaning it once, and the result is as short as asked."""
    text = data.decode("utf-8", "surrogateescape" if len(data) % 2 else "replace")
    with refusing():
        for limit in (None, 1, 2, 7, 100):
            shown = clean(text, limit)
            assert is_clean(shown), shown
            assert limit is None or len(shown) <= limit
            shown.encode()


def read_stream(data: bytes) -> None:
    """A watch: its lines do not depend on how the bytes are split; each is an event or refused."""
    size, limit = data[0] + 1 if data else 1, 1 << 12
    content = data[1:]
    with refusing(UnreadableError, ValueError):
        whole = list(LineReader(limit).feed(content))
        reader = LineReader(limit)
        pieces = [content[at : at + size] for at in range(0, len(content), size)]
        parted = [line for piece in pieces for line in reader.feed(piece)]
        assert [line.is_whole for line in whole] == [line.is_whole for line in parted]
        assert all(a.content[:100] == b.content[:100] for a, b in zip(whole, parted, strict=True))
        for line in whole:
            _parse(line)


def _parse(line: Line) -> None:
    for decoders in (WHOLE, decoders_of(JOBS), decoders_of(PODS)):
        try:
            kind, body = parse_event(line, decoders.event)
        except (UnreadableError, WatchEndedError, ValueError) as error:
            check_words(error)
        else:
            assert isinstance(kind, str)
            assert body["metadata"]["resourceVersion"].isdigit()


def read_yaml(data: bytes) -> None:
    """A file of YAML, as text and as exports."""
    path = folder() / "x.yaml"
    path.write_bytes(data)
    with refusing(NotPlain):
        json.dumps(load_documents(data.decode("utf-8", "replace")), allow_nan=False)
    with refusing(BadInput, allowed=path):
        read_documents(path)
        read_exports(path)


def _pickles() -> list[bytes]:
    made = [hostile_pickles.state_dict(hostile_pickles.GOOD)]
    made += [hostile_pickles.beside(part) for part in hostile_pickles.ways_to_call("torch.nn", "Conv2d").values()]
    made += [hostile_pickles.beside(part) for part in hostile_pickles.ways_to_call("os", "system").values()]
    return made


def _archives() -> list[bytes]:
    good = test_hostile_pickles.small(folder() / "good.pt").read_bytes()
    crafted = [make(good) for make in test_hostile_pickles.ARCHIVES.values()]
    return [good, *[content for content in crafted if len(content) <= SMALL], *map(_headed, _headers())]


def _headed(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(16)


def _headers() -> list[bytes]:
    parts = {name: {"dtype": kind, "shape": [2], "data_offsets": [0, 8]} for name, kind in (("w", "F32"), ("b", "I32"))}
    return [json.dumps({"w": parts["w"], "__metadata__": {"names": "[1]"}}).encode(), json.dumps(parts).encode()]


def _messages() -> list[bytes]:
    artifact = {"uri": f"{OUTPUT}tiny.onnx", "sha256": "0" * 64, "size_bytes": 7}
    verification = {
        "metric": "agreement",
        "value": "0.99",
        "threshold": "0.9",
        "reference": "Rebuilt",
        "warnings": ["a"],
        "fidelity": {"metric": "boxes", "value": "0.97", "threshold": "0.95", "images": 3, "kept": 97, "missed": 3},
    }
    good = {"schemaVersion": 1, "reason": "Succeeded", "message": "done", "scheme": "FP32", "artifact": artifact}
    good |= {"report_uri": f"{OUTPUT}report.json", "verification": verification, "seconds": 1.5, "reused": True}
    failed = {"schemaVersion": 1, "reason": "CheckpointUnsafe", "message": "no", "peak_memory_mib": 900}
    return [json.dumps(part).encode() for part in (good, failed)]


def _events() -> list[bytes]:
    metadata = {"name": "a", "namespace": "b", "resourceVersion": "12", "labels": {"x": "y"}}
    lines = [
        {"type": "ADDED", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": metadata}},
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}},
        {"type": "ERROR", "object": {"code": 410}},
    ]
    return [b"\x05" + b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)]


def _yamls() -> list[bytes]:
    hostile = [text if isinstance(text, bytes) else text.encode() for text, _ in test_hostile_yaml.REFUSED.values()]
    examples = [path.read_bytes() for path in sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))]
    return [text for text in (*hostile, *examples) if len(text) <= SMALL]


YAML_WORDS = tuple(
    b"&a |*a|<<: *a\n|- |? |: |{|}|[|]|---\n|...\n|!!python/object:os.system |!!binary |%YAML 9.9\n|".split(b"|")
)
YAML_WORDS += tuple(
    b"0x_|1e999|.nan|2026-01-01|190:20:30|0b_|!!int |!<tag:x> |'|\"|\\ud800|>\n|\t|spec:\n|# |kind: ".split(b"|")
)
TEXT_WORDS = (
    "\x1b[",
    "\x1b]0;",
    "\x9b",
    "\x07",
    "\u202e",
    "\u200b",
    "\ufe0f",
    "e" + "\u0301" * 9,
    "\u2028",
    "\ue000",
    "\r\n",
)
TARGETS: Mapping[str, Target] = {
    "programs": Target(read_program, _programs, json_tree, 1 << 16, share=4),
    "pickles": Target(read_pickle, _pickles, opcodes, share=3),
    "trees": Target(read_tree, lambda: [_records(RELEASE)["data.pkl"]], opcodes, 1 << 18, share=3),
    "archives": Target(read_archive, _archives, share=2),
    "safetensors": Target(read_safetensors, _headers, json_tree),
    "messages": Target(read_message, _messages, json_tree),
    "requests": Target(read_request, lambda: [REQUEST.to_json().encode()], json_tree),
    "progress": Target(read_status_progress, lambda: [json.dumps(PROGRESS.to_dict()).encode()], json_tree, 1 << 12),
    "drafts": Target(read_draft, lambda: [json.dumps(test_hostile_outputs.good_draft()).encode()], json_tree),
    "texts": Target(clean_text, lambda: ["né\x1b[1m".encode()], spliced(tuple(word.encode() for word in TEXT_WORDS))),
    "streams": Target(read_stream, _events, spliced((b"\n", b'{"type":"', b"[" * 2000, b'"metadata":', b"1" * 5000))),
    "yaml": Target(read_yaml, _yamls, spliced(YAML_WORDS), share=2),
}
