"""``up`` and ``down``: start the cluster, and remove it completely."""

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from testcluster import layout
from testcluster.credentials import write_credentials
from testcluster.layout import CACHE, HOST_INTERFACE, LOGS, READY_FILE, RUN
from testcluster.processes import NODE_MODULE, is_alive, link_of, node_pid, node_processes, servers
from testcluster.servers import SERVER_NAMES, write_settings
from testcluster.shell import ClusterError, exclusive, require_disk, run, timed, wait_until
from testcluster.tools import install

NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
CGROUPS = Path("/sys/fs/cgroup")
WORKING_GIB = 3
START_SECONDS = 600


def up() -> bool:
    """Start the cluster unless it runs, and return whether it was started; restart it if a server has died.

    Raises:
        ClusterError: a part does not start; the message holds the end of every log.
    """
    with exclusive("cluster"):
        install()
        if READY_FILE.exists() and not missing_servers():
            return False
        end()
        with timed("bringing the cluster up"):
            begin()
        return True


def down() -> None:
    """Stop the cluster, also after a crash, and remove all its files."""
    with exclusive("cluster"):
        end()


def missing_servers() -> list[str]:
    """Return the servers that do not run."""
    running = servers()
    return [name for name in SERVER_NAMES if name not in running]


def begin() -> None:
    """Start the node and wait until it is ready."""
    require_disk(CACHE, WORKING_GIB, "the cluster")
    LOGS.mkdir(parents=True)
    write_credentials()
    write_settings()
    start_node()
    try:
        connect()
        wait_until("the node", lambda: READY_FILE.exists() or node_pid() is None, START_SECONDS)
        if node_pid() is None:
            raise ClusterError("the node ended while it started")
    except ClusterError as error:
        raise ClusterError(f"{error}\n{last_words()}") from error


def start_node() -> None:
    """Start the first process of the node in new namespaces, detached from this process."""
    with (LOGS / "node.log").open("wb") as log:
        subprocess.run(
            ["setsid", "--fork", *NAMESPACES, sys.executable, "-m", NODE_MODULE],
            cwd=layout.HERE.parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )


def connect() -> None:
    """Join the node to the host by a pair of interfaces as soon as it has a network namespace."""
    own = link_of(os.getpid(), "net")
    wait_until("the node's namespaces", lambda: link_of(node_pid() or os.getpid(), "net") not in (own, None))
    pair = f"link add {HOST_INTERFACE} type veth peer name {layout.NODE_INTERFACE} netns {node_pid()}"
    run(["ip", *pair.split()])
    run(["ip", *f"address add {layout.HOST_ADDRESS}/24 dev {HOST_INTERFACE}".split()])
    run(["ip", *f"link set {HOST_INTERFACE} up".split()])


def last_words() -> str:
    """Return the end of every log."""
    logs = sorted(LOGS.glob("*.log"))
    return "\n".join(f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-5:]) for log in logs)


def end() -> None:
    """End every process of the node; the kernel then removes its mounts and interfaces."""
    holder, processes = node_pid(), node_processes()
    if holder is not None:
        os.kill(holder, signal.SIGKILL)
    wait_until("the processes of the node to end", lambda: not any(map(is_alive, processes)))
    subprocess.run(["ip", "link", "delete", HOST_INTERFACE], capture_output=True, check=False)
    remove_control_groups()
    if RUN.exists():
        shutil.rmtree(RUN)
    for folder in map(Path, layout.PRIVATE_FOLDERS):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def remove_control_groups() -> None:
    """Remove the kubelet's control groups, innermost first; the kernel frees them a moment after their processes."""
    for root in CGROUPS.glob("**/kubepods"):
        for folder, _, _ in os.walk(root, topdown=False):
            wait_until(f"{folder} to be free", partial(is_removed, Path(folder)))


def is_removed(control_group: Path) -> bool:
    """Remove a control group, and return whether that was possible."""
    try:
        control_group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
