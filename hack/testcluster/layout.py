"""Where things are: the cache that outlives a cluster, the folder of the running one, its addresses."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

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
KUBECONFIG = RUN / "kubeconfig"
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
PAUSE_IMAGE = "modelexport.dev/pause:1"


def digest_of(paths: Iterable[Path], *words: str) -> str:
    """Return 12 hexadecimal digits over the words and over the names and contents of the files."""
    digest = hashlib.sha256("\0".join(words).encode())
    for path in sorted(paths):
        digest.update(f"\0{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def tools_dir() -> Path:
    """Return the folder of the built Go tools, keyed by everything that they are built from."""
    modules = [HERE / "tools", HERE / "tools/kwok"]
    sources = [module / name for module in modules for name in ("go.mod", "go.sum")]
    return CACHE / f"tools-{digest_of([*sources, HERE / 'tools/pause/pause.go'])}"


def tool(name: str) -> str:
    """Return the path of one built Go tool."""
    return str(tools_dir() / name)


def gitops_dir(name: str) -> Path:
    """Return the folder of a program that is built from a Go module of its own, keyed by that module."""
    return CACHE / f"{name}-{digest_of((HERE / 'tools' / name).iterdir())}"
