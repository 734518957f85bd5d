"""A directory as store: files appear whole or not at all, and every failure names a way out."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelexport.api.reasons import Reason
from modelexport.api.sources import public_uri
from modelexport_converter import stores
from modelexport_converter.failures import Failure
from modelexport_converter.stores import ObjectMissing, Store, TooLarge, TooMany
from modelexport_converter.stores.opening import open_store

LIMIT = 1 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    (root / "exports").mkdir(parents=True)
    return root


@pytest.fixture
def store(root: Path) -> Store:
    return open_store({"MODELEXPORT_STORE": str(root)})


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "local"
    path.write_bytes(b"content")
    return path


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_upload_and_download_round_trip(store: Store, local: Path, tmp_path: Path) -> None:
    store.upload(local, "s3://exports/a/b.bin", {})
    store.download("s3://exports/a/b.bin", tmp_path / "copy", LIMIT)
    assert (tmp_path / "copy").read_bytes() == b"content"
    assert store.size_of("s3://exports/a/b.bin") == 7
    assert store.read_text("s3://exports/a/b.bin") == "content"
    assert store.list_names("s3://exports/") == ("a/b.bin",)


def test_missing_object_has_no_size_and_no_text(store: Store) -> None:
    assert store.size_of("s3://exports/nothing") is None
    assert store.read_text("s3://exports/nothing") is None


def test_missing_object_error_gives_path(store: Store, root: Path, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match=str(root / "exports/nothing")):
        store.download("s3://exports/nothing", tmp_path / "copy", LIMIT)


def test_missing_bucket_has_own_reason(store: Store, root: Path, tmp_path: Path) -> None:
    with pytest.raises(Failure, match=str(root / "other")) as caught:
        store.download("s3://other/key", tmp_path / "copy", LIMIT)
    assert caught.value.reason is Reason.BUCKET_NOT_FOUND


def test_object_over_limit_is_not_copied(store: Store, local: Path, tmp_path: Path) -> None:
    store.upload(local, "s3://exports/a", {})
    with pytest.raises(TooLarge, match="7 bytes, the limit is 6"):
        store.download("s3://exports/a", tmp_path / "copy", 6)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("uri", ["s3://exports/../../etc/passwd", "s3://exports/link/passwd"])
def test_key_cannot_escape_bucket(store: Store, root: Path, tmp_path: Path, uri: str) -> None:
    (root / "exports/link").symlink_to("/etc")
    with pytest.raises(Failure, match="leads out of its bucket") as caught:
        store.download(uri, tmp_path / "copy", LIMIT)
    assert caught.value.reason is Reason.INVALID_SPEC


def test_file_uri_is_read_from_directory_store_only(store: Store, local: Path, tmp_path: Path) -> None:
    store.download(f"file://{local}", tmp_path / "copy", LIMIT)
    assert (tmp_path / "copy").read_bytes() == b"content"


def test_file_uri_may_be_percent_encoded(store: Store, local: Path, tmp_path: Path) -> None:
    spaced = local.rename(tmp_path / "my model.pt")
    store.download(spaced.as_uri(), tmp_path / "copy", LIMIT)
    assert (tmp_path / "copy").read_bytes() == b"content"
    (tmp_path / "my%20model.pt").write_bytes(b"of this very name")
    store.download(spaced.as_uri(), tmp_path / "copy", LIMIT)
    assert (tmp_path / "copy").read_bytes() == b"of this very name"


def test_encoded_folder_is_listed_and_read(store: Store, local: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my images"
    folder.mkdir()
    local.rename(folder / "a b.png")
    uri = f"{folder.as_uri()}/"
    assert store.list_names(uri) == ("a b.png",)
    store.download(uri + "a b.png", tmp_path / "copy", LIMIT)
    assert (tmp_path / "copy").read_bytes() == b"content"


@pytest.mark.parametrize("uri", ["s3://exports/images", "file://{root}/exports/images"])
def test_folder_without_trailing_slash_is_reported(store: Store, root: Path, tmp_path: Path, uri: str) -> None:
    (root / "exports/images").mkdir()
    with pytest.raises(
        ObjectMissing, match="exports/images is a folder, and the URI of a folder of images ends with a slash"
    ):
        store.download(uri.format(root=root), tmp_path / "copy", LIMIT)


def test_hidden_files_are_not_listed(store: Store, root: Path) -> None:
    (root / "exports/.a.partial").touch()
    (root / "exports/b").touch()
    assert store.list_names("s3://exports/") == ("b",)


@pytest.mark.parametrize(("count", "length"), [(8, 10), (7, 150)])
def test_endless_listing_is_refused(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch, count: int, length: int
) -> None:
    monkeypatch.setattr(stores, "NAMES_LIMIT", 7)
    monkeypatch.setattr(stores, "NAME_BYTES_LIMIT", 1000)
    (root / "exports/many").mkdir()
    for index in range(count):
        (root / f"exports/many/{index:0{length}d}").touch()
    with pytest.raises(TooMany, match=r"more than (7 objects|0 MiB)"):
        store.list_names("s3://exports/many/")
    (root / f"exports/many/{0:0{length}d}").unlink()
    assert len(store.list_names("s3://exports/many/")) == count - 1


KILLED_WRITER = """
import os, sys
from pathlib import Path
from modelexport_converter.stores import directory
with directory._replacing(Path(sys.argv[1])) as writer:
    writer.write(b"half")
    writer.flush()
    os.kill(os.getpid(), 9)
