"""Hostile images and archives are refused with a reason, quickly and in little memory, without side effects."""

import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from modelexport.api.reasons import Reason
from modelexport.api.spec import Calibration, DataRef
from modelexport.text import is_clean
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.dataset import ARCHIVE, FetchedImages, file_of
from modelexport_converter.inputs.image_selection import Dataset, open_dataset
from modelexport_converter.inputs.images import decode
from security.hostile_images import ARCHIVES, IMAGES, Hostile

SECONDS, MEMORY_KIB = 10, 1 << 20
HARM = ("os.system", "os.exec", "os.posix_spawn", "os.remove", "os.rename", "subprocess.Popen", "socket.connect")
watched: list[list[str]] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if watched and (event in HARM or (event == "open" and set("wax+") & set(str(arguments[1] or "")))):
        watched[-1].append(f"{event} {arguments[:2]}")


sys.addaudithook(_watch)


@contextmanager
def canary() -> Iterator[None]:
    """Nothing is run, written, removed or called."""
    watched.append([])
    try:
        yield
    finally:
        if happened := watched.pop():
            pytest.fail(f"this happened: {happened}")


def open_as_archive(folder: Path, content: bytes) -> Dataset:
    (folder / ARCHIVE).write_bytes(content)
    with canary():
        return open_dataset(Calibration(DataRef("s3://a/b.zip")), FetchedImages("0" * 64), folder)


def open_in_folder(folder: Path, content: bytes) -> Dataset:
    (folder / file_of(0)).write_bytes(content)
    with canary():
        return open_dataset(Calibration(DataRef("s3://a/b/")), FetchedImages("0" * 64, ("\x1b[2Ja.png",)), folder)


def check(opened: Callable[[Path, bytes], Dataset], folder: Path, hostile: Hostile) -> None:
    content, start = hostile.make(), time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = attempt(opened, folder, content)
    assert time.monotonic() - start < SECONDS
    if isinstance(found, Dataset):
        assert hostile.says is None, "it was taken"
        assert [decode(image).mode for image in found.verification] == ["RGB"]
        assert is_clean(found.verification[0].name)
        return
    assert found.reason in (Reason.CALIBRATION_INVALID, Reason.CALIBRATION_TOO_LARGE)
    assert hostile.says is not None, str(found)
    assert hostile.says in str(found)
    assert len(str(found)) < 1000
    assert is_clean(str(found))


def attempt(opened: Callable[[Path, bytes], Dataset], folder: Path, content: bytes) -> Dataset | Failure:
    try:
        return opened(folder, content)
    except Failure as failure:
        return failure


@pytest.mark.parametrize("hostile", IMAGES, ids=lambda hostile: hostile.name)
def test_hostile_image_is_refused_or_harmless(tmp_path: Path, hostile: Hostile) -> None:
    check(open_in_folder, tmp_path, hostile)


@pytest.mark.parametrize("hostile", ARCHIVES, ids=lambda hostile: hostile.name)
def test_hostile_archive_is_refused_or_harmless(tmp_path: Path, hostile: Hostile) -> None:
    check(open_as_archive, tmp_path, hostile)


def test_hostile_inputs_need_less_than_one_gibibyte(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-B",
        "-c",
        f"from security.test_hostile_images import try_all; try_all({str(tmp_path)!r})",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": ":".join(sys.path)})
    assert done.returncode == 0, done.stderr
    tried, peak = map(int, done.stdout.split())
    assert tried == len(IMAGES) + len(ARCHIVES) >= 100
    assert peak < MEMORY_KIB


def try_all(folder: str) -> None:
    """Open every hostile input in this process; print their number and the largest resident set in KiB."""
    for opened, cases in ((open_in_folder, IMAGES), (open_as_archive, ARCHIVES)):
        for hostile in cases:
            check(opened, Path(folder), hostile)
    # Not getrusage, whose peak goes on with that of the parent.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(len(IMAGES) + len(ARCHIVES), status.split("VmHWM:")[1].split()[0])
