"""First objects of the cluster, and the check that it is ready."""

import json
import socket
import struct

import urllib3

from testcluster.foreign import FOREIGN
from testcluster.layout import DNS_SERVICE_ADDRESS, HERE, KUBECONFIG, MINIO_HOST, MINIO_SERVICE, NODE_NAME, tool
from testcluster.servers import STORE_PASSWORD_FILE, STORE_USER
from testcluster.shell import output, wait_until

STORE_SECRET = "minio-credentials"


def kubectl(*arguments: str, **options: str) -> str:
    """Run kubectl as administrator of the cluster and return its output.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    return output([tool("kubectl"), f"--kubeconfig={KUBECONFIG}", *arguments], **options)


def create_objects() -> None:
    """Create the Services of DNS and MinIO and the Secret with MinIO's credentials."""
    kubectl("apply", f"--filename={HERE / 'manifests/bootstrap.yaml'}")
    kubectl("apply", "--filename=-", input=json.dumps(build_store_secret("default")))


def store_credentials() -> tuple[str, str]:
    """Return access key and secret key of the store."""
    if FOREIGN:
        return FOREIGN.access_key, FOREIGN.secret_key
    return STORE_USER, STORE_PASSWORD_FILE.read_text()


def build_store_secret(namespace: str) -> dict[str, object]:
    """Return the Secret that lets the Pods of a namespace use MinIO."""
    access_key, secret_key = store_credentials()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": STORE_SECRET, "namespace": namespace},
        "stringData": {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key},
    }


def wait_until_ready() -> None:
    """Wait until a Pod that is created now can start, resolve names and reach MinIO.

    A Pod that starts before DNS answers fails to resolve for good, so readiness of the node alone does not suffice.
    """
    wait_until("MinIO", is_store_ready)
    wait_until(f"DNS to know {MINIO_SERVICE}", lambda: is_resolved(MINIO_SERVICE))
    kubectl("wait", "--for=create", f"node/{NODE_NAME}", "serviceaccount/default", "--timeout=180s")
    kubectl("wait", "--for=condition=Ready", f"node/{NODE_NAME}", "--timeout=180s")


def is_store_ready() -> bool:
    """Return whether MinIO can write."""
    return is_healthy(f"http://{MINIO_HOST}/minio/health/cluster", seconds=30)


def is_healthy(url: str, seconds: float) -> bool:
    """Return whether a server reports that it is healthy within a timeout in seconds."""
    try:
        return urllib3.request("GET", url, timeout=seconds, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def is_resolved(name: str) -> bool:
    """Return whether the DNS Service has an address for a name; the question is built as RFC 1035, section 4.1 says."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(1)
        try:
            server.sendto(question, (DNS_SERVICE_ADDRESS, 53))
            _, flags, _, answers, _, _ = struct.unpack(">6H", server.recv(512)[:12])
        except OSError:
            return False
    return bool(answers > 0 and flags & 0x000F == 0)
