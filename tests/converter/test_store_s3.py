"""An S3 store, against real servers: every operation, and the message of every failure."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import urllib3
from minio.error import InvalidResponseError, S3Error, ServerError

from modelexport.api.reasons import Reason
from modelexport_converter.failures import Failure
from modelexport_converter.stores import ObjectMissing, Store, TooLarge, open_store, s3
from ports import free_port
from s3_servers import PROGRAMS, Program, S3Server, serve

LIMIT = 1 << 30


@pytest.fixture
def store(server: S3Server) -> Store:
    return open_store(server.environ)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "local"
    path.write_bytes(b"content")
    return path


def test_upload_and_download_round_trip(store: Store, server: S3Server, local: Path, tmp_path: Path) -> None:
    store.upload(local, "s3://exports/one/a b.bin", {"sha256": "1234"})
    store.download("s3://exports/one/a b.bin", tmp_path / "copy", LIMIT)
    assert (tmp_path / "copy").read_bytes() == b"content"
    assert store.size_of("s3://exports/one/a b.bin") == 7
    assert store.read_text("s3://exports/one/a b.bin") == "content"
    assert store.list_names("s3://exports/one/") == ("a b.bin",)
    metadata = server.client.stat_object("exports", "one/a b.bin").metadata
    assert metadata is not None
    assert metadata["x-amz-meta-sha256"] == "1234"


def test_multipart_upload_arrives_complete(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: S3Server
) -> None:
    monkeypatch.setattr(s3, "PART_SIZE", 5 << 20)
    large = tmp_path / "large"
    large.write_bytes(os.urandom((11 << 20) + 1))
    store.upload(large, "s3://exports/large", {})
    store.download("s3://exports/large", tmp_path / "copy", LIMIT)
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()
    assert str(server.client.stat_object("exports", "large").etag).endswith("-3"), "it was not sent in parts"


def test_missing_object_is_not_error(store: Store, tmp_path: Path) -> None:
    assert store.size_of("s3://exports/nothing") is None
    assert store.read_text("s3://exports/nothing") is None
    with pytest.raises(ObjectMissing):
        store.download("s3://exports/nothing", tmp_path / "copy", LIMIT)


def test_object_over_limit_is_not_downloaded(store: Store, local: Path, tmp_path: Path) -> None:
    store.upload(local, "s3://exports/seven", {})
    with pytest.raises(TooLarge, match="7 bytes, the limit is 6"):
        store.download("s3://exports/seven", tmp_path / "copy", 6)


def test_missing_bucket_is_named(store: Store, local: Path, tmp_path: Path) -> None:
    for operation in (
        lambda: store.download("s3://absent/key", tmp_path / "copy", LIMIT),
        lambda: store.upload(local, "s3://absent/key", {}),
        lambda: store.read_text("s3://absent/key"),
        lambda: store.list_names("s3://absent/prefix/"),
    ):
        with pytest.raises(Failure, match=r"s3://absent/.*NoSuchBucket") as caught:
            operation()
        assert caught.value.reason is Reason.BUCKET_NOT_FOUND


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_denied_and_never_shown(server: S3Server, tmp_path: Path, name: str) -> None:
    store = open_store({**server.environ, name: "not-the-right-one"})
    with pytest.raises(Failure) as caught:
        store.download("s3://exports/key", tmp_path / "copy", LIMIT)
    assert caught.value.reason is Reason.STORAGE_DENIED
    assert "not-the-right-one" not in str(caught.value)
    assert server.environ["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


def test_unreachable_store_is_unavailable(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    store = open_store({"MODELEXPORT_STORE": address, "MODELEXPORT_STORE_TIMEOUT_SECONDS": "0", **keys})
    with pytest.raises(Failure, match=address) as caught:
        store.download("s3://exports/key", tmp_path / "copy", LIMIT)
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert caught.value.reason.policy.retriable


def test_non_s3_server_is_reported(tmp_path: Path) -> None:
    port = free_port()
    process = subprocess.Popen(
        ["python3", "-m", "http.server", str(port), "--bind", "127.0.0.1"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        urllib3.PoolManager(retries=urllib3.Retry(total=20, backoff_factor=0.05)).request(
            "GET", f"http://127.0.0.1:{port}/"
        )
        store = open_store({"MODELEXPORT_STORE": f"http://127.0.0.1:{port}", "MODELEXPORT_STORE_TIMEOUT_SECONDS": "0"})
        with pytest.raises(Failure, match="does not answer as an S3 server") as caught:
            store.download("s3://exports/key", tmp_path / "copy", LIMIT)
        assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    finally:
        process.terminate()
        process.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_full_store_is_storage_full(program: Program, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    large = tmp_path / "large"
    large.write_bytes(os.urandom(64 << 20))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(small)], check=True)
    try:
        with serve(program, small) as server:
            server.client.make_bucket("exports")
            with pytest.raises(Failure, match="s3://exports/large") as caught:
                open_store(server.environ).upload(large, "s3://exports/large", {})
            assert caught.value.reason is Reason.STORAGE_FULL
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_write_without_permission_is_denied(server: S3Server, local: Path) -> None:
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": ["*"]},
                "Action": ["s3:GetObject"],
                "Resource": ["arn:aws:s3:::public/*"],
            }
        ],
    }
    server.client.make_bucket("public")
    server.client.set_bucket_policy("public", json.dumps(policy))
    with pytest.raises(Failure, match="AccessDenied") as caught:
        open_store({"MODELEXPORT_STORE": server.environ["MODELEXPORT_STORE"]}).upload(local, "s3://public/key", {})
    assert caught.value.reason is Reason.STORAGE_DENIED


def answer_of(code: str) -> S3Error:
    return S3Error(None, code, "message", "/resource", "request", "host")  # type: ignore[arg-type]


@pytest.mark.parametrize("code", sorted(s3.REASONS))
def test_every_error_code_maps_to_external_reason(code: str) -> None:
    store = open_store({"MODELEXPORT_STORE": "http://127.0.0.1:1"})
    with pytest.raises(Failure, match=code) as caught, store._translated("s3://bucket/key"):  # type: ignore[attr-defined]
        raise answer_of(code)
    assert caught.value.reason is s3.REASONS[code]
    assert caught.value.reason is not Reason.INTERNAL_ERROR


@pytest.mark.parametrize(
    "code",
    [
        "AccessDenied",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "RequestTimeTooSkewed",
        "NoSuchBucket",
        "SlowDown",
        "ServiceUnavailable",
        "InternalError",
        "XAdminUserNotFound",
        "XMinioStorageFull",
        "InsufficientStorage",
        "QuotaExceeded",
        "XMinioInvalidObjectName",
    ],
)
def test_common_error_codes_are_listed(code: str) -> None:
    assert code in s3.REASONS


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (answer_of("SomethingNew"), Reason.INTERNAL_ERROR),
        (ServerError("server failed with HTTP status code 502", 502), Reason.STORAGE_UNAVAILABLE),
        (InvalidResponseError(200, "text/html", "<html>"), Reason.STORAGE_UNAVAILABLE),
        (urllib3.exceptions.ReadTimeoutError(None, "/", "timed out"), Reason.STORAGE_UNAVAILABLE),  # type: ignore[arg-type]
        (urllib3.exceptions.ProtocolError("connection broken"), Reason.STORAGE_UNAVAILABLE),
        (urllib3.exceptions.SSLError("certificate verify failed"), Reason.STORAGE_DENIED),
    ],
)
def test_every_client_exception_maps_to_reason(error: Exception, reason: Reason) -> None:
    store = open_store({"MODELEXPORT_STORE": "http://127.0.0.1:1"})
    with pytest.raises(Failure) as caught, store._translated("s3://bucket/key"):  # type: ignore[attr-defined]
        raise error
    assert caught.value.reason is reason
