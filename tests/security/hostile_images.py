"""Images and archives that are made to do harm or are merely broken, each a few KB that ask for much more."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class Hostile:
    """An image or an archive, and the words of its refusal; ``None`` if it is harmless and accepted."""

    name: str
    make: Callable[[], bytes]
    says: str | None


def encoded(kind: str, size: tuple[int, int] = (16, 16), **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(stream, kind, **options)
    return stream.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg_with(*segments: bytes, **options: Any) -> bytes:
    """A JPEG with segments before all others."""
    return b"\xff\xd8" + b"".join(segments) + encoded("JPEG", **options)[2:]


def jpeg_of(width: int, height: int, **options: Any) -> bytes:
    """A JPEG that claims another size."""
    content = encoded("JPEG", **options)
    marker = b"\xff\xc2" if options.get("progressive") else b"\xff\xc0"
    at = content.index(marker) + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


def jpeg_of_scans(count: int, side: int) -> bytes:
    """A progressive JPEG that repeats its last scan many times."""
    content = jpeg_of(side, side, progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * count + b"\xff\xd9"


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(*chunks: bytes, **options: Any) -> bytes:
    """A PNG with chunks behind its header."""
    content = encoded("PNG", **options)
    return content[:33] + b"".join(chunks) + content[33:]


def png_of(width: int, height: int, depth: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    return zlib.compress(bytes(count), 9)


def bmp_of(
    width: int,
    height: int,
    bits: int = 24,
    compression: int = 0,
    data: bytes = b"",
    *,
    size: int = 40,
    colours: int = 0,
) -> bytes:
    header = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, len(data), 0, 0, colours, 0)
    palette = bytes(4 * min(256, colours or (256 if bits == 8 else 0)))
    offset = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + header + palette + data


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def canvas(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes([flags, 0, 0, 0]) + sizes


def exif(*entries: bytes, count: int | None = None, following: int = 0) -> bytes:
    """EXIF of 12-byte entries, with any number of entries and any offset of the next table."""
    number = len(entries) if count is None else count
    table = struct.pack("<H", number) + b"".join(entries) + struct.pack("<I", following)
    return b"Exif\0\0II*\0\x08\0\0\0" + table


def turned(kind: int, count: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0x0112, kind, count) + value.ljust(4, b"\0")


_UNREADABLE, _SMALLER = "cannot be read as an image", "make it smaller, save it again, or remove it"

JPEGS = [
    Hostile("a hundred and one scans", lambda: jpeg_of_scans(101, 16), "scans, the limit is 100"),
    Hostile("fifty scans of 64 megapixels", lambda: jpeg_of_scans(50, 8000), "pixels in all of its scans"),
    Hostile("ten scans of a small image", lambda: encoded("JPEG", progressive=True), None),
    Hostile("a claim of 4 gigapixels", lambda: jpeg_of(65500, 65500), "more than 67,108,864 pixels"),
    Hostile("a claim of 64 megapixels in 1 KB", lambda: jpeg_of(8000, 8000), None),
    Hostile("no pixels", lambda: jpeg_of(0, 0), _UNREADABLE),
    Hostile("five thousand segments", lambda: jpeg_with(segment(0xE5, b"") * 5000), "segments, the limit is"),
    Hostile("a megabyte between segments", lambda: jpeg_with(b"\0" * (1 << 20)), "bytes between its segments"),
    Hostile("a megabyte of fill bytes", lambda: jpeg_with(b"\xff" * (1 << 20)), "bytes between its segments"),
    Hostile("a megabyte of stuffed zeros", lambda: jpeg_with(b"\xff\0" * (1 << 19)), "bytes between its segments"),
    Hostile("a megabyte of restarts", lambda: jpeg_with(b"\xff\xd0" * (1 << 19)), "bytes between its segments"),
    Hostile("a megabyte of starts", lambda: jpeg_with(b"\xff\xd8" * (1 << 19)), "segments, the limit is"),
    Hostile("33 MiB of EXIF in pieces", lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + bytes(65500)) * 560), _SMALLER),
    Hostile("an end before the first scan", lambda: jpeg_with(b"\xff\xd9"), _UNREADABLE),
    Hostile("an end, then a megabyte", lambda: b"\xff\xd8\xff\xd9" + bytes(1 << 20), "bytes without any scan"),
    Hostile("a start alone", lambda: b"\xff\xd8\xff", _UNREADABLE),
    Hostile("half of it", lambda: encoded("JPEG", (640, 480))[:20_000], _UNREADABLE),
    Hostile(
        "no tables",
        lambda: b"\xff\xd8" + segment(0xC0, b"\x08\0\x10\0\x10\1\1\x11\0") + segment(0xDA, b""),
        _UNREADABLE,
    ),
    Hostile(
        "255 components", lambda: b"\xff\xd8" + segment(0xC0, b"\x08\0\x10\0\x10\xff" + b"\1\x11\0" * 255), _UNREADABLE
    ),
    Hostile("12 bits", lambda: encoded("JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), _UNREADABLE),
    Hostile("the lossless process", lambda: encoded("JPEG").replace(b"\xff\xc0", b"\xff\xc3"), _UNREADABLE),
    Hostile("the size of a segment that is negative", lambda: jpeg_with(b"\xff\xe1\0\0"), None),
    Hostile("two frames", lambda: jpeg_with(segment(0xC0, b"\x08\0\x10\0\x10\3\1\x22\0\2\x11\1\3\x11\1")), _UNREADABLE),
    Hostile("a table of 65535 EXIF entries", lambda: jpeg_with(segment(0xE1, exif(count=65535))), None),
    Hostile("EXIF that leads to itself", lambda: jpeg_with(segment(0xE1, exif(following=8))), None),
    Hostile("EXIF of nothing", lambda: jpeg_with(segment(0xE1, b"Exif\0\0")), None),
    Hostile("an orientation in words", lambda: jpeg_with(segment(0xE1, exif(turned(2, 4, b"six")))), None),
    Hostile("an orientation of 4 GB", lambda: jpeg_with(segment(0xE1, exif(turned(3, 1 << 31, b"\6")))), None),
    Hostile(
        "2^32 images of a MPO",
        lambda: jpeg_with(segment(0xE2, b"MPF\0II*\0\x08\0\0\0\1\0\1\xb0\4\0\1\0\0\0\xff\xff\xff\xff\0\0\0\0")),
        None,
    ),
    Hostile(
        "pieces of a colour profile that do not fit", lambda: jpeg_with(segment(0xE2, b"ICC_PROFILE\0\xff\1x")), None
    ),
    Hostile(
        "broken resources of Photoshop", lambda: jpeg_with(segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\xff")), None
    ),
    Hostile("a comment of 64 KB", lambda: jpeg_with(segment(0xFE, b"\x1b[2J" * 16000)), None),
    Hostile("a film behind it", lambda: encoded("JPEG") + b"\xff\xda" * 5000, None),
]

PNGS = [
    Hostile("a claim of 3.6 gigapixels", lambda: png_of(60_000, 60_000), "more than 67,108,864 pixels"),
    Hostile("a claim of 2^62 pixels", lambda: png_of(1 << 31, 1 << 31), "more than 67,108,864 pixels"),
    Hostile("a strip of 2^31 pixels", lambda: png_of((1 << 31) - 1, 1), "more than 67,108,864 pixels"),
    Hostile("no width", lambda: png_of(0, 16), _UNREADABLE),
    Hostile("seventy thousand chunks", lambda: png_with(chunk(b"teSt", b"") * 70_000), "chunks, the limit is"),
    Hostile("a zTXt bomb", lambda: png_with(chunk(b"zTXt", b"a\0\0" + zeros(1 << 26))), _UNREADABLE),
    Hostile("an iTXt bomb", lambda: png_with(chunk(b"iTXt", b"a\0\1\0\0\0" + zeros(1 << 26))), _UNREADABLE),
    Hostile("an iCCP bomb", lambda: png_with(chunk(b"iCCP", b"a\0\0" + zeros(1 << 26))), _UNREADABLE),
    Hostile(
        "a hundred texts of 1 MiB", lambda: png_with(chunk(b"zTXt", b"a\0\0" + zeros((1 << 20) - 9)) * 100), _UNREADABLE
    ),
    Hostile("a chunk of 4 GiB", lambda: png_with(b"\xff\xff\xff\xffteSt"), _UNREADABLE),
    Hostile("a wrong checksum", lambda: png_with(b"\0\0\0\1tIMExabcd"), _UNREADABLE),
    Hostile("pixels that are a bomb", lambda: png_of(4, 4, data=zeros(1 << 26)), None),
    Hostile("no pixels", lambda: png_of(4, 4), _UNREADABLE),
    Hostile("pixels that are no zlib", lambda: png_of(4, 4, data=b"xxxxxxxx"), _UNREADABLE),
    Hostile("64 megapixels without any", lambda: png_of(8192, 8192, data=zeros(10)), _UNREADABLE),
    Hostile("three bits", lambda: png_of(4, 4, depth=3, data=zeros(100)), _UNREADABLE),
    Hostile("colours of no kind", lambda: png_of(4, 4, colour=7, data=zeros(100)), _UNREADABLE),
    Hostile("half of it", lambda: encoded("PNG", (64, 64))[:900], _UNREADABLE),
    Hostile("a million frames", lambda: png_with(chunk(b"acTL", struct.pack(">II", 1 << 20, 0))), None),
    Hostile("EXIF that is none", lambda: png_with(chunk(b"eXIf", b"II*\0\xff\xff\xff\xff")), None),
    Hostile("a name that ends nowhere", lambda: png_with(chunk(b"tEXt", b"\x1b[31m" * 1000)), None),
]

BMPS = [
    Hostile("a claim of 2^62 pixels", lambda: bmp_of((1 << 31) - 1, (1 << 31) - 1), "more than 67,108,864 pixels"),
    Hostile("64 megapixels of run lengths", lambda: bmp_of(8000, 8000, 8, 1, b"\0\0" * 999), "pixels with run-length"),
    Hostile("jumps of run lengths", lambda: bmp_of(8000, 8000, 8, 1, b"\0\2\xff\xff" * 999), "pixels with run-length"),
    Hostile("5 MB of empty runs", lambda: bmp_of(2000, 2000, 8, 1, b"\0\0" * 2_500_000), "bytes with run-length"),
    Hostile("4 megapixels of run lengths", lambda: bmp_of(2000, 2000, 8, 1, b"\1\7\0\0" * 2000), None),
    Hostile("run lengths of 4 bits", lambda: bmp_of(2000, 2000, 4, 2, b"\xff\x77" * 8000, colours=16), _UNREADABLE),
    Hostile("64 megapixels without any", lambda: bmp_of(8192, 8192), _UNREADABLE),
    Hostile("a height of -2^31", lambda: bmp_of(4, -(1 << 31)), "more than 67,108,864 pixels"),
    Hostile("three bits", lambda: bmp_of(4, 4, 3, data=bytes(64)), _UNREADABLE),
    Hostile("2^31 colours", lambda: bmp_of(4, 4, 8, data=bytes(64), colours=(1 << 31) - 1), _UNREADABLE),
    Hostile("a JPEG within", lambda: bmp_of(4, 4, compression=4, data=encoded("JPEG")), _UNREADABLE),
    Hostile("a header of no kind", lambda: bmp_of(4, 4, size=1000, data=bytes(64)), _UNREADABLE),
    Hostile("the first letters", lambda: b"BM", _UNREADABLE),
    Hostile("the last row first", lambda: bmp_of(4, -4, data=bytes(64)), None),
]

WEBPS = [
    Hostile("a canvas of 16384 x 16384", lambda: webp(canvas(1 << 14, 1 << 14)), "more than 67,108,864 pixels"),
    Hostile("a canvas of 2^48", lambda: webp(canvas(1 << 24, 1 << 24, 2)), "more than 67,108,864 pixels"),
    Hostile(
        "ten thousand frames", lambda: webp(canvas(16, 16, 2), *[(b"ANMF", bytes(16))] * 10_000), "frames, the limit"
    ),
    Hostile("a canvas without an image", lambda: webp(canvas(16, 16)), _UNREADABLE),
    Hostile(
        "268 megapixels without loss",
        lambda: webp((b"VP8L", b"\x2f\xff\xff\xff\x0f" + bytes(40))),
        "more than 67,108,864 pixels",
    ),
    Hostile("half of it", lambda: encoded("WEBP", (64, 64))[:200], _UNREADABLE),
    Hostile("a size of 4 GiB", lambda: b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff" + bytes(30), _UNREADABLE),
    Hostile("EXIF that is none", lambda: encoded("WEBP", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), None),
    Hostile(
        "an animation",
        lambda: encoded("WEBP", save_all=True, append_images=[Image.new("RGB", (16, 16))] * 3, duration=9),
        None,
    ),
]

_KINDS = "it is not of the kinds BMP, JPEG, PNG, WEBP"
OTHERS = [
    Hostile("nothing", lambda: b"", _KINDS),
    Hostile("a text", lambda: b"\x1b]0;owned\x07" * 100, _KINDS),
    Hostile("a GIF", lambda: encoded("GIF"), _KINDS),
    Hostile("a TIFF", lambda: encoded("TIFF"), _KINDS),
    Hostile("an EPS, which a decoder would run", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", _KINDS),
    Hostile("a PDF", lambda: encoded("PDF"), _KINDS),
    Hostile("an SVG that names a file", lambda: b'<svg><image href="file:///etc/passwd"/></svg>', _KINDS),
    Hostile("an archive", lambda: packed({"a.png": encoded("PNG")}), _KINDS),
    Hostile("zeros", lambda: bytes(1 << 20), _KINDS),
]
IMAGES = [*JPEGS, *PNGS, *BMPS, *WEBPS, *OTHERS]


def packed(files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.comment = comment
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def good(name: str = "good.png") -> dict[str, bytes]:
    return {name: encoded("PNG")}


def patched(content: bytes, signature: bytes, offset: int, kind: str, *values: int) -> bytes:
    """An archive with other numbers at an offset of all its records of a kind."""
    changed, at = bytearray(content), content.find(signature)
    while at >= 0:
        struct.pack_into(f"<{kind}", changed, at + offset, *values)
        at = content.find(signature, at + 4)
    return bytes(changed)


LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"


def sharing(count: int) -> bytes:
    """An archive whose directory names one file many times."""
    content = packed(good())
    start = content.index(CENTRAL)
    entry = content[start : content.index(END)]
    end = struct.pack("<4sHHHHIIH", END, 0, 0, min(count, 65535), min(count, 65535), len(entry) * count, start, 0)
    return content[:start] + entry * count + end


def linked() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        entry = zipfile.ZipInfo("link.png")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    return stream.getvalue()


def lying() -> bytes:
    """1.5 GiB of zeros with a declared size of 100 bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    content = packed({"a.png": block * 96})
    for signature, method, size in ((LOCAL, 8, 22), (CENTRAL, 10, 24)):
        content = patched(patched(content, signature, method, "H", zipfile.ZIP_DEFLATED), signature, size, "I", 100)
    return content


