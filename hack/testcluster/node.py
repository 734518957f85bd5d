"""The first process of the node's namespaces: it prepares them, starts the servers in order, and reaps ended processes.

``lifecycle.up`` starts it as process 1 of fresh network, mount and process namespaces. Nothing stops it but SIGKILL,
and with it the kernel ends every server, shim and container, and takes their mounts and interfaces along.
"""

import os
import ssl
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from testcluster import bootstrap, containerd
from testcluster.credentials import CA_FILE
from testcluster.layout import API_SERVER, HOST_ADDRESS, NODE_ADDRESS, NODE_INTERFACE, PRIVATE_FOLDERS, READY_FILE
from testcluster.servers import PATH, Server, api_server, containerd_server, controllers, kubelet, stores
from testcluster.shell import ClusterError, run, wait_until

KERNEL_TUNABLES = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)


def main() -> None:
    """Start the node and stay."""
    mount_private_folders()
    hide_kernel_tunables()
    configure_network()
    for server in stores():
        start(server)
    start_containerd()
    api = start(api_server())
    wait_until("the API server", lambda: is_api_ready(api))
    for server in [*controllers(), kubelet()]:
        start(server)
    bootstrap.create_objects()
    bootstrap.wait_until_ready()
    READY_FILE.touch()
    reap_for_ever()


def mount_private_folders() -> None:
    """Mount separate file systems over the paths that are compiled into the programs of the node."""
    for folder in ("/run", *PRIVATE_FOLDERS):
        Path(folder).mkdir(parents=True, exist_ok=True)
        run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder])


def hide_kernel_tunables() -> None:
    """Let the kubelet set its kernel tunables on copies: the machine's own must not change."""
    copies = Path(tempfile.mkdtemp(dir="/run"))
    for index, name in enumerate(KERNEL_TUNABLES):
        original = Path("/proc/sys") / name
        copy = copies / str(index)
        copy.write_text(original.read_text())
        run(["mount", "--bind", str(copy), str(original)])


def configure_network() -> None:
    """Give the node its address as soon as the host has moved the interface here."""
    wait_until("the node's interface", lambda: Path("/proc/net/dev").read_text().find(NODE_INTERFACE) >= 0)
    for command in (
        "link set lo up",
        f"address add {NODE_ADDRESS}/24 dev {NODE_INTERFACE}",
        f"link set {NODE_INTERFACE} up",
        f"route add default via {HOST_ADDRESS}",
    ):
        run(["ip", *command.split()])
    for name in ("ipv4/ip_forward", "bridge/bridge-nf-call-iptables"):
        (Path("/proc/sys/net") / name).write_text("1")


def start(server: Server) -> subprocess.Popen[bytes]:
    """Start one server with its own log and without the caller's environment."""
    with server.log.open("ab") as log:
        return subprocess.Popen(
            server.command,
            env={"PATH": PATH, **server.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def start_containerd() -> None:
    """Start containerd without the containers of an earlier cluster, which its store still lists.

    They are removed before the kubelet sees them; containerd reads its list only when it starts.
    """
    process = start(containerd_server())
    containerd.wait_until_ready()
    if containerd.remove_containers():
        process.terminate()
        process.wait()
        start(containerd_server())
        containerd.wait_until_ready()
    containerd.import_pause_image()


def is_api_ready(server: subprocess.Popen[bytes]) -> bool:
    """Return whether the API server says that it is ready.

    Raises:
        ClusterError: it has ended.
    """
    if server.poll() is not None:
        raise ClusterError("the API server ended while it started")
    context = ssl.create_default_context(cafile=str(CA_FILE))
    try:
        with urllib.request.urlopen(f"{API_SERVER}/readyz", context=context, timeout=30) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def reap_for_ever() -> None:
    """Collect the status of every process that ends here, as process 1 must."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(1)


if __name__ == "__main__":
    main()
