"""The product on the test cluster, installed with the chart, as users do, and with the images of this checkout."""

import json
from typing import Any

from testcluster.bootstrap import build_store_secret, kubectl
from testcluster.chart import CHART, NAMESPACE, RELEASE, helm
from testcluster.images import CONVERTER, OPERATOR, provide
from testcluster.layout import KUBECONFIG, REPOSITORY, STORE_ENDPOINT

SYSTEM_NAMESPACE = NAMESPACE
DEPLOYMENT = f"deployment/{RELEASE}"
STORE_SECRET = "modelexport-storage"
"""The Secret with the store's keys in the namespaces of exports."""
RESULTS = "exports"
"""The bucket of the default class."""


def provide_images() -> tuple[str, str]:
    """Build and import the images of operator and converter if they have changed; return their names.

    Raises:
        ClusterError: a step fails.
    """
    return provide(OPERATOR), provide(CONVERTER)


def build_values(operator: str, converter: str) -> dict[str, Any]:
    """Return the values of the chart for the test cluster."""
    repository, _, tag = operator.rpartition(":")
    storage = {
        "endpoint": STORE_ENDPOINT,
        "bucket": RESULTS,
        "credentialsSecretName": STORE_SECRET,
    }
    return {
        "image": {"repository": repository, "tag": tag},
        "exportClass": {"create": True, "spec": {"storage": storage, "converter": {"image": converter}}},
    }


def build_secret(namespace: str) -> str:
    """Return the Secret for access to MinIO from a namespace of exports, as JSON."""
    secret = build_store_secret(namespace)
    return json.dumps({**secret, "metadata": {"name": STORE_SECRET, "namespace": namespace}})


def run_helm(*arguments: str, **options: str) -> str:
    """Run Helm as administrator of the cluster, in the operator's namespace, and return its output.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    return helm(*arguments, f"--kubeconfig={KUBECONFIG}", f"--namespace={SYSTEM_NAMESPACE}", **options)


def install_operator(operator: str, converter: str) -> None:
    """Install or update custom resources, the operator and the default class, and wait until it is ready.

    Raises:
        subprocess.CalledProcessError: the API server refuses something, or the operator does not become ready.
    """
    kubectl("apply", "--server-side", "--force-conflicts", f"--filename={REPOSITORY / 'crds'}")
    kubectl(
        "wait", "--for=condition=Established", "crd/modelexports.modelexport.dev", "crd/exportclasses.modelexport.dev"
    )
    upgrade = ["upgrade", "--install", RELEASE, str(CHART), "--create-namespace", "--values=-"]
    run_helm(*upgrade, "--wait", "--timeout=300s", input=json.dumps(build_values(operator, converter)))
