"""A control plane, a proxy before it and a namespace in it, for the suites that need them."""

import uuid
from collections.abc import Iterator

import pytest

from integration.proxy import Proxy, start_proxy
from testplane.api import CLASSES, Api
from testplane.control_plane import ControlPlane, start_control_plane
from testplane.installation import install_definitions
from testplane.objects import make_class


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with our definitions and the operator's rights installed."""
    with start_control_plane(tmp_path_factory.mktemp("plane")) as plane:
        install_definitions(plane)
        Api(plane, "default").create(CLASSES, make_class())
        yield plane


@pytest.fixture
def api(plane: ControlPlane) -> Iterator[Api]:
    """A new namespace that admits only Pods of the restricted level."""
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api = Api(plane, namespace)
    api.create("/api/v1/namespaces", {"metadata": {"name": namespace, "labels": labels}})
    yield api
    api.delete("/api/v1/namespaces", namespace)


@pytest.fixture(scope="session")
def proxy(plane: ControlPlane) -> Iterator[Proxy]:
    with start_proxy(plane) as proxy:
        yield proxy
