"""Finds the node among the processes of the machine, without a pid file that could be lost or stale."""

from pathlib import Path

NODE_MODULE = "testcluster.node"


def node_pid() -> int | None:
    """Return the process that holds the node's namespaces (``unshare``), or nothing when no cluster runs."""
    return next((pid for pid in all_pids() if is_holder(command_of(pid)) and is_alive(pid)), None)


def servers() -> dict[str, int]:
    """Return name and pid of every process of the node; of those with the same name, one."""
    return {Path(command_of(pid)[0]).name: pid for pid in node_processes() if command_of(pid)}


def node_processes() -> list[int]:
    """Return every living process of the node, containers included: the descendants of the namespaces' holder.

    Orphans are included: the kernel gives them to the first process of their namespace.
    """
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        children.setdefault(parent_of(pid), []).append(pid)
    found: list[int] = []
    generation = [pid for pid in [node_pid()] if pid is not None]
    while generation:
        found += generation
        generation = [child for pid in generation for child in children.get(pid, [])]
    return [pid for pid in found if is_alive(pid)]


def is_holder(command: list[str]) -> bool:
    """Return whether a command line is the one by which ``lifecycle`` starts the node."""
    return command[:1] == ["unshare"] and command[-2:] == ["-m", NODE_MODULE]


def all_pids() -> list[int]:
    """Return every process of the machine."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def command_of(pid: int) -> list[str]:
    """Return the command line of a process; it is empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def link_of(pid: int, namespace: str) -> str | None:
    """Return the identity of one namespace of a process, or nothing when it has ended."""
    try:
        return str(Path(f"/proc/{pid}/ns/{namespace}").readlink())
    except OSError:
        return None


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be collected by its parent does not."""
    return state_of(pid)[0] not in "XZ"


def parent_of(pid: int) -> int:
    """Return the parent of a process; it is 0 for one that has ended."""
    return int(state_of(pid)[1])


def state_of(pid: int) -> list[str]:
    """Return the fields of /proc/pid/stat from the state on; see proc(5)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X", "0"]
