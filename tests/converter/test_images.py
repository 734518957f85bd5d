"""Images of users: accepted formats, preprocessing into inputs, and refusals before harm is done."""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modelexport.api.reasons import Reason
from modelexport.api.spec import Calibration, DataRef
from modelexport_converter.failures import Failure
from modelexport_converter.inputs import dataset, images
from modelexport_converter.inputs.dataset import VERIFICATION_LIMIT, fetch_dataset, sort_key
from modelexport_converter.inputs.image_selection import SPARE, VERIFICATION_COUNT, Dataset, open_dataset
from modelexport_converter.inputs.images import (
    ImageFile,
    PreparedImages,
    centre_crop,
    decode,
    letterbox,
    open_archive,
    prepare,
    stretch,
)
from modelexport_converter.model import Preprocessing
from modelexport_converter.stores import Store
from modelexport_converter.stores.opening import open_store

URI = "s3://datasets/images.zip"


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


def image_file(content: bytes) -> ImageFile:
    return ImageFile("a.png in the archive", lambda: content)


def test_images_are_found_in_every_archive_and_sorted(tmp_path: Path) -> None:
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


def test_path_traversal_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (found,) = open_archive(archive(folder / "a.zip", {"../../evil.png": encoded(flat())}), URI)
    assert decode(found).size == (8, 6)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "inner"]


def test_duplicate_entry_names_are_distinct_images(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as writer:
        writer.writestr("a.png", encoded(flat((255, 0, 0))))
        with pytest.warns(UserWarning, match="Duplicate name"):
            writer.writestr("a.png", encoded(flat((0, 255, 0))))
    assert [decode(item).getpixel((0, 0)) for item in open_archive(path, URI)] == [(255, 0, 0), (0, 255, 0)]


def test_archive_without_images_is_refused_with_its_contents(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"holds no image .* it holds 2 files: a.txt, b.npy") as caught:
        open_archive(archive(tmp_path / "a.zip", {"a.txt": b"", "b.npy": b""}), URI)
    assert caught.value.reason is Reason.CALIBRATION_INVALID


def test_non_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"not a zip")
    with pytest.raises(Failure, match="is not a zip archive") as caught:
        open_archive(tmp_path / "a.zip", URI)
    assert caught.value.reason is Reason.CALIBRATION_INVALID


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("ENTRY_LIMIT", 2, "holds 3 files, the limit is 2"),
        ("IMAGE_LIMIT", 1 << 20, "holds 3 MiB in one file, the limit is 1"),
        ("TOTAL_LIMIT", 2 << 20, "holds 3 MiB unpacked, the limit is 2"),
        ("RATIO_LIMIT", 200, "times its packed size, the limit is 200"),
    ],
)
def test_zip_bomb_is_refused_before_unpacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, message: str
) -> None:
    files = {"a.png": bytes(3 << 20), "b.png": b"", "c.png": b""}
    path = archive(tmp_path / "a.zip", files, zipfile.ZIP_DEFLATED)
    for name in ("ENTRY_LIMIT", "IMAGE_LIMIT", "TOTAL_LIMIT", "RATIO_LIMIT"):
        monkeypatch.setattr(images, name, value if name == limit else 1 << 60)
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(Failure, match=message) as caught:
        open_archive(path, URI)
    assert caught.value.reason is Reason.CALIBRATION_TOO_LARGE


def test_entry_with_false_size_is_read_no_further(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"a.png": bytes(1 << 20)}, zipfile.ZIP_DEFLATED)
    content = path.read_bytes().replace(struct.pack("<I", 1 << 20), struct.pack("<I", 100))
    path.write_bytes(content)
    (found,) = open_archive(path, URI)
    with pytest.raises(Failure, match=r"a.png in s3.*cannot be read"):
        decode(found)


def test_image_with_wrong_suffix_is_refused() -> None:
    with pytest.raises(Failure, match="cannot be read as an image"):
        decode(image_file(encoded(flat(), "GIF")))


def test_oversized_image_is_refused_before_decoding() -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bodies = (header, b"IDAT")
    chunks = [struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in bodies]
    with pytest.raises(Failure, match=r"has more than .* pixels") as caught:
        decode(image_file(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)))
    assert caught.value.reason is Reason.CALIBRATION_TOO_LARGE


def test_exif_orientation_is_applied() -> None:
    image = flat(size=(8, 6))
    exif = image.getexif()
    exif[0x0112] = 6
    assert decode(image_file(encoded(image, "JPEG", exif=exif))).size == (6, 8)


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
    image = decode(image_file(encoded(make())))
    assert image.mode == "RGB"
    if expected:
        assert image.getpixel((0, 0)) == expected


