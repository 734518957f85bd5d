"""The command line of the test cluster: ``python -m cluster COMMAND``; ``--help`` lists the commands."""

import argparse
import sys

from cluster import bill, demo, kwok, lifecycle, tools
from cluster.bootstrap import store_credentials
from cluster.images import CONVERTER, OPERATOR, build, provide
from cluster.layout import KUBECONFIG, LOGS, MINIO_HOST, READY_FILE, tool
from cluster.processes import servers
from cluster.servers import SERVER_NAMES
from cluster.shell import ClusterError


def parse_arguments() -> argparse.Namespace:
    """Return the command with its argument."""
    parser = argparse.ArgumentParser(prog="python -m cluster", description=sys.modules["cluster"].__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tools", help="install what the cluster is made of, once")
    commands.add_parser("gitops", help="install Argo CD and kstatus for the tests of GitOps, once")
    commands.add_parser("up", help="bring the cluster up and say how to use it")
    commands.add_parser("down", help="end it and leave nothing behind but the cache")
    commands.add_parser("status", help="print what runs and how to use it")
    commands.add_parser("images", help="build and import the images of the project and print their names")
    commands.add_parser("sbom", help="write a bill of materials of what is in each image into build/sbom")
    commands.add_parser("demo", help="install the operator and export the trained detector of the repository")
    commands.add_parser("kubeconfig", help="print the path of the administrator's kubeconfig")
    kwok_parser = commands.add_parser("kwok", help="have N nodes that only pretend")
    kwok_parser.add_argument("count", type=int, metavar="N")
    return parser.parse_args()


def execute(arguments: argparse.Namespace) -> None:
    """Do what was asked."""
    match arguments.command:
        case "tools":
            tools.install()
        case "gitops":
            tools.install_gitops()
        case "up":
            lifecycle.up()
            print_status()
        case "down":
            lifecycle.down()
        case "status":
            require_cluster()
            print_status()
        case "images":
            require_cluster()
            for recipe in (OPERATOR, CONVERTER):
                print(provide(recipe), flush=True)
        case "sbom":
            for recipe in (OPERATOR, CONVERTER):
                print(bill.write(recipe.name, build(recipe)), flush=True)
        case "demo":
            require_cluster()
            demo.run_demo()
        case "kubeconfig":
            require_cluster()
            print(KUBECONFIG)
        case "kwok":
            require_cluster()
            kwok.set_nodes(arguments.count)


def require_cluster() -> None:
    """Refuse to go on without a cluster.

    Raises:
        ClusterError: none runs.
    """
    if not READY_FILE.exists():
        raise ClusterError("no cluster runs; bring one up with: make cluster")


def print_status() -> None:
    """Print what runs and how to use it."""
    running = servers()
    for name in SERVER_NAMES:
        print(f"{name:26}{f'pid {running[name]}' if name in running else 'NOT RUNNING'}")
    access_key, secret_key = store_credentials()
    print(f"\nlogs                      {LOGS}")
    print(f"MinIO                     http://{MINIO_HOST}  access key {access_key}  secret key {secret_key}")
    print(f"kubectl                   {tool('kubectl')} --kubeconfig={KUBECONFIG}")


def main() -> int:
    """Run one command and return the exit status."""
    try:
        execute(parse_arguments())
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
