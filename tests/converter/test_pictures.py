"""Pictures of users: which are read, how they become inputs, and what is refused before it does harm."""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modelexport.reasons import Reason
from modelexport.spec import Calibration, DataRef
from modelexport_converter import pictures
from modelexport_converter.calibration import Dataset, open_dataset
from modelexport_converter.datasets import VERIFICATION_COUNT, fetch_dataset
from modelexport_converter.failures import Failure
from modelexport_converter.model import Preprocessing
from modelexport_converter.pictures import (
    Inputs,
    Picture,
    centre_crop,
    decode,
    letterbox,
    open_archive,
    prepare,
    stretch,
)
from modelexport_converter.stores import Store, open_store

URI = "s3://datasets/pictures.zip"


def encoded(image: Image.Image, suffix: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, suffix, **options)
    return stream.getvalue()


def flat(colour: tuple[int, int, int] = (200, 100, 50), size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new("RGB", size, colour)


def archive(path: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as writer:
        for name, content in files.items():
            writer.writestr(name, content)
    return path


def picture(content: bytes) -> Picture:
    return Picture("a.png in the archive", lambda: content)


def test_pictures_are_found_in_every_kind_and_sorted_by_name(tmp_path: Path) -> None:
    files = {
        "b/2.jpg": encoded(flat(), "JPEG"),
        "b/1.webp": encoded(flat(), "WEBP"),
        "a.BMP": encoded(flat(), "BMP"),
        "c.png": encoded(flat()),
        "labels.txt": b"",
        "__MACOSX/._c.png": b"",
        ".hidden/c.png": b"",
    }
    found = open_archive(archive(tmp_path / "a.zip", files), URI)
    assert [item.name.split(" in ")[0] for item in found] == ["a.BMP", "b/1.webp", "b/2.jpg", "c.png"]
    assert all(decode(item).size == (8, 6) for item in found)


def test_names_that_lead_out_of_the_archive_write_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (found,) = open_archive(archive(folder / "a.zip", {"../../evil.png": encoded(flat())}), URI)
    assert decode(found).size == (8, 6)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "inner"]


def test_two_entries_of_one_name_are_two_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as writer:
        writer.writestr("a.png", encoded(flat((255, 0, 0))))
        with pytest.warns(UserWarning, match="Duplicate name"):
            writer.writestr("a.png", encoded(flat((0, 255, 0))))
    assert [decode(item).getpixel((0, 0)) for item in open_archive(path, URI)] == [(255, 0, 0), (0, 255, 0)]


def test_an_archive_without_pictures_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"holds no picture .* it holds 2 files: a.txt, b.npy") as caught:
        open_archive(archive(tmp_path / "a.zip", {"a.txt": b"", "b.npy": b""}), URI)
    assert caught.value.reason is Reason.CALIBRATION_INVALID


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"not a zip")
    with pytest.raises(Failure, match="is not a zip archive") as caught:
        open_archive(tmp_path / "a.zip", URI)
    assert caught.value.reason is Reason.CALIBRATION_INVALID


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("ENTRY_LIMIT", 2, "holds 3 files, the limit is 2"),
        ("PICTURE_LIMIT", 1 << 20, "holds 3 MiB in one file, the limit is 1"),
        ("TOTAL_LIMIT", 2 << 20, "holds 3 MiB unpacked, the limit is 2"),
        ("RATIO_LIMIT", 200, "times its packed size, the limit is 200"),
    ],
)
def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, message: str
) -> None:
    files = {"a.png": bytes(3 << 20), "b.png": b"", "c.png": b""}
    path = archive(tmp_path / "a.zip", files, zipfile.ZIP_DEFLATED)
    for name in ("ENTRY_LIMIT", "PICTURE_LIMIT", "TOTAL_LIMIT", "RATIO_LIMIT"):
        monkeypatch.setattr(pictures, name, value if name == limit else 1 << 60)
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(Failure, match=message) as caught:
        open_archive(path, URI)
    assert caught.value.reason is Reason.CALIBRATION_TOO_LARGE


def test_an_entry_that_lies_about_its_size_is_read_no_further(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"a.png": bytes(1 << 20)}, zipfile.ZIP_DEFLATED)
    content = path.read_bytes().replace(struct.pack("<I", 1 << 20), struct.pack("<I", 100))
    path.write_bytes(content)
    (found,) = open_archive(path, URI)
    with pytest.raises(Failure, match=r"a.png in s3.*cannot be read"):
        decode(found)


