"""Paths and addresses: the cache, which outlives a cluster, and the folder of the running cluster."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from testcluster.foreign import FOREIGN

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]

CACHE = Path(os.environ.get("MODELEXPORT_CACHE") or Path.home() / ".cache/modelexport")
"""Survives ``down``: tools, containerd's image store, buildah's layers."""
IMAGE_STORE = CACHE / "containerd"
BUILD_STORE = CACHE / "buildah"
BUILDAH = ["buildah", f"--root={BUILD_STORE}", f"--runroot={BUILD_STORE}/run", "--storage-driver=overlay"]

RUN = Path("/var/tmp/modelexport-cluster")
"""Everything of the running cluster; its path is short because sockets lie in it. ``down`` removes it."""
READY_FILE = RUN / "ready"
KUBECONFIG = Path(FOREIGN.kubeconfig) if FOREIGN else RUN / "kubeconfig"
LOGS = RUN / "logs"
CONTAINERD_SOCKET = RUN / "containerd.sock"

PRIVATE_FOLDERS = ("/var/lib/cni", "/var/lib/kubelet", "/var/log/containers")
"""Compiled-in paths of the node's programs, which mounts its own file systems there; ``down`` removes the folders."""

NODE_NAME = "modelexport"
HOST_ADDRESS = "198.51.100.1"
NODE_ADDRESS = "198.51.100.2"
HOST_INTERFACE = "mx-host"
NODE_INTERFACE = "mx-node"
API_SERVER = f"https://{NODE_ADDRESS}:6443"
POD_RANGE = "10.244.0.0/24"
SERVICE_RANGE = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_SERVICE_ADDRESS = "10.96.0.10"
MINIO_HOST = f"{NODE_ADDRESS}:9000"
MINIO_SERVICE = "minio.default.svc.cluster.local"
STORE_ENDPOINT = FOREIGN.store_endpoint if FOREIGN else f"http://{MINIO_SERVICE}:9000"
"""The store for Pods."""
STORE_ADDRESS = FOREIGN.store_address if FOREIGN else MINIO_HOST
"""The same for programs of this machine."""
PAUSE_IMAGE = "modelexport.dev/pause:1"

EXAMPLE = "examples/yolov8.yaml"
UPLOADS = {
    "testdata/models/weights/yolov8n.pt": ("checkpoints", "shapes/yolov8n.pt"),
    "testdata/models/data/calibration.zip": ("datasets", "shapes/calibration.zip"),
}
"""The files that the example reads, each with its bucket and key."""


def digest_of(paths: Iterable[Path], *words: str) -> str:
    """Return 12 hexadecimal digits over the words and over the names and contents of the files."""
    digest = hashlib.sha256("\0".join(words).encode())
    for path in sorted(paths):
        digest.update(f"\0{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def tools_dir() -> Path:
    """Return the folder of the built Go tools, keyed by all their inputs."""
    modules = [HERE / "tools", HERE / "tools/kwok"]
    sources = [module / name for module in modules for name in ("go.mod", "go.sum")]
    return CACHE / f"tools-{digest_of([*sources, HERE / 'tools/pause/pause.go'])}"


def tool(name: str) -> str:
    """Return the path of one built Go tool; on a foreign cluster, its user's own kubectl and helm do."""
    return name if FOREIGN else str(tools_dir() / name)


def module_dir(name: str) -> Path:
    """Return the folder of a program with a separate Go module, keyed by that module."""
    return CACHE / f"{name}-{digest_of((HERE / 'tools' / name).iterdir())}"
