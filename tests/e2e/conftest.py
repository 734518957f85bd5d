"""Fixtures for the real test cluster and the product on it, or for a foreign cluster (see ``testcluster.foreign``).

A running cluster is used and stays; a cluster that the tests brought up ends with them. All tests of a session share
one node, so this folder does not run in parallel processes.
"""

import io
import json
import uuid
from collections.abc import Callable, Iterator

import pytest
from minio import Minio

from e2e.support import INPUTS, RESULTS, Workspace, workspace
from e2e.support_inputs import build_inputs
from testcluster import installation, lifecycle
from testcluster.bootstrap import build_store_secret, kubectl, store_credentials
from testcluster.foreign import FOREIGN
from testcluster.images import CONVERTER, OPERATOR, provide
from testcluster.layout import STORE_ADDRESS, STORE_ENDPOINT

Kubectl = Callable[..., str]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "ends_cluster: ends the cluster and brings it up again; runs last")
    config.addinivalue_line("markers", "own_cluster(need): is skipped on a foreign cluster, for what it needs of ours")
    if FOREIGN and (missing := FOREIGN.missing()):
        raise pytest.UsageError(
            f"KUBECONFIG names a cluster to test on: set {', '.join(missing)} as well (CONTRIBUTING.md says to what), "
            "or unset KUBECONFIG to test on a cluster that the tests bring up"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items if FOREIGN else ():
        if mark := item.get_closest_marker("own_cluster"):
            item.add_marker(pytest.mark.skip(reason=f"not on a foreign cluster: it needs {mark.args[0]}"))
    items.sort(key=lambda item: item.get_closest_marker("ends_cluster") is not None)


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A cluster that answers."""
    begun = not FOREIGN and lifecycle.up()
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
    """A client of the store with all rights; Pods reach the same store at ``STORE_ENDPOINT``."""
    access_key, secret_key = store_credentials()
    is_secure = STORE_ENDPOINT.startswith("https:")
    return Minio(STORE_ADDRESS, access_key=access_key, secret_key=secret_key, secure=is_secure)


@pytest.fixture(scope="session")
def operator_image(cluster: None) -> str:
    """The name of the operator's image, which the node holds or pulls."""
    return FOREIGN.operator_image if FOREIGN else provide(OPERATOR)


@pytest.fixture(scope="session")
def converter_image(cluster: None) -> str:
    """The name of the converter's image, which the node holds or pulls."""
    return FOREIGN.converter_image if FOREIGN else provide(CONVERTER)


@pytest.fixture(scope="session")
def product(operator_image: str, converter_image: str, minio: Minio) -> str:
    """Install the operator by its chart and upload the files that the tests export; return the converter's image."""
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
