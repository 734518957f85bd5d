"""Files from the web, from a real server with a certificate of its own authority."""

import hashlib
import http.server
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from modelexport.api.reasons import Reason
from modelexport.api.spec import Calibration, DataRef
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.dataset import fetch_dataset
from modelexport_converter.inputs.fetch import CHECKPOINT, fetch
from modelexport_converter.stores import ObjectMissing, TooLarge, https, retry
from modelexport_converter.stores.opening import open_store

CONTENT = b"a checkpoint"
REDIRECTS = {
    "/moved": "/file",
    "/team/moved": "/file",
    "/team/moved-within": "/team/file",
    "/downgraded": "http://127.0.0.1:1/file?token=secret",
    "/loop": "/loop",
    "/to-metadata": "https://metadata.example/latest?token=secret",
    "/to-credentials": "https://user:secret@models.example/file",
    "/to-fragment": "/file#part",
    "/to-no-address": "https://[::1/file",
    "/to-short-address": "https://127.1/file",
    "/to-nowhere": "",
    "/to-a-file": "file:///etc/passwd",
}


class Handler(http.server.BaseHTTPRequestHandler):
    hosts: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.hosts.append(self.headers["Host"])
        if path in REDIRECTS:
            self.send_response(302)
            self.send_header("Location", REDIRECTS[path])
            self.send_header("Content-Length", "0")
        elif path.endswith("/file"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT) + path.endswith("/short/file")))
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
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:models.example"]
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
    return {"MODELEXPORT_CA_FILE": f"{certificate}.crt", "MODELEXPORT_HTTPS_NETWORKS": "127.0.0.0/8"}


@pytest.fixture(autouse=True)
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "RETRY_POLICY", retry.RetryPolicy(0))


@pytest.mark.parametrize("path", ["/file", "/moved", "/file?token=secret"])
def test_file_is_downloaded_after_redirect(server: str, environ: dict[str, str], tmp_path: Path, path: str) -> None:
    https.download(server + path, tmp_path / "file", 100, environ)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_oversized_file_is_not_read_to_end(server: str, environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="the limit is 5"):
        https.download(f"{server}/file", tmp_path / "file", 5, environ)


def test_redirect_to_http_is_refused_without_secrets(server: str, environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"http://127\.0\.0\.1:1/file is reached by a redirect") as caught:
        https.download(f"{server}/downgraded", tmp_path / "file", 100, environ)
    assert caught.value.reason is Reason.INVALID_SPEC
    assert "secret" not in str(caught.value)


def test_redirect_outside_class_folders_is_refused(server: str, environ: dict[str, str], tmp_path: Path) -> None:
    enclosed = {**environ, "MODELEXPORT_SOURCES": f"s3://checkpoints/team/ {server}/team/"}
    https.download(f"{server}/team/moved-within", tmp_path / "file", 100, enclosed)
    assert (tmp_path / "file").read_bytes() == CONTENT
    with pytest.raises(Failure, match=rf"{server}/file is reached by a redirect and is not within s3://") as caught:
        https.download(f"{server}/team/moved", tmp_path / "other", 100, enclosed)
    assert caught.value.reason is Reason.SOURCE_NOT_ALLOWED
    assert not (tmp_path / "other").exists()


def test_converter_enforces_folders_itself(tmp_path: Path) -> None:
    store = open_store({"MODELEXPORT_STORE": str(tmp_path)})
    enclosed = {"MODELEXPORT_SOURCES": "s3://data/team/"}
    with pytest.raises(Failure, match=r"spec.model.checkpoint.uri: s3://data/team/../a has a") as caught:
        fetch(store, enclosed, DataRef("s3://data/team/../a"), CHECKPOINT, tmp_path / "file")
    assert caught.value.reason is Reason.INVALID_SPEC
    with pytest.raises(Failure, match=r"spec.calibration.dataset.uri: s3://data/other/ is not within s3://data/team/"):
        fetch_dataset(store, enclosed, Calibration(DataRef("s3://data/other/")), tmp_path)