@pytest.mark.parametrize(
    ("image", "kind", "options", "expected"),
    [
        (Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", {"quality": 95}, (255, 0, 0)),
        (Image.new("L", (16, 16), 90), "JPEG", {"quality": 95}, (90, 90, 90)),
        (flat((200, 100, 50), (16, 16)), "JPEG", {"quality": 95, "progressive": True}, (200, 100, 50)),
        (Image.new("RGBA", (16, 16), (10, 20, 30, 128)), "WEBP", {"lossless": True}, (10, 20, 30)),
        (Image.new("RGBA", (16, 16), (10, 20, 30, 128)), "BMP", {}, (10, 20, 30)),
        (Image.new("1", (16, 16), 0), "BMP", {}, (0, 0, 0)),
        (Image.new("P", (16, 16), 0), "PNG", {"transparency": 0}, (0, 0, 0)),
    ],
    ids=["CMYK", "grey JPEG", "progressive", "WebP with alpha", "BMP with alpha", "two colours", "palette with alpha"],
)
def test_every_image_format_becomes_rgb(
    image: Image.Image, kind: str, options: dict[str, object], expected: tuple[int, int, int]
) -> None:
    found = decode(image_file(encoded(image, kind, **options)))
    assert found.mode == "RGB"
    assert np.abs(np.subtract(np.asarray(found)[8, 8], expected)).max() <= 2


def test_sixteen_bit_colour_becomes_eight_bit() -> None:
    samples = struct.pack(">3H", 0xC801, 0x6402, 0x3203) * 4
    rows = b"".join(b"\0" + samples for _ in range(4))
    bodies = (b"IHDR" + struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0), b"IDAT" + zlib.compress(rows), b"IEND")
    chunks = [struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in bodies]
    assert decode(image_file(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))).getpixel((1, 1)) == (200, 100, 50)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_exif_orientation_becomes_upright(kind: str, turn: int) -> None:
    image = Image.new("RGB", (32, 16), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 16, 8))
    exif = image.getexif()
    exif[0x0112] = turn
    found = decode(image_file(encoded(image, kind, exif=exif)))
    expected = {1: (4, 4), 2: (-4, 4), 3: (-4, -4), 4: (4, -4), 5: (4, 4), 6: (-4, 4), 7: (-4, -4), 8: (4, -4)}[turn]
    assert found.size == ((32, 16) if turn < 5 else (16, 32))
    x, y = expected
    assert np.asarray(found)[y, x, 0] > 200


