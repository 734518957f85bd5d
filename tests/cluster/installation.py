"""The product on the test cluster, installed as users do: from crds/ and deploy/, with the images of this checkout."""

import json

from cluster.bootstrap import build_store_secret, kubectl
from cluster.images import CONVERTER, OPERATOR, provide
from cluster.layout import REPOSITORY

SYSTEM_NAMESPACE = "modelexport-system"
DEPLOYMENT = "deployment/modelexport-operator"
STORE_SECRET = "modelexport-storage"
"""The Secret that deploy/exportclass.yaml names."""


def provide_images() -> dict[str, str]:
    """Build and import both images as far as anything changed; return by the name in deploy/ the one to use.

    Raises:
        ClusterError: a step fails.
    """
    return {f"modelexport.dev/{recipe.name}:dev": provide(recipe) for recipe in (OPERATOR, CONVERTER)}


def read_manifest(path: str, images: dict[str, str]) -> str:
    """Return a manifest of the repository that names the given images."""
    text = (REPOSITORY / path).read_text()
    for name, image in images.items():
        text = text.replace(name, image)
    return text


def build_secret(namespace: str) -> str:
    """Return the Secret with which the exports of a namespace use MinIO, as JSON."""
    secret = build_store_secret(namespace)
    return json.dumps({**secret, "metadata": {"name": STORE_SECRET, "namespace": namespace}})


def install_operator(images: dict[str, str]) -> None:
    """Install or update custom resources, permissions and the operator, and wait until it is ready.

    Raises:
        subprocess.CalledProcessError: the API server refuses something, or the operator does not become ready.
    """
    kubectl("apply", f"--filename={REPOSITORY / 'crds'}")
    kubectl(
        "wait", "--for=condition=Established", "crd/modelexports.modelexport.dev", "crd/exportclasses.modelexport.dev"
    )
    for path in ("deploy/namespace.yaml", "deploy/rbac.yaml", "deploy/operator.yaml"):
        kubectl("apply", "--filename=-", input=read_manifest(path, images))
    kubectl("rollout", "status", DEPLOYMENT, f"--namespace={SYSTEM_NAMESPACE}", "--timeout=120s")
