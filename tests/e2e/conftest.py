"""The real test cluster and what runs on it, as fixtures.

A cluster that runs already is used and stays; one that the tests brought up ends with them. All tests of a session
share one node, therefore this folder does not run in parallel processes.
"""

import io
import json
import uuid
from collections.abc import Callable, Iterator

import pytest
from minio import Minio

from cluster import installation, lifecycle
from cluster.bootstrap import build_store_secret, kubectl, store_credentials
from cluster.images import CONVERTER, OPERATOR, provide
from cluster.layout import MINIO_HOST
from e2e.support import INPUTS, RESULTS, Workspace, workspace
from e2e.support_inputs import build_inputs

Kubectl = Callable[..., str]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "ends_cluster: ends the cluster and brings it up again; runs last")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("ends_cluster") is not None)


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A cluster that answers."""
    begun = lifecycle.up()
    yield
    if begun:
        lifecycle.down()


@pytest.fixture(scope="session", name="kubectl")
def administrator(cluster: None) -> Kubectl:
    """``kubectl(*arguments, input=...)``, which returns what kubectl prints and raises CalledProcessError."""
    return kubectl


@pytest.fixture
def namespace(cluster: None) -> Iterator[str]:
    """A new namespace that admits restricted Pods only and holds the Secret with MinIO's credentials."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    kubectl("create", "--filename=-", input=json.dumps(body))
    kubectl("create", "--filename=-", input=json.dumps(build_store_secret(name)))
    kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=120s")
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def minio(cluster: None) -> Minio:
    """A client of the cluster's MinIO with all rights; Pods reach it as minio.default.svc.cluster.local:9000."""
    access_key, secret_key = store_credentials()
    return Minio(MINIO_HOST, access_key=access_key, secret_key=secret_key, secure=False)


@pytest.fixture(scope="session")
def operator_image(cluster: None) -> str:
    """The name of the operator's image, which the node has."""
    return provide(OPERATOR)


@pytest.fixture(scope="session")
def converter_image(cluster: None) -> str:
    """The name of the converter's image, which the node has."""
    return provide(CONVERTER)


@pytest.fixture(scope="session")
def product(operator_image: str, converter_image: str, minio: Minio) -> str:
    """The operator, installed by the chart, and the files that the tests export; returns the converter's image."""
    installation.install_operator(operator_image, converter_image)
    for bucket in (INPUTS, RESULTS):
        if not minio.bucket_exists(bucket_name=bucket):
            minio.make_bucket(bucket_name=bucket)
    for name, content in build_inputs().items():
        minio.put_object(bucket_name=INPUTS, object_name=name, data=io.BytesIO(content), length=len(content))
    return converter_image


@pytest.fixture
def space(product: str) -> Iterator[Workspace]:
    """A namespace for the exports of one test."""
    with workspace(product) as made:
        yield made
