"""Files from the web, from a real server with a certificate of its own authority."""

import http.server
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelexport.reasons import Reason
from modelexport.spec import Calibration, DataRef
from modelexport_converter.datasets import fetch_dataset
from modelexport_converter.failures import Failure
from modelexport_converter.fetch import CHECKPOINT, fetch
from modelexport_converter.stores import ObjectMissing, TooLarge, https, open_store, retry

CONTENT = b"a checkpoint"
REDIRECTS = {
    "/moved": "/file",
    "/team/moved": "/file",
    "/team/moved-within": "/team/file",
    "/downgraded": "http://127.0.0.1:1/file?token=secret",
    "/loop": "/loop",
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path in REDIRECTS:
            self.send_response(302)
            self.send_header("Location", REDIRECTS[path])
            self.send_header("Content-Length", "0")
        elif path.endswith("/file"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
        else:
            self.send_response(404 if path == "/nothing" else 500)
            self.send_header("Content-Length", "0")
        self.end_headers()
        if path.endswith("/file"):
            self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    key = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(["openssl", *key, *subject], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def server(certificate: Path) -> Iterator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(f"{certificate}.crt", certificate)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def environ(certificate: Path) -> dict[str, str]:
    return {"MODELEXPORT_CA_FILE": f"{certificate}.crt"}


@pytest.fixture(autouse=True)
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "DELAYS", (0.0,))


@pytest.mark.parametrize("path", ["/file", "/moved", "/file?token=secret"])
def test_a_file_is_downloaded_also_after_a_redirect(
    server: str, environ: dict[str, str], tmp_path: Path, path: str
) -> None:
    https.download(server + path, tmp_path / "file", 100, environ)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_file_above_the_limit_is_not_read_to_its_end(server: str, environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="the limit is 5"):
        https.download(f"{server}/file", tmp_path / "file", 5, environ)


def test_a_redirect_to_plain_http_is_refused_without_its_secrets(
    server: str, environ: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(Failure, match=r"http://127\.0\.0\.1:1/file is reached by a redirect") as caught:
        https.download(f"{server}/downgraded", tmp_path / "file", 100, environ)
    assert caught.value.reason is Reason.INVALID_SPEC
    assert "secret" not in str(caught.value)


def test_a_redirect_out_of_the_folders_of_a_class_is_refused(
    server: str, environ: dict[str, str], tmp_path: Path
) -> None:
    enclosed = {**environ, "MODELEXPORT_SOURCES": f"s3://checkpoints/team/ {server}/team/"}
    https.download(f"{server}/team/moved-within", tmp_path / "file", 100, enclosed)
    assert (tmp_path / "file").read_bytes() == CONTENT
    with pytest.raises(Failure, match=rf"{server}/file is reached by a redirect and is not within s3://") as caught:
        https.download(f"{server}/team/moved", tmp_path / "other", 100, enclosed)
    assert caught.value.reason is Reason.SOURCE_NOT_ALLOWED
    assert not (tmp_path / "other").exists()


def test_what_the_operator_let_through_the_converter_still_refuses(tmp_path: Path) -> None:
    store = open_store({"MODELEXPORT_STORE": str(tmp_path)})
    enclosed = {"MODELEXPORT_SOURCES": "s3://data/team/"}
    with pytest.raises(Failure, match=r"spec.model.checkpoint.uri: s3://data/team/../a has a") as caught:
        fetch(store, enclosed, DataRef("s3://data/team/../a"), CHECKPOINT, tmp_path / "file")
    assert caught.value.reason is Reason.SOURCE_NOT_ALLOWED
    with pytest.raises(Failure, match=r"spec.calibration.dataset.uri: s3://data/other/ is not within s3://data/team/"):
        fetch_dataset(store, enclosed, Calibration(DataRef("s3://data/other/")), tmp_path)


def test_redirects_without_end_are_given_up(server: str, environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(Failure, match="more than 5 times"):
        https.download(f"{server}/loop", tmp_path / "file", 100, environ)


def test_a_file_that_is_gone_is_missing(server: str, environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match="answered 404"):
        https.download(f"{server}/nothing", tmp_path / "file", 100, environ)


def test_a_server_in_trouble_is_unavailable(server: str, environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(Failure, match="status 500") as caught:
        https.download(f"{server}/broken?token=secret", tmp_path / "file", 100, environ)
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert "secret" not in str(caught.value)


def test_a_certificate_of_an_unknown_authority_is_not_trusted(server: str, tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        https.download(f"{server}/file", tmp_path / "file", 100, {})
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert not (tmp_path / "file").exists()


def test_another_digest_than_asked_for_is_a_mismatch_with_both(
    server: str, environ: dict[str, str], tmp_path: Path
) -> None:
    store = open_store({"MODELEXPORT_STORE": str(tmp_path)})
    with pytest.raises(Failure, match=f"{'0' * 64}; correct the one that is wrong") as caught:
        fetch(store, environ, DataRef(f"{server}/file", "0" * 64), CHECKPOINT, tmp_path / "file")
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    digest = fetch(store, environ, DataRef(f"{server}/file"), CHECKPOINT, tmp_path / "file")
    assert digest in str(caught.value)
