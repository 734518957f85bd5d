"""Exports whose files are deleted with them: published, looked for in the store, deleted while their store is gone."""

from minio import Minio

from e2e.support import RESULTS, Workspace, build_export
from testcluster.layout import NODE_ADDRESS
from testcluster.shell import wait_until

FINALIZER = "modelexport.dev/files"


def stored(minio: Minio, prefix: str) -> set[str]:
    """Return the names of the objects below a prefix."""
    found = minio.list_objects(bucket_name=RESULTS, prefix=prefix, recursive=True)
    return {str(item.object_name).rpartition("/")[2] for item in found}


def publish(space: Workspace, **storage: str) -> str:
    """Publish an export whose files are deleted with it, and return its class."""
    class_name = space.create_class(storage={"prefix": "teams/{namespace}", **storage})
    space.apply(build_export("model", className=class_name, deletionPolicy="Delete"))
    space.wait("mx/model", "condition=Ready")
    assert space.read("mx/model")["metadata"]["finalizers"] == [FINALIZER]
    return class_name


def file_events(space: Workspace) -> list[tuple[str, str, str]]:
    """The events about the files of a deleted export; they follow a moment after its finalizer is removed."""

    def events() -> list[tuple[str, str, str]]:
        return [event for event in space.events("model") if event[1].startswith("Files")]

    wait_until("the end to be told", lambda: bool(events()))
    return events()


def open_store(space: Workspace) -> str:
    """Give the store a second Service, which can be removed, and return its endpoint."""
    spec = {"ports": [{"name": "s3", "port": 9000}]}
    labels = {"kubernetes.io/service-name": "store", "endpointslice.kubernetes.io/managed-by": "test"}
    space.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "store"}, "spec": spec},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "store", "labels": labels},
            "addressType": "IPv4",
            **spec,
            "endpoints": [{"addresses": [NODE_ADDRESS]}],
        },
    )
    return f"http://store.{space.name}.svc.cluster.local:9000"


def begin_without_store(space: Workspace) -> None:
    """Begin to delete an export whose store is gone; its files are asked for during minutes."""
    publish(space, endpoint=open_store(space))
    space.kubectl("delete", "endpointslice/store")
    space.kubectl("delete", "mx/model", "--wait=false")
