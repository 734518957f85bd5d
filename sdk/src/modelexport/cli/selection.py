"""The arguments that select an export, in a cluster or in the directory of a local run, and its store."""

import argparse
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from modelexport.cli.kubectl import Kubectl
from modelexport.client.cluster import Body
from modelexport.client.links import Signer
from modelexport.client.transfer import Opener, open_url
from modelexport.errors import BadInput
from modelexport.local.run import DEFAULT_OUTPUT
from modelexport.published import Published, Reports, of_cluster, reports_of_directory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that select an export, in a cluster or in the directory of a local run."""
    parser.add_argument("name", metavar="NAME", help="name of the ModelExport")
    parser.add_argument(
        "-n", "--namespace", help="default: the namespace of the kubeconfig context; for a local run: default"
    )
    parser.add_argument("--kubeconfig", metavar="FILE", help="as for kubectl")
    parser.add_argument("--context", metavar="NAME", help="as for kubectl")
    parser.add_argument("--store", type=Path, metavar="DIR", help="read the directory of a local run and not a cluster")
    parser.add_argument(
        "--output-uri",
        default=DEFAULT_OUTPUT,
        metavar="URI",
        help=f"output URI of the local run; default: {DEFAULT_OUTPUT}",
    )


def add_store_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say how to reach the store of a cluster."""
    parser.add_argument(
        "--endpoint", metavar="URL", help="URL of the store from this machine; default: the endpoint of the class"
    )
    parser.add_argument("--ca-file", metavar="FILE", help="certificate authority of the store; default: the system's")


def choose_kubectl(options: argparse.Namespace) -> Kubectl:
    """Return kubectl with the selected cluster and namespace."""
    chosen = ((name, getattr(options, name)) for name in ("kubeconfig", "context", "namespace"))
    return Kubectl(tuple(f"--{name}={value}" for name, value in chosen if value))


def read_local(options: argparse.Namespace) -> tuple[Published, ...]:
    """Return the targets of the export in the directory of a local run.

    Raises:
        BadInput: nothing is published there.
    """
    return tuple(published for published, _ in read_local_reports(options))


def read_local_reports(options: argparse.Namespace) -> Reports:
    """Return the targets of the export in the directory of a local run, each with its report.

    Raises:
        BadInput: nothing is published there.
    """
    return reports_of_directory(options.store, options.output_uri, options.namespace or "default", options.name)


def read_targets(options: argparse.Namespace) -> tuple[Published, ...]:
    """Return the targets of the selected export.

    Raises:
        BadInput: the export does not exist.
    """
    return read_local(options) if options.store else of_cluster(choose_kubectl(options).read_export(options.name))


def open_store(options: argparse.Namespace) -> tuple[Body, Callable[[Sequence[str]], Mapping[str, Opener]]]:
    """Return an export of the cluster, and a function that returns the openers of its files by URI.

    Raises:
        BadInput: the export or an option is invalid.
    """
    if options.endpoint and not options.endpoint.startswith(("http://", "https://")):
        raise BadInput(f"--endpoint: {options.endpoint!r} is not a URL, for example http://127.0.0.1:9000")
    try:
        trust = ssl.create_default_context(cafile=options.ca_file)
    except OSError as error:
        raise BadInput(f"--ca-file: {options.ca_file} is not a file of certificates: {error}") from error
    kubectl = choose_kubectl(options)
    export = kubectl.read_export(options.name)

    def openers(uris: Sequence[str]) -> Mapping[str, Opener]:
        links = Signer(kubectl, export, options.endpoint).sign(uris)
        return {uri: open_url(link, trust) for uri, link in links.items()}

    return export, openers
