"""The command line: ``python -m cluster up | down | status | images | kubeconfig``."""

import argparse
import sys
from collections.abc import Callable

from cluster import lifecycle
from cluster.bootstrap import store_credentials
from cluster.images import CONVERTER, OPERATOR, provide
from cluster.layout import KUBECONFIG, LOGS, MINIO_HOST, READY_FILE, tool
from cluster.processes import servers
from cluster.servers import SERVER_NAMES
from cluster.shell import ClusterError


def up() -> None:
    """Bring the cluster up and say how to use it."""
    lifecycle.up()
    status()


def require_cluster() -> None:
    """Refuse to go on without a cluster.

    Raises:
        ClusterError: none runs.
    """
    if not READY_FILE.exists():
        raise ClusterError("no cluster runs; bring one up with: make cluster")


def status() -> None:
    """Print what runs and how to use it."""
    require_cluster()
    running = servers()
    for name in SERVER_NAMES:
        print(f"{name:26}{f'pid {running[name]}' if name in running else 'NOT RUNNING'}")
    access_key, secret_key = store_credentials()
    print(f"\nlogs                      {LOGS}")
    print(f"MinIO                     http://{MINIO_HOST}  access key {access_key}  secret key {secret_key}")
    print(f"kubectl                   {tool('kubectl')} --kubeconfig={KUBECONFIG}")


def build_images() -> None:
    """Build and import the images of the project and print their names."""
    require_cluster()
    for recipe in (OPERATOR, CONVERTER):
        print(provide(recipe))


def kubeconfig() -> None:
    """Print the path of the administrator's kubeconfig."""
    print(KUBECONFIG)


COMMANDS: dict[str, Callable[[], None]] = {
    "up": up,
    "down": lifecycle.down,
    "status": status,
    "images": build_images,
    "kubeconfig": kubeconfig,
}


def main() -> int:
    """Run one command and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m cluster", description=sys.modules["cluster"].__doc__)
    parser.add_argument("command", choices=COMMANDS)
    try:
        COMMANDS[parser.parse_args().command]()
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
