"""Class names in LiteRT files, read as the libraries of apps read them: by the schema, from an archive behind the file.

The numbers of fields and values are those of ``metadata_schema.fbs``, spelled here a second time.
"""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import encode, number_types
from flatbuffers.table import Table

from converter.test_options import HEIGHT, WIDTH, build, check_file, produce
from modelexport.matrix.options import InputType, Layout, Options, PreprocessingPlace
from modelexport.matrix.support import Format, Recipe
from modelexport_converter.architectures.shared.detection import BOXES, SCORES
from modelexport_converter.architectures.torchvision.detectors import DETECTIONS
from modelexport_converter.backends import load_backend
from modelexport_converter.backends.litert import read_metadata
from modelexport_converter.backends.litert_labels import append_labels, describe
from modelexport_converter.failures import Failure
from modelexport_converter.verification.inspection import check_facts

LABELLED = Options(layout=Layout.NHWC, labels=True)
BYTES = replace(LABELLED, input_type=InputType.UINT8)


class Node:
    """A table of the metadata, whose fields are read by their numbers in the schema."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def place(self, field: int) -> int:
        offset = self.table.Offset(4 + 2 * field)
        return int(self.table.Pos + offset) if offset else 0

    def text(self, field: int) -> str:
        return self.table.String(self.place(field)).decode()

    def number(self, field: int, flags: Any = number_types.Int8Flags) -> int:
        place = self.place(field)
        return int(self.table.Get(flags, place)) if place else 0

    def child(self, field: int) -> "Node":
        return Node(Table(self.table.Bytes, self.table.Indirect(self.place(field))))

    def starts(self, field: int) -> list[int]:
        offset = self.table.Offset(4 + 2 * field)
        if not offset:
            return []
        first = self.table.Vector(offset)
        return [first + 4 * index for index in range(self.table.VectorLen(offset))]

    def children(self, field: int) -> list["Node"]:
        return [Node(Table(self.table.Bytes, self.table.Indirect(start))) for start in self.starts(field)]

    def numbers(self, field: int, flags: Any) -> list[float]:
        return [self.table.Get(flags, start) for start in self.starts(field)]

    def texts(self, field: int) -> list[str]:
        return [self.table.String(start).decode() for start in self.starts(field)]


def read_root(content: bytes) -> Node:
    assert content[4:8] == b"M001"
    data = bytearray(content)
    return Node(Table(data, encode.Get(number_types.UOffsetTFlags.packer_type, data, 0)))


def read_graph(path: Path) -> Node:
    """The metadata of the first subgraph, from the bytes of the file."""
    model = schema.Model.GetRootAs(path.read_bytes())
    (buffer,) = (
        model.Metadata(index).Buffer()
        for index in range(model.MetadataLength())
        if model.Metadata(index).Name() == b"TFLITE_METADATA"
    )
    root = read_root(bytes(model.Buffers(buffer).DataAsNumpy()))
    assert root.text(7) == "1.0.0"
    (graph,) = root.children(3)
    return graph


def normalisation(image: Node) -> tuple[list[float], list[float]]:
    (unit,) = image.children(4)
    assert unit.number(0, number_types.Uint8Flags) == 1  # NormalizationOptions
    mean, std = (unit.child(1).numbers(field, number_types.Float32Flags) for field in (0, 1))
    return mean, std


def test_labels_lie_in_an_archive_behind_the_file(tmp_path: Path) -> None:
    _, path, facts = check_file(Format.LITERT, Recipe.FP32, BYTES, tmp_path)
    with zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {"labels.txt": b"a\nb\nc\nd\n"}
    assert facts.labels == ("a", "b", "c", "d")
    (output,) = read_graph(path).children(3)
    (file,) = output.children(6)
    assert (output.text(0), output.texts(2)) == ("probabilities", ["batch", "class"])
    assert (file.text(0), file.number(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS


@pytest.mark.parametrize("recipe", [Recipe.FP32, Recipe.FP16, Recipe.STATIC_WI8_AI8])
def test_image_is_described_for_libraries(recipe: Recipe, tmp_path: Path) -> None:
    model, path, _ = check_file(Format.LITERT, recipe, LABELLED, tmp_path)
    (image,) = read_graph(path).children(2)
    assert (image.text(0), image.child(3).number(0, number_types.Uint8Flags)) == ("image", 2)  # ImageProperties
    properties = image.child(3).child(1)
    assert properties.number(0) == 1  # RGB
    size = [properties.child(1).number(field, number_types.Uint32Flags) for field in (0, 1)]
    assert size == [WIDTH, HEIGHT]
    mean, std = normalisation(image)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3))
    how = model.preprocessing
    np.testing.assert_allclose((pixels - mean) / std, (pixels / 255 - how.mean) / how.std, atol=1e-5)


@pytest.mark.parametrize("options", [BYTES, replace(LABELLED, preprocessing=PreprocessingPlace.INSIDE)], ids=str)
def test_pixels_are_not_normalised_by_libraries(options: Options, tmp_path: Path) -> None:
    _, path = produce(Format.LITERT, Recipe.FP32, options, tmp_path)
    (image,) = read_graph(path).children(2)
    assert normalisation(image) == ([0], [1])


def test_labels_change_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "labelled").mkdir()
    _, plain = produce(Format.LITERT, Recipe.FP32, replace(BYTES, labels=False), tmp_path)
    _, labelled = produce(Format.LITERT, Recipe.FP32, BYTES, tmp_path / "labelled")
    assert read_metadata(labelled) == read_metadata(plain)
    details = [[op["op_name"] for op in Interpreter(str(path))._get_ops_details()] for path in (plain, labelled)]
    assert details[0] == details[1]
    assert not load_backend(Format.LITERT).inspect(plain).labels


def test_file_without_its_labels_is_refused(tmp_path: Path) -> None:
    model, path = produce(Format.LITERT, Recipe.FP32, replace(BYTES, labels=False), tmp_path)
    facts = load_backend(Format.LITERT).inspect(path)
    with pytest.raises(Failure, match="it has 0 labels, or others, instead of 4"):
        check_facts(facts, replace(model, options=BYTES), Recipe.FP32)


def test_every_class_has_a_line(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    append_labels(path, ("two\nlines", "", " ", "größe"))
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode() == "two lines\n1\n2\ngröße\n"


def test_detections_have_the_names_of_libraries() -> None:
    (graph,) = read_root(describe(build(LABELLED), DETECTIONS)).children(3)
    boxes, scores, labels, count = graph.children(3)
    assert [output.text(0) for output in (boxes, scores, labels, count)] == [
        *("location", "score", "category", "number of detections")
    ]
    assert boxes.child(3).number(0, number_types.Uint8Flags) == 3  # BoundingBoxProperties
    properties = boxes.child(3).child(1)
    assert properties.numbers(0, number_types.Uint32Flags) == [0, 1, 2, 3]
    assert (properties.number(1), properties.number(2)) == (1, 0)  # BOUNDARIES, RATIO
    (file,) = labels.children(6)
    assert file.number(2) == 3  # TENSOR_VALUE_LABELS
    assert not scores.children(6)


def test_scores_of_anchors_keep_their_names() -> None:
    (graph,) = read_root(describe(build(LABELLED), (BOXES, SCORES))).children(3)
    boxes, scores = graph.children(3)
    assert (boxes.text(0), boxes.child(3).number(0, number_types.Uint8Flags)) == ("boxes", 1)
    assert [file.number(2) for file in scores.children(6)] == [2]
