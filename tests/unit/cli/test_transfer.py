"""Downloading a file from a server that breaks off, restarts, changes the file or is gone."""

import hashlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelexport.api.result import Artifact
from modelexport.client import transfer
from modelexport.client.transfer import fetch, open_file, open_url
from modelexport.errors import TransferError
from testcluster.credentials import build_certificate, distinguished_name

CONTENT = bytes(range(256)) * 1000
ARTIFACT = Artifact("s3://exports/a", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content``; ``breaks`` has the bytes after which each answer is cut, ``ranges`` the requested ranges."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.breaks, self.ranges = CONTENT, list[int](), list[str | None]()
        self.status, self.knows_ranges = 200, True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/exports/a?X-Amz-Signature=secret"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        server: Server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        begin = int(asked[6:-1]) if asked and server.knows_ranges else 0
        self.send_response(206 if begin and server.status == 200 else server.status)
        if server.status in (301, 302, 303, 307, 308):
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(server.content) - begin))
        self.end_headers()
        end = begin + server.breaks.pop(0) if server.breaks else None
        self.wfile.write(server.content[begin:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "DELAY_SECONDS", 0.0)


def get(server: Server, path: Path) -> list[int]:
    told: list[int] = []
    fetch(ARTIFACT, path, open_url(server.url, None), told.append)
    return told


def test_file_is_downloaded_completely_with_progress(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path / "a")[-1] == len(CONTENT)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_broken_connection_resumes(server: Server, tmp_path: Path) -> None:
    server.breaks = [1000, 5000, 0, 0]
    get(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-", "bytes=6000-", "bytes=6000-", "bytes=6000-"]


def test_interrupted_download_resumes_in_next_run(server: Server, tmp_path: Path) -> None:
    server.breaks = [1000, 0, 0, 0, 0]
    with pytest.raises(TransferError, match=r"1,000 of 256,000 bytes received; run the same command again"):
        get(server, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    server.breaks = []
    get(server, tmp_path / "a")
    assert server.ranges[-1] == "bytes=1000-"
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_server_without_ranges_restarts_download(server: Server, tmp_path: Path) -> None:
    server.knows_ranges = False
    (tmp_path / "a.part").write_bytes(CONTENT[:1000])
    get(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("beginning", [b"another file", CONTENT + b"more"])
def test_partial_download_of_other_file_is_discarded(server: Server, tmp_path: Path, beginning: bytes) -> None:
    (tmp_path / "a.part").write_bytes(beginning)
    get(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_partial_download_of_replaced_file_is_discarded(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[::-1]
    with pytest.raises(TransferError, match=f"does not have the published SHA-256 {ARTIFACT.sha256}"):
        get(server, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_grown_file_is_read_to_published_size_only(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT + b"x" * (1 << 20)
    get(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404])
def test_denied_download_is_not_retried_and_link_stays_secret(server: Server, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(TransferError, match=f"/exports/a: the store answered {status}") as refusal:
        get(server, tmp_path / "a")
    assert "secret" not in str(refusal.value)
    assert len(server.ranges) == 1


def test_server_error_is_retried(server: Server, tmp_path: Path) -> None:
    server.status = 503
    with pytest.raises(TransferError, match="the store answered 503"):
        get(server, tmp_path / "a")
    assert len(server.ranges) == transfer.ATTEMPTS


def test_unreachable_store_suggests_endpoint(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"is unreachable: .*--endpoint"):
        fetch(ARTIFACT, tmp_path / "a", open_url("http://127.0.0.1:1/a", None), lambda _: None)


def test_untrusted_certificate_suggests_ca_file_at_once(server: Server, tmp_path: Path) -> None:
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    identity = build_certificate(distinguished_name("store"), None)
    (tmp_path / "own.pem").write_bytes(identity.key_pem() + identity.certificate_pem())
    own.load_cert_chain(tmp_path / "own.pem")
    server.socket = own.wrap_socket(server.socket, server_side=True)
    url = server.url.replace("http://", "https://")
    with pytest.raises(TransferError, match=r"self-signed certificate; .*--ca-file"):
        fetch(ARTIFACT, tmp_path / "a", open_url(url, ssl.create_default_context()), lambda _: None)


def test_file_in_directory_store_is_copied(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    (tmp_path / "a.part").write_bytes(CONTENT[:1000])
    told: list[int] = []
    fetch(ARTIFACT, tmp_path / "a", open_file(tmp_path / "source"), told.append)
    assert (tmp_path / "a").read_bytes() == CONTENT
    with pytest.raises(TransferError, match="No such file or directory; run the export again"):
        fetch(ARTIFACT, tmp_path / "b", open_file(tmp_path / "nothing"), told.append)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_link_does_not_redirect(server: Server, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(TransferError, match=f"/exports/a: the store answered {status} "):
        fetch(ARTIFACT, tmp_path / "a", open_url(server.url, None), lambda have: None)
    assert len(server.ranges) == 1, "nobody asked elsewhere"
