"""Removing published files and signing links to them, against real S3 servers."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3

from command_line import SOURCES
from modelexport.api.result import ConversionResult
from modelexport_converter.__main__ import main
from modelexport_converter.stores import s3
from modelexport_converter.stores.opening import open_store
from s3_servers import MINIO, S3Server

FILE, REPORT = "s3://exports/team/shapes/onnx-fp16-1/shapes.onnx", "s3://exports/team/shapes/onnx-fp16-1/report.json"


def environ(server: S3Server, uid: str = "uid-1", *uris: str) -> dict[str, str]:
    return {**server.environ, "MODELEXPORT_EXPORT_UID": uid, "MODELEXPORT_FILES": json.dumps(uris)}


def publish(server: S3Server, folder: Path, uid: str, *uris: str) -> None:
    (folder / "file").write_bytes(b"content")
    for uri in uris:
        open_store(environ(server, uid)).upload(folder / "file", uri, {})


def run(command: str, environment: dict[str, str], folder: Path) -> tuple[int, ConversionResult, list[dict[str, str]]]:
    log, message = io.StringIO(), folder / "message"
    code = main({**environment, "MODELEXPORT_TERMINATION_LOG": str(message)}, log, command)
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    return code, ConversionResult.from_json(message.read_text()), events


def keys(server: S3Server) -> set[str]:
    return {str(item.object_name) for item in server.client.list_objects("exports", prefix="team/", recursive=True)}


def test_removes_only_files_of_export(server: S3Server, tmp_path: Path) -> None:
    publish(server, tmp_path, "uid-1", FILE, REPORT)
    publish(server, tmp_path, "uid-2", "s3://exports/team/shapes/onnx-fp16-1/shapes.onnx.old")
    before = keys(server)
    code, result, _ = run("clean", environ(server, "uid-1", FILE, REPORT), tmp_path)
    assert (code, result.reason, result.message) == (0, "FilesRemoved", "2 files were removed")
    assert before - keys(server) == {uri.removeprefix("s3://exports/") for uri in (FILE, REPORT)}


def test_file_of_same_named_object_stays(server: S3Server, tmp_path: Path) -> None:
    publish(server, tmp_path, "uid-of-the-first", FILE)
    publish(server, tmp_path, "uid-1", REPORT)
    code, result, _ = run("clean", environ(server, "uid-1", FILE, REPORT), tmp_path)
    assert code == 0
    assert result.message == f"1 files were removed; published for another ModelExport and left: {FILE}"
    assert FILE.removeprefix("s3://exports/") in keys(server)


def test_removal_is_idempotent(server: S3Server, tmp_path: Path) -> None:
    publish(server, tmp_path, "uid-1", FILE)
    assert run("clean", environ(server, "uid-1", FILE), tmp_path)[1].message == "1 files were removed"
    assert run("clean", environ(server, "uid-1", FILE), tmp_path)[1].message == "0 files were removed"


def test_missing_files_are_reported_with_store(server: S3Server, tmp_path: Path) -> None:
    lost = "s3://exports/team/shapes/onnx-fp16-2/shapes.onnx"
    publish(server, tmp_path, "uid-1", REPORT)
    planned = "s3://exports/team/shapes/onnx-fp32-1/report.json"
    wanted = environ(server, "uid-1", lost, REPORT, planned) | {"MODELEXPORT_PUBLISHED": json.dumps([lost, REPORT])}
    code, result, _ = run("clean", wanted, tmp_path)
    assert (code, result.reason) == (70, "FilesRemain")
    where = server.environ["MODELEXPORT_STORE"]
    assert result.message == f"1 published files were not found in {where}: {lost} (1 files were removed)"


def test_missing_bucket_is_retried_and_files_are_named(tmp_path: Path) -> None:
    gone = S3Server(MINIO, tmp_path / "never-started")
    code, result, _ = run("clean", environ(gone, "uid-1", FILE, REPORT), tmp_path)
    assert (code, result.reason) == (75, "StorageUnavailable")
    assert f"(2 files remain: {FILE}, {REPORT})" in result.message


def test_denied_removal_names_files(server: S3Server, tmp_path: Path) -> None:
    wrong = {**environ(server, "uid-1", FILE), "AWS_SECRET_ACCESS_KEY": "not-the-right-one"}
    code, result, _ = run("clean", wrong, tmp_path)
    assert (code, result.reason) == (70, "StorageDenied")
    assert f"1 files remain: {FILE}" in result.message


def test_signed_link_grants_access_to_its_file_only(server: S3Server, tmp_path: Path) -> None:
    uri = "s3://exports/team/shapes/a folder+ä/shapes ~(1).onnx"
    publish(server, tmp_path, "uid-1", uri, FILE)
    code, _, events = run("presign", environ(server, "uid-1", uri), tmp_path)
    (url,) = [event["url"] for event in events if event["event"] == "signed"]
    assert code == 0
    http = urllib3.PoolManager()
    assert http.request("GET", url).data == b"content"
    assert http.request("GET", url, headers={"Range": "bytes=3-"}).data == b"tent"
    assert http.request("DELETE", url).status == 403
    assert http.request("GET", url.replace("%281%29", "%282%29")).status == 403
    assert server.environ["AWS_SECRET_ACCESS_KEY"] not in url


def test_class_without_secret_cannot_sign(server: S3Server, tmp_path: Path) -> None:
    anonymous = {key: value for key, value in environ(server, "uid-1", FILE).items() if not key.startswith("AWS_")}
    code, result, _ = run("presign", anonymous, tmp_path)
    assert (code, result.reason) == (70, "StorageDenied")
    assert "the class names no Secret" in result.message


def test_argument_of_other_version_is_refused(server: S3Server, tmp_path: Path) -> None:
    code, result, _ = run("polish", environ(server), tmp_path)
    assert (code, result.reason) == (70, "ClassInvalid")
    assert "the converter has no command 'polish'" in result.message


PARTS = "team/parts.bin"


def unfinished(server: S3Server, key: str = PARTS) -> list[str]:
    found = server.client._list_multipart_uploads("exports", prefix=key).uploads
    return [str(upload.object_name) for upload in found]


def begin_upload(server: S3Server, key: str = PARTS) -> str:
    upload = server.client._create_multipart_upload("exports", key, {})
    server.client._upload_part("exports", key, b"x" * (5 << 20), None, upload, 1)
    assert key in unfinished(server, key)
    return upload


def test_next_upload_removes_abandoned_parts(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_SIZE", 5 << 20)
    begin_upload(server)
    (tmp_path / "large").write_bytes(os.urandom(11 << 20))
    open_store(server.environ).upload(tmp_path / "large", f"s3://exports/{PARTS}", {})
    assert unfinished(server) == []


def test_removal_covers_unfinished_uploads(server: S3Server, tmp_path: Path) -> None:
    begin_upload(server)
    assert run("clean", environ(server, "uid-1", f"s3://exports/{PARTS}"), tmp_path)[0] == 0
    assert unfinished(server) == []


def test_unfinished_uploads_with_longer_names_stay(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """versitygw lists by any prefix, as S3 does; MinIO by the name of an object only."""
    told: list[str] = []
    monkeypatch.setattr(s3, "announce", lambda event, **_: told.append(event))
    longer = f"{PARTS}.sha256"
    others = begin_upload(server, longer)
    begin_upload(server)
    open_store(server.environ).abort_uploads(f"s3://exports/{PARTS}")  # type: ignore[attr-defined]
    left = [*unfinished(server), *unfinished(server, longer)]
    server.client._abort_multipart_upload("exports", longer, others)
    assert set(left) == {longer}
    assert told == []


UPLOAD = """
import os, signal, sys, time
from pathlib import Path
from minio import Minio
from modelexport_converter import __main__
from modelexport_converter.stores import s3
from modelexport_converter.stores.opening import open_store
s3.PART_SIZE = 5 << 20
signal.signal(signal.SIGTERM, __main__._terminate)
send = Minio._upload_part

def send_one(*arguments):
    send(*arguments)
    print("one part is there", flush=True)
    while True:
        time.sleep(0.1)

Minio._upload_part = send_one
open_store(os.environ).upload(Path(sys.argv[1]), sys.argv[2], {})
"""


def test_terminated_upload_leaves_no_parts(server: S3Server, tmp_path: Path) -> None:
    server.client.remove_object("exports", PARTS)
    (tmp_path / "large").write_bytes(os.urandom(11 << 20))
    environment = {**os.environ, **server.environ, "PYTHONPATH": os.pathsep.join(map(str, SOURCES))}
    command = [sys.executable, "-c", UPLOAD, str(tmp_path / "large"), f"s3://exports/{PARTS}"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.readline() if process.stdout else ""
        begun = unfinished(server)
        process.send_signal(signal.SIGTERM)
    assert (said, begun) == ("one part is there\n", [PARTS])
    assert process.returncode not in (0, -signal.SIGTERM)
    assert unfinished(server) == []
    assert PARTS not in keys(server)
