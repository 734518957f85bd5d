"""Runs JobSet, a Go controller that does the same work: one object, nine Jobs, their state in its status.

It is built from the Go module proxy once and cached by its go.sum. It runs without its admission webhooks, which would
cost every Pod two more calls, and its JobSets request no DNS names, which would cost each one a Service.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.operator.client import is_answering
from benchmarks.operator.scale_plane import NAMESPACE, wait_until_served
from testcluster.layout import CACHE, digest_of
from testcluster.ports import free_port
from testcluster.shell import run, say
from testplane.control_plane import ControlPlane, run_process, wait_until

MODULE = Path(__file__).parent / "jobset"
JOBSETS = f"/apis/jobset.x-k8s.io/v1alpha2/namespaces/{NAMESPACE}/jobsets"
PACKAGE = "sigs.k8s.io/jobset"
DEFINITION = "config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml"


def install_jobset() -> Path:
    """Return the folder with the ``jobset`` program and its CRD ``jobsets.yaml``; build them if they are missing.

    Raises:
        ClusterError: go failed.
    """
    folder = CACHE / f"jobset-{digest_of([MODULE / 'go.mod', MODULE / 'go.sum'])}"
    if not folder.is_dir():
        say("building JobSet: about 2 minutes, once")
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="go-") as scratch:
            _build(Path(scratch) / "bin", Path(scratch) / "cache").rename(folder)
    return folder


def _build(binaries: Path, build_cache: Path) -> Path:
    environment = os.environ | {"CGO_ENABLED": "0", "GOBIN": str(binaries), "GOCACHE": str(build_cache)}
    run(["go", "install", "-trimpath", "-ldflags", "-s -w", "tool"], cwd=MODULE, env=environment)
    source = subprocess.check_output(["go", "list", "-m", "-f", "{{.Dir}}", PACKAGE], cwd=MODULE, text=True).strip()
    (binaries / "jobsets.yaml").write_bytes((Path(source) / DEFINITION).read_bytes())
    return binaries


def jobset_version() -> str:
    """Return the version that go.mod pins."""
    lines = map(str.split, (MODULE / "go.mod").read_text().splitlines())
    return next(words[1] for words in lines if words[:1] == [PACKAGE])


@contextmanager
def run_jobset(plane: ControlPlane) -> Iterator[int]:
    """Install JobSet on a control plane and run it; yields its process id."""
    installed = install_jobset()
    # Its schema contains whole Pod templates, too large for the annotation of `kubectl apply`.
    plane.kubectl("create", "--filename", str(installed / "jobsets.yaml"))
    wait_until_served(plane, JOBSETS)
    health, webhooks = free_port(), free_port()
    config = plane.folder / "jobset.yaml"
    config.write_text(yaml.safe_dump(_configuration(plane.folder, health, webhooks)))
    command = [str(installed / "jobset"), f"--config={config}", f"--kubeconfig={plane.kubeconfig}", "--zap-devel=false"]
    with run_process(command, plane.folder / "jobset.log") as process:
        wait_until("JobSet to be ready", lambda: is_answering(f"http://127.0.0.1:{health}/readyz"))
        yield process.pid


def _configuration(folder: Path, health: int, webhooks: int) -> dict[str, object]:
    _write_certificate(folder / "jobset-certificate")
    return {
        "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": webhooks, "certDir": str(folder / "jobset-certificate")},
        "clientConnection": {"qps": 500, "burst": 1000},
    }


def _write_certificate(folder: Path) -> None:
    """Write the certificate that its webhook server needs to start; no client calls it."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jobset")]), datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(private)