def test_endless_redirects_are_given_up(server: str, environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(Failure, match="more than 5 times"):
        https.download(f"{server}/loop", tmp_path / "file", 100, environ)


def test_deleted_file_is_not_found(server: str, environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match="answered 404"):
        https.download(f"{server}/nothing", tmp_path / "file", 100, environ)


def test_server_error_is_unavailable(server: str, environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(Failure, match="status 500") as caught:
        https.download(f"{server}/broken?token=secret", tmp_path / "file", 100, environ)
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert "secret" not in str(caught.value)


def test_unknown_certificate_authority_is_not_trusted(server: str, tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        https.download(f"{server}/file", tmp_path / "file", 100, {"MODELEXPORT_HTTPS_NETWORKS": "127.0.0.1/32"})
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert "certificate verify failed" in str(caught.value)
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("scheme", ["https", "s3", "file"])
def test_digest_mismatch_error_hides_actual_digest(
    server: str, environ: dict[str, str], tmp_path: Path, scheme: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_bytes(CONTENT)
    uri = {"https": f"{server}/file", "s3": "s3://data/file", "file": f"file://{tmp_path}/data/file"}[scheme]
    store = open_store({"MODELEXPORT_STORE": str(tmp_path)})
    with pytest.raises(Failure, match="run sha256sum on yours and correct the digest, or upload it again") as caught:
        fetch(store, environ, DataRef(uri, "0" * 64), CHECKPOINT, tmp_path / "file")
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert f"spec.model.checkpoint.sha256 asks for ({'0' * 64})" in str(caught.value)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert digest not in str(caught.value)
    assert fetch(store, environ, DataRef(uri, digest), CHECKPOINT, tmp_path / "file") == digest


class Names:
    """A resolver with the test's answers, which counts its queries."""

    def __init__(self, addresses: dict[str, list[str]]) -> None:
        self.asked: list[str] = []
        self._addresses = addresses

    def __call__(self, host: str, port: int, *_: Any, **options: Any) -> list[Any]:
        self.asked.append(host)
        found = self._addresses.get(host, [host])
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, options["type"], 6, "", (one, port)) for one in found
        ]


def resolve(monkeypatch: pytest.MonkeyPatch, **addresses: list[str]) -> Names:
    names = Names({f"{host}.example": found for host, found in addresses.items()})
    monkeypatch.setattr(socket, "getaddrinfo", names)
    return names


def port_of(server: str) -> str:
    return server.rpartition(":")[2]


def test_loopback_address_is_refused_unless_allowed(server: str, environ: dict[str, str], tmp_path: Path) -> None:
    del environ["MODELEXPORT_HTTPS_NETWORKS"]
    Handler.hosts.clear()
    with pytest.raises(Failure, match=r"127\.0\.0\.1 resolves to an address that is not public") as caught:
        https.download(f"{server}/file", tmp_path / "file", 100, environ)
    assert caught.value.reason is Reason.SOURCE_NOT_ALLOWED
    assert "have its network added to spec.https.allowedNetworks" in str(caught.value)
    assert Handler.hosts == []
    https.download(f"{server}/file", tmp_path / "file", 100, {**environ, "MODELEXPORT_HTTPS_NETWORKS": "127.0.0.1/32"})
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_host_is_resolved_once_and_kept_for_tls(
    server: str, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = resolve(monkeypatch, models=["10.1.2.3", "127.0.0.1"])
    Handler.hosts.clear()
    https.download(f"https://models.example:{port_of(server)}/file", tmp_path / "file", 100, environ)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert Handler.hosts == [f"models.example:{port_of(server)}"]
    assert names.asked == ["models.example"]


def test_certificate_for_other_name_is_not_trusted(
    server: str, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, other=["127.0.0.1"])
    with pytest.raises(Failure, match=r"certificate is not valid for 'other\.example'"):
        https.download(f"https://other.example:{port_of(server)}/file", tmp_path / "file", 100, environ)


@pytest.mark.parametrize("address", ["169.254.169.254", "10.0.0.1", "::1", "::ffff:169.254.169.254", "fd00:ec2::254"])
@pytest.mark.parametrize("path", ["", "/to-metadata"])
def test_name_resolving_into_cluster_is_refused_after_redirect(
    server: str, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, path: str, address: str
) -> None:
    resolve(monkeypatch, metadata=[address])
    with pytest.raises(Failure, match=r"metadata\.example resolves to an address that is not public") as caught:
        https.download(server + path if path else "https://metadata.example/", Path("/nowhere"), 100, environ)
    assert caught.value.reason is Reason.SOURCE_NOT_ALLOWED
    assert "secret" not in str(caught.value)
    assert address not in str(caught.value)


def test_redirect_with_fragment_is_followed(server: str, environ: dict[str, str], tmp_path: Path) -> None:
    https.download(f"{server}/to-fragment", tmp_path / "file", 100, environ)
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/to-credentials", "https://models.example/file is reached by a redirect and contains credentials"),
        ("/to-no-address", "https://… is reached by a redirect and has an invalid host or port"),
        ("/to-short-address", "is reached by a redirect and has a malformed IP address"),
        ("/to-a-file", "file:///etc/passwd is reached by a redirect and is not https://"),
        ("/to-nowhere", "redirects more than 5 times"),
    ],
)
def test_unsafe_redirect_is_refused(
    server: str, environ: dict[str, str], tmp_path: Path, path: str, words: str
) -> None:
    with pytest.raises(Failure) as caught:
        https.download(server + path, tmp_path / "file", 100, environ)
    assert words in str(caught.value)
    assert caught.value.reason is Reason.INVALID_SPEC
    assert "secret" not in str(caught.value)


def test_proxy_environment_is_ignored(
    server: str, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    https.download(f"{server}/file", tmp_path / "file", 100, environ)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_slow_download_is_given_up(
    server: str, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https, "TOTAL_SECONDS", 0.0)
    with pytest.raises(Failure, match="12 bytes came in 0 s; that is too slow") as caught:
        https.download(f"{server}/file", tmp_path / "file", 100, environ)
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE


def test_truncated_file_is_refused(server: str, environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(Failure, match="IncompleteRead") as caught:
        https.download(f"{server}/short/file", tmp_path / "file", 100, environ)
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE


def test_unresolvable_name_is_unavailable(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(Failure, match=r"the name models\.example cannot be resolved: Name or service") as caught:
        https.download("https://models.example/file", tmp_path / "file", 100, environ)
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
