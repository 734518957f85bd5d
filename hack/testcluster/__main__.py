"""The command line of the test cluster: ``python -m testcluster COMMAND``; ``--help`` lists the commands."""

import argparse
import sys

from testcluster import demo, kwok, lifecycle, sbom, tools
from testcluster.bootstrap import store_credentials
from testcluster.images import CONVERTER, OPERATOR, build, provide
from testcluster.layout import KUBECONFIG, LOGS, MINIO_HOST, READY_FILE, tool
from testcluster.processes import servers
from testcluster.servers import SERVER_NAMES
from testcluster.shell import ClusterError


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m testcluster", description=sys.modules["testcluster"].__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tools", help="install the programs of the cluster, once")
    commands.add_parser("gitops", help="install Argo CD, kstatus and Kueue, which only some tests run, once")
    commands.add_parser("up", help="start the cluster and print how to use it")
    commands.add_parser("down", help="stop the cluster and remove everything except the cache")
    commands.add_parser("status", help="print the running servers and how to use the cluster")
    commands.add_parser("images", help="build and import the images of the project and print their names")
    commands.add_parser("sbom", help="write the SBOM of each image into build/sbom")
    commands.add_parser("demo", help="install the operator and export the trained detector of the repository")
    commands.add_parser("kubeconfig", help="print the path of the administrator's kubeconfig")
    kwok_parser = commands.add_parser("kwok", help="run N simulated nodes")
    kwok_parser.add_argument("count", type=int, metavar="N")
    return parser.parse_args()


def execute(arguments: argparse.Namespace) -> None:
    """Run a command."""
    match arguments.command:
        case "tools":
            tools.install()
        case "gitops":
            tools.install_gitops()
            tools.install_kueue()
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
            for spec in (OPERATOR, CONVERTER):
                print(provide(spec), flush=True)
        case "sbom":
            for spec in (OPERATOR, CONVERTER):
                print(sbom.write(spec.name, build(spec)), flush=True)
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
    """Check that the cluster runs.

    Raises:
        ClusterError: it does not.
    """
    if not READY_FILE.exists():
        raise ClusterError("the cluster does not run; start it with: make cluster")


def print_status() -> None:
    """Print the running servers and how to use the cluster."""
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