def directory_of(size: int) -> bytes:
    return bytes(size) + struct.pack("<4sHHHHIIH", END, 0, 0, 65535, 65535, size, 0, 0)


def two_directories() -> bytes:
    """Two archives in a row: a reader from the front finds the first, a reader from the end the second."""
    return packed({"first.png": b"broken"}) + packed(good())


def zip64(size: int) -> bytes:
    """A directory with its sizes in a ZIP64 record, as for archives of more than 4 GiB."""
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, 0)
    return (
        record
        + struct.pack("<4sIQI", b"PK\6\7", 0, 0, 1)
        + struct.pack("<4sHHHHIIH", END, 0, 0, 65535, 65535, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    )


_NO_ZIP, _NO_IMAGE = "is not a zip archive", "holds no image"

ARCHIVES = [
    Hostile("nothing", lambda: b"", _NO_ZIP),
    Hostile("a text", lambda: b"\x1b[2J" * 9, _NO_ZIP),
    Hostile("a tar", lambda: b"a.png".ljust(512, b"\0") * 3, _NO_ZIP),
    Hostile("half of it", lambda: packed(good())[:-30], _NO_ZIP),
    Hostile("an empty archive", lambda: packed({}), _NO_IMAGE),
    Hostile("an archive within", lambda: packed({"more.zip": packed(good())}), "unpack archives within it"),
    Hostile("names that act on a terminal", lambda: packed({"\x1b[2J\x1b]0;x\x07\u202etxt.exe": b""}), _NO_IMAGE),
    Hostile("folders named as images", lambda: packed({"a.png/": b"", "b.jpg/": b""}), _NO_IMAGE),
    Hostile("a link", linked, _NO_IMAGE),
    Hostile("hidden files", lambda: packed(good(".a/b.png") | good("__MACOSX/._b.png")), _NO_IMAGE),
    Hostile(
        "a password", lambda: patched(patched(packed(good()), LOCAL, 6, "H", 1), CENTRAL, 8, "H", 1), "is encrypted"
    ),
    Hostile("strong encryption", lambda: patched(packed(good()), CENTRAL, 8, "H", 0x41), "is encrypted"),
    Hostile("bzip2", lambda: packed(good(), zipfile.ZIP_BZIP2), "is packed by method 12"),
    Hostile("lzma", lambda: packed(good(), zipfile.ZIP_LZMA), "is packed by method 14"),
    Hostile("a method of no kind", lambda: patched(packed(good()), CENTRAL, 10, "H", 99), "is packed by method 99"),
    Hostile("a version of no kind", lambda: patched(packed(good()), CENTRAL, 6, "H", 99), _NO_ZIP),
    Hostile("one file under thousand names", lambda: sharing(1000), "shares bytes with another file"),
    Hostile("one file twice", lambda: sharing(2), "shares bytes with another file"),
    Hostile("a file beyond the end", lambda: patched(packed(good()), CENTRAL, 20, "I", 1 << 20), "reaches beyond"),
    Hostile("a bomb", lambda: packed({"a.png": bytes(1 << 24)}, zipfile.ZIP_DEFLATED), "times its packed size"),
    Hostile("a bomb that says it is none", lying, _UNREADABLE),
    Hostile("a file of 4 GB", lambda: patched(packed(good()), CENTRAL, 24, "I", 0xFFFFFFF0), "MiB in one file"),
    Hostile("a directory of 600,000 files", lambda: sharing(600_000), "a directory of more than 24 MiB"),
    Hostile("a directory of 450,000 files", lambda: sharing(450_000), "files, the limit is 100,000"),
    Hostile("a directory of nothing", lambda: directory_of(1 << 20), _NO_ZIP),
    Hostile("a directory of 2^63 bytes", lambda: zip64(1 << 63), _NO_ZIP),
    Hostile("a directory beyond the end", lambda: zip64(1 << 40), _NO_ZIP),
    Hostile("another name in front", lambda: packed(good()).replace(b"good.png", b"evil.png", 1), _UNREADABLE),
    Hostile("a wrong checksum", lambda: patched(packed(good()), CENTRAL, 16, "I", 7), _UNREADABLE),
    Hostile("fewer bytes than it says", lambda: patched(packed(good()), CENTRAL, 24, "I", 9_999), None),
    Hostile("a place before the beginning", lambda: patched(packed(good()), END, 16, "I", 1 << 30), _UNREADABLE),
    Hostile("no UTF-8", lambda: patched(packed({"\xff\xfe.png": b""}), CENTRAL, 46, "B", 0xFF), _NO_ZIP),
    Hostile("two directories", two_directories, None),
    Hostile("a program in front", lambda: b"\x7fELF" * 100 + packed(good()), None),
    Hostile("a comment of 64 KB", lambda: packed(good(), comment=bytes(65535)), None),
    Hostile("a comment of ends", lambda: packed(good(), comment=b"PK\5\6" * 16000), _NO_ZIP),
    Hostile("names that lead out", lambda: packed(good("../../../tmp/evil.png")), None),
    Hostile("a name from the root", lambda: packed(good("/etc/cron.d/evil.png")), None),
    Hostile("a name of 60 KB", lambda: packed(good("a" * 60_000 + ".png")), None),
    Hostile("a name with a colour", lambda: packed(good("\x1b[31m\u202egnp.png")), None),
    Hostile("times of no kind", lambda: patched(packed(good()), CENTRAL, 12, "HH", 0xFFFF, 0xFFFF), None),
]
