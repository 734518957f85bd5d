"""Limits on an image, checked on its bytes before a decoder sees them: its declared size, and how it is packed.

A decoder spends time and memory on the declared size, not on the actual content: a JPEG of 60 MiB can hold a hundred
thousand scans, each of which passes over all pixels; a run-length BMP is unpacked byte by byte in Python. The checks
parse an image as its decoder does (libjpeg's markers, PNG's chunks), so that nothing can hide from them.
"""

import re
import struct
from collections.abc import Callable, Iterator, Mapping

PIXEL_LIMIT = 1 << 26
"""Pixels of an image, 8192 x 8192: 256 MiB in a decoder, and as much again while the image is rotated upright."""
SCAN_LIMIT = 100
"""Scans of a JPEG. Encoders make 10 of a progressive image in colour (libjpeg's ``jpeg_simple_progression``)."""
WORK_LIMIT = 12 * PIXEL_LIMIT
"""Pixels times scans of a JPEG: 10 scans of the largest image, and each of SCAN_LIMIT of one of 8 megapixels."""
SEGMENT_LIMIT = 4096
"""Segments of a JPEG; each has 64 KiB at most, so a depth map of 10 MB in its metadata takes 160."""
HEADER_LIMIT = 32 << 20
"""Bytes of a JPEG before its first scan."""
BETWEEN_LIMIT = 1 << 16
"""Bytes of a JPEG outside of segments and scans, which Pillow skips one by one."""
CHUNK_LIMIT = 1 << 16
"""Chunks of a PNG; encoders write at least 8 KiB into each."""
FRAME_LIMIT = 1 << 13
"""Frames of an animated WebP; only the first is used."""
RUN_LENGTH_LIMIT = 1 << 22
"""Pixels and bytes of a BMP with run-length encoding; its decoder takes up to a microsecond for each."""

_NEXT_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
"""A JPEG marker (ITU-T T.81, table B.1) except fill bytes, stuffed zeros and restarts, which occur within scans."""
_WITHOUT_LENGTH = (0x01, 0xD8, 0xD9)
_END, _SCAN = 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Excessive(Exception):  # noqa: N818 - it names what is the case
    """An image exceeds a limit; ``str()`` names the quantity and both numbers."""


def check_pixels(width: int, height: int) -> None:
    """Refuse an image by its size in pixels.

    Raises:
        Excessive: it has more than PIXEL_LIMIT pixels.
    """
    if width * height > PIXEL_LIMIT:
        raise Excessive(f"more than {PIXEL_LIMIT:,} pixels ({width:,} x {height:,})")


def check_bytes(content: bytes) -> None:
    """Refuse an image by its bytes. Other formats than JPEG, PNG, BMP and WebP pass, since no decoder accepts them.

    Raises:
        Excessive: decoding it would take too long or too much memory.
    """
    for magic, check in _CHECKS.items():
        if content.startswith(magic):
            check(content)


def _limit(found: int, limit: int, what: str) -> None:
    if found > limit:
        raise Excessive(f"{found:,} {what}, the limit is {limit:,}")


def _check_jpeg(content: bytes) -> None:
    segments = scans = pixels = between = last = 0
    for start, marker, body, end in _segments(content):
        if not scans:
            between += start - last
            _limit(between, BETWEEN_LIMIT, "bytes between its segments")
            _limit(start, HEADER_LIMIT, "bytes before its first scan")
        elif marker == _END:
            return
        if marker in _FRAMES and end - body >= 7:
            height, width = struct.unpack(">HH", content[body + 3 : body + 7].ljust(4, b"\0"))
            check_pixels(width, height)
            pixels = max(pixels, width * height)
        segments, scans, last = segments + 1, scans + (marker == _SCAN), end
        _limit(segments, SEGMENT_LIMIT, "segments")
        _limit(scans, SCAN_LIMIT, "scans")
        _limit(scans * pixels, WORK_LIMIT, "pixels in all of its scans")
    if not scans:
        _limit(len(content) - last, BETWEEN_LIMIT, "bytes without any scan")


def _segments(content: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield each segment as (start of its marker, marker, position of its length, end). Scan data is skipped."""
    position = 2
    while found := _NEXT_MARKER.search(content, position):
        marker, body = found[1][0], found.end()
        length = 0 if marker in _WITHOUT_LENGTH else max(2, int.from_bytes(content[body : body + 2], "big"))
        position = body + length
        yield found.start(), marker, body, position


def _check_png(content: bytes) -> None:
    if content[12:16] == b"IHDR" and len(content) >= 24:
        check_pixels(*struct.unpack_from(">II", content, 16))
    position, chunks = 8, 0
    while position + 8 <= len(content) and content[position + 4 : position + 8] != b"IEND":
        chunks += 1
        _limit(chunks, CHUNK_LIMIT, "chunks")
        position += 12 + int.from_bytes(content[position : position + 4], "big")


def _check_bmp(content: bytes) -> None:
    if len(content) < 34:
        return
    if content[14:18] == b"\x0c\0\0\0":  # the oldest header, without compression
        check_pixels(*struct.unpack_from("<HH", content, 18))
        return
    width, height, compression = struct.unpack_from("<ii4xI", content, 18)
    check_pixels(abs(width), abs(height))
    if compression in (1, 2):  # BI_RLE8 and BI_RLE4
        _limit(abs(width * height), RUN_LENGTH_LIMIT, "pixels with run-length encoding")
        _limit(len(content), RUN_LENGTH_LIMIT, "bytes with run-length encoding")


def _check_webp(content: bytes) -> None:
    if content[12:16] == b"VP8X" and len(content) >= 30:
        check_pixels(*(1 + int.from_bytes(content[at : at + 3], "little") for at in (24, 27)))
    if content[12:16] == b"VP8L" and len(content) >= 25:
        sizes = int.from_bytes(content[21:25], "little")
        check_pixels(1 + (sizes & 0x3FFF), 1 + (sizes >> 14 & 0x3FFF))
    _limit(content.count(b"ANMF"), FRAME_LIMIT, "frames")


_CHECKS: Mapping[bytes, Callable[[bytes], None]] = {
    b"\xff\xd8": _check_jpeg,
    b"\x89PNG\r\n\x1a\n": _check_png,
    b"BM": _check_bmp,
    b"RIFF": _check_webp,
}