def test_one_broken_picture_is_named(tmp_path: Path) -> None:
    files = {"good.png": encoded(flat()), "torn.jpg": encoded(flat((1, 2, 3), (640, 480)), "JPEG")[:900]}
    found = open_archive(archive(tmp_path / "a.zip", files), URI)
    with pytest.raises(Failure, match=rf"torn.jpg in {URI} cannot be read as a picture") as caught:
        pictures.check_readable(found)
    assert caught.value.reason is Reason.CALIBRATION_INVALID


def test_a_picture_of_another_kind_under_a_known_suffix_is_refused() -> None:
    with pytest.raises(Failure, match="cannot be read as a picture"):
        decode(picture(encoded(flat(), "GIF")))


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bodies = (header, b"IDAT")
    chunks = [struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in bodies]
    with pytest.raises(Failure, match=r"has more than .* pixels") as caught:
        decode(picture(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)))
    assert caught.value.reason is Reason.CALIBRATION_TOO_LARGE


def test_a_picture_is_turned_as_its_camera_says() -> None:
    image = flat(size=(8, 6))
    exif = image.getexif()
    exif[0x0112] = 6
    assert decode(picture(encoded(image, "JPEG", exif=exif))).size == (6, 8)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Image.new("L", (2, 2), 90), (90, 90, 90)),
        (lambda: Image.new("RGBA", (2, 2), (10, 20, 30, 0)), (10, 20, 30)),
        (lambda: Image.new("LA", (2, 2), (70, 0)), (70, 70, 70)),
        (lambda: Image.fromarray(np.full((2, 2), 40_000, np.uint16)), (156, 156, 156)),
        (lambda: flat((10, 20, 30)).convert("P"), None),
        (lambda: Image.new("1", (2, 2), 1), (255, 255, 255)),
    ],
)
def test_every_colour_mode_becomes_rgb(make: Callable[[], Image.Image], expected: tuple[int, int, int] | None) -> None:
    image = decode(picture(encoded(make())))
    assert image.mode == "RGB"
    if expected:
        assert image.getpixel((0, 0)) == expected


# Sizes and paddings that ultralytics 8.4.190 computes: LetterBox(new_shape, auto=False).
@pytest.mark.parametrize(
    ("size", "input_size", "box"),
    [
        ((640, 480), (640, 640), (0, 80, 640, 560)),
        ((333, 500), (640, 640), (107, 0, 533, 640)),
        ((640, 101), (640, 640), (0, 269, 640, 370)),
        ((64, 64), (640, 640), (0, 0, 640, 640)),
        ((911, 37), (160, 160), (0, 77, 160, 83)),
        ((512, 600), (320, 640), (183, 0, 456, 320)),
    ],
)
def test_a_picture_is_letterboxed_as_in_training(
    size: tuple[int, int], input_size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    boxed = np.asarray(letterbox(flat((255, 255, 255), size), input_size))
    rows, columns = np.where((boxed == 255).all(axis=-1))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == box
    assert boxed.shape == (*input_size, 3)
    assert set(np.unique(boxed)) <= {114, 255}


def test_the_centre_is_cut_after_the_shorter_side_is_scaled() -> None:
    wide = Image.new("RGB", (300, 100), (255, 0, 0))
    wide.paste((0, 255, 0), (100, 0, 200, 100))
    cut = np.asarray(centre_crop(wide, (50, 50)))
    assert cut.shape == (50, 50, 3)
    assert (cut[:, 2:-2] == (0, 255, 0)).all()


def test_both_sides_are_stretched_each_by_itself() -> None:
    halves = Image.new("RGB", (200, 100))
    halves.paste((255, 255, 255), (100, 0, 200, 100))
    stretched = np.asarray(stretch(halves, (64, 32)))
    assert stretched.shape == (64, 32, 3)
    assert (stretched[:, :14] == 0).all()
    assert (stretched[:, 18:] == 255).all()


def test_an_input_is_normalised_rgb_with_channels_first() -> None:
    preprocessing = Preprocessing("letterbox", mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 1.0))
    found = prepare(flat((255, 255, 0), (32, 32)), preprocessing, (32, 32))
    assert found.shape == (1, 3, 32, 32)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert [float(channel[0, 0]) for channel in found[0]] == [1.0, 2.0, -0.5]


