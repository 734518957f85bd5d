"""The image store of the node: what it has, importing an image, removing the containers of an earlier cluster."""

import subprocess

from cluster.layout import CONTAINERD_SOCKET, PAUSE_IMAGE, tool
from cluster.shell import output, run, wait_until

CTR = ["ctr", f"--address={CONTAINERD_SOCKET}", "--namespace=k8s.io"]


def wait_until_ready() -> None:
    """Wait until containerd answers."""
    wait_until("containerd", is_ready)


def is_ready() -> bool:
    """Tell whether containerd answers."""
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