"""


def test_next_writer_removes_leftover_of_killed_writer(store: Store, root: Path, local: Path) -> None:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_WRITER, str(root / "exports/a")],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert ended.returncode == -9
    assert names_in(root / "exports")[0].startswith(".a."), "there is no leftover to remove"
    store.upload(local, "s3://exports/a", {})
    assert names_in(root / "exports") == ["a"]


def test_file_of_active_writer_is_kept(store: Store, root: Path, local: Path) -> None:
    partial = root / "exports/.a.123.partial"
    with partial.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        store.upload(local, "s3://exports/a", {})
        assert partial.exists()


def test_failed_upload_leaves_nothing(store: Store, root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.upload(tmp_path / "nothing", "s3://exports/a", {})
    assert names_in(root / "exports") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_full_disk_is_storage_full_and_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "small"
    root.mkdir()
    large = tmp_path / "large"
    large.write_bytes(bytes(2 << 20))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)], check=True)
    try:
        with pytest.raises(Failure, match="no space left in the store") as caught:
            open_store({"MODELEXPORT_STORE": str(root)}).upload(large, "s3://exports/a", {})
        assert caught.value.reason is Reason.STORAGE_FULL
        assert names_in(root / "exports") == []
    finally:
        subprocess.run(["umount", str(root)], check=True)


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.EACCES, Reason.STORAGE_DENIED), (errno.EROFS, Reason.STORAGE_DENIED), (errno.EDQUOT, Reason.STORAGE_FULL)],
)
def test_file_system_errors_have_reason(
    store: Store, local: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: Reason
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(Failure) as caught:
        store.upload(local, "s3://exports/a", {})
    assert caught.value.reason is reason


def test_store_must_be_directory(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="is not a directory") as caught:
        open_store({"MODELEXPORT_STORE": str(tmp_path / "nothing")})
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE


def test_missing_setting_is_class_fault() -> None:
    with pytest.raises(Failure, match="MODELEXPORT_STORE is not set") as caught:
        open_store({})
    assert caught.value.reason is Reason.CLASS_INVALID


def test_uri_is_shown_without_secrets() -> None:
    assert public_uri("https://user:secret@host/a.pt?token=secret#x") == "https://host/a.pt"
    assert public_uri("s3://bucket/what?") == "s3://bucket/what?"
