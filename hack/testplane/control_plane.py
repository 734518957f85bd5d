"""A control plane of real parts without a node: etcd, the API server, and the Job and garbage collection controllers.

The tests simulate the kubelet: they write the status of Pods. Everything listens on loopback at free ports.
"""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from testcluster.layout import tool
from testcluster.ports import free_port
from testcluster.tools import install
from testplane.tls import trusting

TOKEN = "integration-admin"
OPERATOR_TOKEN = "integration-operator"
OPERATOR_USER = "system:serviceaccount:modelexport-system:modelexport-operator"
TIMEOUT_SECONDS = 120
"""Longer than a busy machine takes for anything: what comes at last is not late."""


class Restartable(ABC):
    """A process that can be killed, frozen, and started again with its data."""

    process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def start(self) -> None:
        """Start it and set ``process``."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run until the context ends, even if killed in between."""
        self.start()
        try:
            yield
        finally:
            assert self.process is not None
            end_process(self.process)

    @property
    def pid(self) -> int:
        """The id of the process, which has been started."""
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the process as a crash does."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()


class Server(Restartable):
    """A server of the control plane."""

    def __init__(self, folder: Path, name: str, *flags: str) -> None:
        self._command = [tool(name), *flags]
        self._log = folder / f"{name}.log"
        self._environment = {**os.environ, "HOME": str(folder)}

    def start(self) -> None:
        """Start without waiting until the server is ready."""
        self.process = start_process(self._command, self._log, self._environment)


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane, and the token of its administrator.

    ``servers`` are those of ``etcd``, ``kube-apiserver`` and ``kube-controller-manager`` that run.
    """

    address: str
    folder: Path
    token: str = TOKEN
    servers: dict[str, Server] = field(default_factory=dict)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def certificate(self) -> Path:
        return self.folder / "apiserver/apiserver.crt"

    def wait_until_ready(self) -> None:
        """Wait until the API server is ready."""
        wait_until("the API server", lambda: _is_ready(self))

    def kubectl(self, *arguments: str, text: str = "") -> str:
        """Run the real kubectl and return its output.

        Raises:
            AssertionError: it failed; the message is its output.
        """
        command = [tool("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def start_control_plane(folder: Path, *, has_controllers: bool = True) -> Iterator[ControlPlane]:
    """Run a control plane with its data in ``folder`` until the context ends.

    Without controllers no Job gets Pods, and what depends on a deleted object stays.
    """
    install()
    plane = ControlPlane(f"https://127.0.0.1:{free_port()}", folder)
    _write_credentials(plane)
    with ExitStack() as stack:
        store, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        stack.enter_context(_run(plane, "etcd", *_etcd_flags(folder, store, peer)))
        stack.enter_context(_run(plane, "kube-apiserver", *_api_server_flags(plane, store)))
        plane.wait_until_ready()
        write_kubeconfig(plane.kubeconfig, plane.address, plane.certificate)
        if has_controllers:
            stack.enter_context(_run(plane, "kube-controller-manager", *_controller_flags(plane)))
        yield plane


def write_kubeconfig(path: Path, address: str, certificate: Path | None = None, token: str = TOKEN) -> None:
    """Write a kubeconfig for an address and the user of the token."""
    trust = {"certificate-authority": str(certificate)} if certificate else {}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": address, **trust}}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin", "namespace": "default"}}],
        "current-context": "test",
    }
    path.write_text(yaml.safe_dump(config))


def wait_until(what: str, is_true: Callable[[], object], seconds: float = TIMEOUT_SECONDS) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it did not hold in time.
    """
    end = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.05)


@contextmanager
def run_process(
    command: list[str], log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process with its output in a file until the context ends."""
    process = start_process(command, log, environment)
    try:
        yield process
    finally:
        end_process(process)


def start_process(command: list[str], log: Path, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a process that appends its output to a file."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Terminate a process, and kill it if it does not end."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _run(plane: ControlPlane, name: str, *flags: str) -> Iterator[None]:
    plane.servers[name] = Server(plane.folder, name, *flags)
    with plane.servers[name].running():
        yield


def _etcd_flags(folder: Path, client: str, peer: str) -> list[str]:
    return [
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        # The default of 2 GiB is too little for the measurements at scale.
        f"--quota-backend-bytes={8 << 30}",
        "--log-level=warn",
    ]


def _api_server_flags(plane: ControlPlane, store: str) -> list[str]:
    return [
        f"--etcd-servers={store}",
        f"--secure-port={plane.address.rsplit(':', 1)[1]}",
        "--bind-address=127.0.0.1",
        # The endpoint of the service `kubernetes` must not be loopback; nothing calls it here.
        "--advertise-address=198.51.100.9",
        f"--cert-dir={plane.folder / 'apiserver'}",
        f"--token-auth-file={plane.folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={plane.folder / 'accounts.pub'}",
        f"--service-account-signing-key-file={plane.folder / 'accounts.key'}",
        "--service-cluster-ip-range=10.96.0.0/16",
        # No controller creates service accounts here, and Pods without one would be refused.
        "--disable-admission-plugins=ServiceAccount",
        # Some clusters check who may block the deletion of an owner; there the operator needs one more right.
        "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
    ]


def _controller_flags(plane: ControlPlane) -> list[str]:
    return [
        f"--kubeconfig={plane.kubeconfig}",
        "--controllers=job-controller,garbage-collector-controller,pod-garbage-collector-controller,namespace-controller",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        # The default of 5 would dominate the measurements at scale.
        "--concurrent-job-syncs=20",
        # By default ended Pods beyond 12,500 are deleted; the measurements at scale count them.
        "--terminated-pod-gc-threshold=0",
    ]


def _write_credentials(plane: ControlPlane) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (plane.folder / "accounts.key").write_bytes(private)
    (plane.folder / "accounts.pub").write_bytes(public)
    admin = f'{TOKEN},admin,admin,"system:masters"\n'
    operator = f'{OPERATOR_TOKEN},{OPERATOR_USER},operator,"system:serviceaccounts"\n'
    (plane.folder / "tokens.csv").write_text(admin + operator)


def _is_ready(plane: ControlPlane) -> bool:
    if not plane.certificate.exists():
        return False
    request = urllib.request.Request(f"{plane.address}/readyz", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(request, context=trusting(plane.certificate), timeout=30):
            return True
    except (urllib.error.URLError, OSError):
        return False