def test_inputs_are_prepared_only_when_they_are_asked_for() -> None:
    read: list[int] = []

    def make(index: int) -> Picture:
        return Picture(str(index), lambda: (read.append(index), encoded(flat()))[1])

    inputs = Inputs([make(index) for index in range(5)], Preprocessing("letterbox"), (32, 32))
    assert (len(inputs), read) == (5, [])
    assert inputs[3].shape == (1, 3, 32, 32)
    assert (len(inputs[1:3]), read) == (2, [3])
    assert (len(list(inputs[1:3])), read) == (2, [3, 1, 2])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    folder = tmp_path / "store/datasets/folder"
    folder.mkdir(parents=True)
    for index in range(8):
        (folder / f"{index}.png").write_bytes(encoded(flat((index, 0, 0))))
    archive(folder.parent / "eight.zip", {f"{index}.png": encoded(flat((index, 0, 0))) for index in range(8)})
    return open_store({"MODELEXPORT_STORE": str(tmp_path / "store")})


def open_from(store: Store, folder: Path, uri: str, samples: int) -> Dataset:
    folder.mkdir(exist_ok=True)
    reference = Calibration(DataRef(uri), samples)
    return open_dataset(reference, fetch_dataset(store, {}, reference, folder), folder)


def reds(found: tuple[Picture, ...]) -> list[int]:
    return [decode(item).getpixel((0, 0))[0] for item in found]  # type: ignore[index]


@pytest.mark.parametrize("uri", ["s3://datasets/eight.zip", "s3://datasets/folder/"])
def test_verification_uses_pictures_that_did_not_calibrate_where_there_are_enough(
    store: Store, tmp_path: Path, uri: str
) -> None:
    enough = open_from(store, tmp_path / "work", uri, 4)
    assert (reds(enough.calibration), reds(enough.verification)) == ([0, 1, 2, 3], [4, 5, 6, 7])
    short = open_from(store, tmp_path / "work", uri, 6)
    assert (reds(short.calibration), reds(short.verification)) == ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5])


def test_what_is_not_calibrated_is_verified_on_the_first_pictures_and_has_all_of_them(
    store: Store, tmp_path: Path
) -> None:
    reference = Calibration(DataRef("s3://datasets/eight.zip"), 6)
    (tmp_path / "work").mkdir()
    fetched = fetch_dataset(store, {}, reference, tmp_path / "work")
    found = open_dataset(reference, fetched, tmp_path / "work", calibrates=False)
    assert (found.calibration, reds(found.verification)) == ((), list(range(8)))


def test_a_local_folder_serves_as_well(store: Store, tmp_path: Path) -> None:
    found = open_from(store, tmp_path / "work", f"file://{tmp_path}/store/datasets/folder/", 2)
    assert reds(found.calibration) == [0, 1]


def test_a_name_that_is_no_utf_8_is_no_obstacle(store: Store, tmp_path: Path) -> None:
    (tmp_path / "latin").mkdir()
    (tmp_path / os.fsdecode(b"latin/caf\xe9.png")).write_bytes(encoded(flat((7, 0, 0))))
    found = open_from(store, tmp_path / "work", f"file://{tmp_path}/latin/", 1)
    assert reds(found.calibration) == [7]


def test_the_digest_of_a_folder_changes_with_content_and_name(store: Store, tmp_path: Path) -> None:
    def digest() -> str:
        found = fetch_dataset(store, {}, Calibration(DataRef("s3://datasets/folder/"), 8), tmp_path)
        assert found
        return found.digest

    first, folder = digest(), tmp_path / "store/datasets/folder"
    assert digest() == first
    (folder / "0.png").rename(folder / "00.png")
    renamed = digest()
    (folder / "00.png").write_bytes(encoded(flat((99, 0, 0))))
    assert len({first, renamed, digest()}) == 3


@pytest.mark.parametrize(
    ("uri", "reason", "message"),
    [
        ("s3://datasets/nothing/", Reason.CALIBRATION_NOT_FOUND, "holds nothing; upload pictures"),
        ("s3://datasets/nothing.zip", Reason.CALIBRATION_NOT_FOUND, "correct spec.calibration.dataset.uri"),
        ("s3://absent/folder/", Reason.BUCKET_NOT_FOUND, "bucket absent"),
    ],
)
def test_pictures_that_are_not_there_are_told(
    store: Store, tmp_path: Path, uri: str, reason: Reason, message: str
) -> None:
    with pytest.raises(Failure, match=message) as caught:
        open_from(store, tmp_path / "work", uri, 4)
    assert caught.value.reason is reason


def test_a_model_is_verified_on_packaged_pictures_where_the_user_names_none(store: Store, tmp_path: Path) -> None:
    assert fetch_dataset(store, {}, None, tmp_path) is None
    found = open_dataset(None, None, tmp_path)
    assert (found.calibration, len(found.verification)) == ((), VERIFICATION_COUNT)
    pictures.check_readable(found.verification)
