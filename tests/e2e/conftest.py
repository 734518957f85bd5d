"""Fixtures for the real test cluster and the product on it, or for a foreign cluster (see ``testcluster.foreign``).

A running cluster is used and stays; a cluster that the tests brought up ends with them. All tests of a session share
one node, so this folder does not run in parallel processes.
"""

import io
import json
from collections.abc import Callable, Iterator

import pytest
from minio import Minio

from e2e import deletions, faulty_exports
from e2e.support import INPUTS, RESULTS, Workspace, create_namespace, open_workspace, workspace
from e2e.support_inputs import build_inputs
from testcluster import installation, lifecycle
from testcluster.bootstrap import build_store_secret, kubectl, store_credentials
from testcluster.foreign import FOREIGN
from testcluster.images import CONVERTER, OPERATOR, provide
from testcluster.layout import STORE_ADDRESS, STORE_ENDPOINT

Kubectl = Callable[..., str]
BEGUN = {"begun_deletion", "begun_faults"}
"""Fixtures that begin what mostly waits; they start with the first test, and the tests that use them come late."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "changes_definitions: installs older definitions for a while; runs late")
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
    late = ("ends_cluster", "changes_definitions")
    items.sort(key=lambda item: ([item.get_closest_marker(name) is not None for name in late], bool(begun_by(item))))


def begun_by(item: pytest.Item) -> set[str]:
    """Return the fixtures of ``BEGUN`` that a test uses."""
    return BEGUN & set(item.fixturenames) if isinstance(item, pytest.Function) else set()


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
    name = create_namespace("test")
    kubectl("create", "--filename=-", input=json.dumps(build_store_secret(name)))
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


@pytest.fixture(scope="session")
def begun_faults(product: str, minio: Minio) -> Workspace:
    """A namespace with exports that fail, some of them only after minutes."""
    space = open_workspace(product)
    faulty_exports.begin(space, minio)
    return space


@pytest.fixture(scope="session")
def begun_deletion(product: str) -> Workspace:
    """A namespace with an export that is being deleted while its store is gone, which takes minutes."""
    space = open_workspace(product)
    deletions.begin_without_store(space)
    return space


@pytest.fixture(scope="session", autouse=True)
def begun(request: pytest.FixtureRequest) -> None:
    """Begin what mostly waits before the first test, so that it waits beside the others, if its tests are chosen."""
    chosen = (item for item in request.session.items if not item.get_closest_marker("skip"))
    for name in sorted({name for item in chosen for name in begun_by(item)}):
        request.getfixturevalue(name)


@pytest.fixture
def space(product: str) -> Iterator[Workspace]:
    """A namespace for the exports of one test."""
    with workspace(product) as made:
        yield made