@pytest.mark.parametrize("size", [(200_000, 3), (3, 200_000)])
def test_centre_crop_of_long_image_needs_little_memory(size: tuple[int, int]) -> None:
    strip = Image.new("RGB", size, (255, 0, 0))
    middle = tuple(side // 2 for side in size)
    strip.paste((0, 255, 0), (middle[0] - 9, middle[1] - 9, middle[0] + 9, middle[1] + 9))
    cut = np.asarray(centre_crop(strip, (512, 512)))
    assert cut.shape == (512, 512, 3)
    assert (cut == (0, 255, 0)).all()


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
def test_image_is_letterboxed_as_in_training(
    size: tuple[int, int], input_size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    boxed = np.asarray(letterbox(flat((255, 255, 255), size), input_size))
    rows, columns = np.where((boxed == 255).all(axis=-1))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == box
    assert boxed.shape == (*input_size, 3)
    assert set(np.unique(boxed)) <= {114, 255}


def test_centre_crop_follows_resize_of_shorter_side() -> None:
    wide = Image.new("RGB", (300, 100), (255, 0, 0))
    wide.paste((0, 255, 0), (100, 0, 200, 100))
    cut = np.asarray(centre_crop(wide, (50, 50)))
    assert cut.shape == (50, 50, 3)
    assert (cut[:, 2:-2] == (0, 255, 0)).all()


def test_stretch_scales_each_side() -> None:
    halves = Image.new("RGB", (200, 100))
    halves.paste((255, 255, 255), (100, 0, 200, 100))
    stretched = np.asarray(stretch(halves, (64, 32)))
    assert stretched.shape == (64, 32, 3)
    assert (stretched[:, :14] == 0).all()
    assert (stretched[:, 18:] == 255).all()


def test_input_is_normalised_rgb_in_nchw() -> None:
    preprocessing = Preprocessing("letterbox", mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 1.0))
    found = prepare(flat((255, 255, 0), (32, 32)), preprocessing, (32, 32))
    assert found.shape == (1, 3, 32, 32)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert [float(channel[0, 0]) for channel in found[0]] == [1.0, 2.0, -0.5]


def test_inputs_are_prepared_lazily() -> None:
    read: list[int] = []

    def make(index: int) -> ImageFile:
        def content() -> bytes:
            read.append(index)
            return encoded(flat())

        return ImageFile(str(index), content)

    inputs = PreparedImages([make(index) for index in range(5)], Preprocessing("letterbox"), (32, 32))
    assert (len(inputs), read) == (5, [])
    assert inputs[3].shape == (1, 3, 32, 32)
    assert (len(inputs[1:3]), read) == (2, [3])
    assert (len(list(inputs[1:3])), read) == (2, [3, 1, 2])


class Data:
    """Datasets in a directory store; each image is of one colour, which identifies it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("store/datasets", "work"):
            (root / folder).mkdir(parents=True)
        self.store = open_store({"MODELEXPORT_STORE": str(root / "store")})

    def put(self, name: str, files: Mapping[str, bytes]) -> str:
        """Lay files out as an archive, or as a folder where the name ends with a slash."""
        path = self.root / "store/datasets" / name
        if not name.endswith("/"):
            archive(path, files)
        for entry, content in files.items() if name.endswith("/") else ():
            (path / entry).parent.mkdir(parents=True, exist_ok=True)
            (path / entry).write_bytes(content)
        return f"s3://datasets/{name}"

    def open(self, uri: str, samples: int, *, calibrates: bool = True) -> Dataset:
        calibration = Calibration(DataRef(uri), samples)
        found = fetch_dataset(self.store, {}, calibration, self.root / "work", calibrates=calibrates)
        return open_dataset(calibration, found, self.root / "work", calibrates=calibrates)

    def digest(self, uri: str, samples: int) -> str | None:
        found = fetch_dataset(self.store, {}, Calibration(DataRef(uri), samples), self.root / "work")
        return found.digest if found else None


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


KINDS = pytest.mark.parametrize("name", ["set.zip", "set/"])


def named(count: int, prefix: str = "", blue: int = 0) -> dict[str, bytes]:
    """Images with numbers for names, each of its own red and green."""
    return {f"{prefix}{i:04d}.png": encoded(flat((i % 256, i // 256, blue))) for i in range(count)}


def reds(found: tuple[ImageFile, ...]) -> list[int]:
    return [decode(item).getpixel((0, 0))[0] for item in found]  # type: ignore[index]


def blues(found: tuple[ImageFile, ...]) -> list[int]:
    return [decode(item).getpixel((0, 0))[2] for item in found]  # type: ignore[index]


def in_order(count: int) -> list[int]:
    return sorted(range(count), key=lambda index: sort_key(f"{index:04d}.png"))


@KINDS
def test_images_are_sampled_in_digest_order(data: Data, name: str) -> None:
    found, expected = data.open(data.put(name, named(200)), 40), in_order(200)
    assert reds(found.calibration) == expected[:40]
    assert sorted(reds(found.verification)) == sorted(expected[40 : 40 + VERIFICATION_LIMIT])
    assert expected[:6] == [115, 51, 19, 132, 165, 74], "the order is another than that of earlier versions"


@pytest.mark.parametrize("count", [8, 9, 31, 64])
def test_first_verification_images_are_spread_over_names(data: Data, count: int) -> None:
    found = reds(data.open(data.put("set.zip", named(count)), 1, calibrates=False).verification)
    assert sorted(found) == list(range(count))
    gaps = np.diff([0, *sorted(found[:VERIFICATION_COUNT]), count])
    assert max(gaps) <= count / 4


@KINDS
@pytest.mark.parametrize(("nights", "days"), [(100, 128), (300, 100), (100, 300), (20, 120)])
def test_sample_is_not_biased_to_first_names(data: Data, name: str, nights: int, days: int) -> None:
    files = {**named(nights, "cam1/", blue=10), **named(days, "cam2/", blue=200)}
    found, share = data.open(data.put(name, files), 64), days / (nights + days)
    for chosen in (found.calibration, found.verification):
        by_day = blues(chosen).count(200) / len(chosen)
        assert abs(by_day - share) < 3 * (share * (1 - share) / len(chosen)) ** 0.5
    assert set(blues(found.verification[:VERIFICATION_COUNT])) == {10, 200}


def test_folder_and_archive_give_same_sample(data: Data) -> None:
    one, other = (data.open(data.put(name, named(150, "a/")), 32) for name in ("set.zip", "set/"))
    assert reds(one.calibration) == reds(other.calibration)
    assert reds(one.verification) == reds(other.verification)


def test_only_sampled_images_of_folder_are_downloaded(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, asked = data.put("set/", named(200)), list[str]()
    download = type(data.store).download

    def noted(store: Store, uri: str, *others: Any) -> Any:
        asked.append(uri)
        return download(store, uri, *others)

    monkeypatch.setattr(type(data.store), "download", noted)
    data.open(uri, 8)
    assert asked == [f"{uri}{index:04d}.png" for index in in_order(200)[: 8 + VERIFICATION_LIMIT]]
    asked.clear()
    data.open(uri, 8, calibrates=False)
    assert len(asked) == VERIFICATION_LIMIT


@pytest.mark.parametrize(
    ("count", "samples", "calibrated", "verified", "apart"),
    [
        (200, 64, 64, 64, True),
        (72, 64, 64, 8, True),
        (64, 64, 56, 8, True),
        (64, 60, 56, 8, True),
        (32, 64, 24, 8, True),
        (31, 64, 31, 31, False),
        (16, 8, 8, 8, True),
        (8, 6, 6, 8, False),
        (1, 64, 1, 1, False),
    ],
)
def test_verification_set_excludes_calibration_images(
    data: Data, count: int, samples: int, calibrated: int, verified: int, *, apart: bool
) -> None:
    assert SPARE * VERIFICATION_COUNT == 32
    found = data.open(data.put("set.zip", named(count)), samples)
    assert (len(found.calibration), len(found.verification)) == (calibrated, verified)
    assert set(reds(found.calibration)).isdisjoint(reds(found.verification)) is apart
    assert found.describe() == {
        "source": "spec.calibration.dataset",
        "calibrated": calibrated,
        "apart": apart,
        "unreadable": (),
        "repeated": 0,
    }


def test_small_set_verifies_uncalibrated_images_first(data: Data) -> None:
    found = data.open(data.put("set.zip", named(8)), 6)
    assert set(reds(found.verification[:2])) == set(in_order(8)[6:])
    assert set(reds(found.verification[2:])) == set(in_order(8)[:6])


def test_uncalibrated_conversion_verifies_on_all_images(data: Data) -> None:
    found = data.open(data.put("set.zip", named(40)), 6, calibrates=False)
    assert (found.calibration, sorted(reds(found.verification))) == ((), list(range(40)))


@KINDS
def test_image_under_two_names_counts_once(data: Data, name: str) -> None:
    twice = {f"copy-of-{entry}": content for entry, content in named(60).items()}
    found = data.open(data.put(name, {**named(60), **twice}), 40)
    calibrated, verified = (reds(chosen) for chosen in (found.calibration, found.verification))
    assert len({*calibrated, *verified}) == len(calibrated) + len(verified)
    assert (len(calibrated), len(verified), found.repeated) == (40, 19, 45)


def test_identical_pixels_count_once(data: Data) -> None:
    noise = Image.effect_noise((20, 20), 80)
    files = {"a.png": encoded(noise), "b.bmp": encoded(noise, "BMP"), "c.png": encoded(noise.convert("RGB"))}
    black = {f"black-{i}.png": encoded(Image.new("RGB", (8 + i, 9))) for i in range(5)}
    found = data.open(data.put("set.zip", {**files, **black}), 64)
    assert (len(found.verification), found.repeated) == (2, 6)


TORN = encoded(flat((1, 2, 3), (640, 480)), "JPEG")[:900]


@KINDS
@pytest.mark.parametrize(("count", "broken"), [(100, 1), (120, 1), (250, 2)])
def test_one_unreadable_image_in_hundred_is_skipped(data: Data, name: str, count: int, broken: int) -> None:
    files = named(count)
    lost = in_order(count)[3 : 3 + broken]
    files.update({f"{index:04d}.png": TORN for index in lost})
    found = data.open(data.put(name, files), count - VERIFICATION_LIMIT)
    expected = [index for index in in_order(count) if index not in lost]
    assert reds(found.calibration) == expected[: len(found.calibration)]
    assert sorted(reds(found.verification)) == sorted(expected[len(found.calibration) :])
    assert [f"{index:04d}.png" in message for index, message in zip(lost, found.unreadable, strict=True)] == (
        [True] * broken
    )
    assert f"left out {broken} of the images: " in found.remark()


@KINDS
@pytest.mark.parametrize(("count", "broken"), [(8, 1), (99, 1), (100, 2), (120, 2), (250, 3)])
def test_many_unreadable_images_are_refused_by_name(data: Data, name: str, count: int, broken: int) -> None:
    files = named(count)
    lost = [f"{index:04d}.png" for index in in_order(count)[:broken]]
    files.update(dict.fromkeys(lost, TORN))
    with pytest.raises(Failure, match=r"cannot be read as an image \(.*\); repair or remove it") as caught:
        data.open(data.put(name, files), count)
    assert caught.value.reason is Reason.CALIBRATION_INVALID
    assert all(entry in str(caught.value) for entry in lost)


@KINDS
def test_large_set_may_have_unreadable_image_in_every_precision(data: Data, name: str) -> None:
    files = {**named(200), f"{in_order(200)[1]:04d}.png": TORN}
    found = data.open(data.put(name, files), 8, calibrates=False)
    assert (len(found.verification), len(found.unreadable)) == (63, 1)


def test_error_names_first_of_many_broken_images(data: Data) -> None:
    files = {f"{index:04d}.png": TORN for index in range(400)}
    with pytest.raises(Failure, match="more of 364 images than one in a hundred cannot be used") as caught:
        data.open(data.put("set.zip", files), 300)
    assert str(caught.value).count("cannot be read") == 3


def test_local_folder_is_accepted(data: Data) -> None:
    data.put("set/", named(8))
    found = data.open(f"file://{data.root}/store/datasets/set/", 2)
    assert reds(found.calibration) == in_order(8)[:2]


def test_non_utf8_file_name_is_accepted(data: Data) -> None:
    (data.root / "latin").mkdir()
    (data.root / os.fsdecode(b"latin/caf\xe9.png")).write_bytes(encoded(flat((7, 0, 0))))
    found = data.open(f"file://{data.root}/latin/", 1)
    assert reds(found.calibration) == [7]
    assert found.calibration[0].name.endswith("caf\ufffd.png")


def test_folder_digest_changes_with_content_and_name(data: Data) -> None:
    uri, folder = data.put("set/", named(8)), data.root / "store/datasets/set"
    first = data.digest(uri, 8)
    assert data.digest(uri, 8) == first
    (folder / "0000.png").rename(folder / "00.png")
    renamed = data.digest(uri, 8)
    (folder / "00.png").write_bytes(encoded(flat((99, 0, 0))))
    assert len({first, renamed, data.digest(uri, 8)}) == 3


def test_folder_digest_covers_sampled_images(data: Data) -> None:
    uri, folder = data.put("set/", named(200)), data.root / "store/datasets/set"
    first, order = data.digest(uri, 8), in_order(200)
    (folder / f"{order[-1]:04d}.png").write_bytes(b"changed")
    assert data.digest(uri, 8) == first
    (folder / f"{order[8 + VERIFICATION_LIMIT - 1]:04d}.png").write_bytes(b"changed")
    assert data.digest(uri, 8) != first


def test_total_size_of_folder_is_limited(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "TOTAL_LIMIT", 3 * len(encoded(flat())))
    with pytest.raises(Failure, match=r"have more than .* MiB; ask for fewer samples") as caught:
        data.open(data.put("set/", named(8)), 4)
    assert caught.value.reason is Reason.CALIBRATION_TOO_LARGE


@pytest.mark.parametrize(
    ("uri", "reason", "message"),
    [
        ("s3://datasets/nothing/", Reason.CALIBRATION_NOT_FOUND, "holds nothing; upload images"),
        ("s3://datasets/nothing.zip", Reason.CALIBRATION_NOT_FOUND, "correct spec.calibration.dataset.uri"),
        ("s3://absent/folder/", Reason.BUCKET_NOT_FOUND, "bucket absent"),
    ],
)
def test_missing_images_are_reported(data: Data, uri: str, reason: Reason, message: str) -> None:
    with pytest.raises(Failure, match=message) as caught:
        data.open(uri, 4)
    assert caught.value.reason is reason


def test_built_in_images_are_default_for_verification(data: Data) -> None:
    assert fetch_dataset(data.store, {}, None, data.root) is None
    found = open_dataset(None, None, data.root)
    assert (found.calibration, found.is_own, len(found.verification)) == ((), False, 4)
    assert len({decode(image).tobytes() for image in found.verification}) == 4
    assert found.describe()["source"] == "built-in"


def test_single_image_is_a_dataset(data: Data) -> None:
    uri = data.put("photos/", {"a b.png": next(iter(named(1).values()))})
    dataset = data.open(f"{uri}a b.png", 5)
    assert [image.name for image in dataset.calibration] == [f"{uri}a b.png"]
    assert dataset.verification == dataset.calibration
    assert data.digest(f"{uri}a b.png", 5) != data.digest(uri, 5)
