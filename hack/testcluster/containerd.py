"""The image store of the node: its content, importing images, removing the containers of an earlier cluster."""

import json
import subprocess
from typing import IO, Any

from testcluster.layout import CONTAINERD_SOCKET, PAUSE_IMAGE, tool
from testcluster.shell import output, run, wait_until

CTR = ["ctr", f"--address={CONTAINERD_SOCKET}", "--namespace=k8s.io"]


def wait_until_ready() -> None:
    """Wait until containerd answers."""
    wait_until("containerd", is_ready)


def is_ready() -> bool:
    """Return whether containerd answers."""
    return subprocess.run([*CTR, "version"], capture_output=True, check=False).returncode == 0


def remove_containers() -> int:
    """Remove every container of the store, none of which runs, and return how many there were."""
    containers = output([*CTR, "containers", "list", "--quiet"]).split()
    if containers:
        run([*CTR, "containers", "remove", *containers])
    return len(containers)


def images() -> list[str]:
    """Return the names of the images of the store."""
    return output([*CTR, "images", "list", "--quiet"]).split()


def import_pause_image() -> None:
    """Import the image that holds the namespaces of every Pod."""
    if PAUSE_IMAGE not in images():
        run([*CTR, "images", "import", tool("pause.tar")])


def remove(names: list[str]) -> None:
    """Remove images."""
    if names:
        run([*CTR, "images", "remove", *names])


def manifest_of(image: str) -> dict[str, Any]:
    """Return the manifest of an image."""
    row = output([*CTR, "images", "list", f"name=={image}"]).splitlines()[1]
    return read_blob(next(word for word in row.split() if word.startswith("sha256:")))


def config_of(image: str) -> dict[str, Any]:
    """Return the configuration of an image."""
    return read_blob(manifest_of(image)["config"]["digest"])


def read_blob(digest: str) -> dict[str, Any]:
    """Return a document of the content store."""
    document: dict[str, Any] = json.loads(output([*CTR, "content", "get", digest]))
    return document


def import_archive(archive: IO[bytes] | None) -> None:
    """Import and unpack the images of an OCI archive.

    Raises:
        ClusterError: containerd refuses it.
    """
    run([*CTR, "images", "import", "--snapshotter=overlayfs", "-"], stdin=archive)
