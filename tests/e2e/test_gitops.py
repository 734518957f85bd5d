"""The real Argo CD on the real node: a class and an export in a git repository become a file."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from e2e.support import CLASSIFIER, RESULTS, SECONDS, Workspace, build_class, build_export
from integration.argocd import NAMESPACE, Application, State, in_wave, start_argocd
from testcluster.bootstrap import kubectl
from testcluster.credentials import CA_FILE
from testcluster.layout import API_SERVER
from testplane.control_plane import ControlPlane, write_kubeconfig

pytestmark = pytest.mark.own_cluster("the certificates of the test cluster")

ADMINISTRATOR = "argocd-administrator"
OURS = "--selector=app.kubernetes.io/part-of=argocd"


@pytest.fixture(scope="module")
def plane(product: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The control plane of the cluster, with Argo CD, which goes with its definitions."""
    kubectl("create", "serviceaccount", ADMINISTRATOR)
    role = ["--clusterrole=cluster-admin", f"--serviceaccount=default:{ADMINISTRATOR}"]
    kubectl("create", "clusterrolebinding", ADMINISTRATOR, *role)
    token = kubectl("create", "token", ADMINISTRATOR, "--duration=1h").strip()
    plane = ControlPlane(API_SERVER, tmp_path_factory.mktemp("plane"), token)
    plane.certificate.parent.mkdir()
    shutil.copy(CA_FILE, plane.certificate)
    write_kubeconfig(plane.kubeconfig, plane.address, plane.certificate, token)
    try:
        with start_argocd(plane, tmp_path_factory.mktemp("argocd")):
            yield plane
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")
        kubectl("delete", "crds", OURS)
        kubectl("delete", "clusterrolebinding,serviceaccount", ADMINISTRATOR)


def is_stored(minio: Minio, uri: str) -> bool:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return any(found.object_name == key for found in minio.list_objects(bucket_name=bucket, prefix=key))


def test_argo_cd_syncs_export_to_published_file_and_prunes_it(
    space: Workspace, plane: ControlPlane, minio: Minio, tmp_path: Path
) -> None:
    application = Application(plane, space.name, tmp_path)
    body = build_class(f"{space.name}-git", space.image)
    body["metadata"]["labels"] = {"workspace": space.name}
    export = build_export("model", className=f"{space.name}-git", deletionPolicy="Delete")
    application.commit({"class.yaml": in_wave(1, body), "export.yaml": in_wave(2, export)})
    application.create()
    with application.recorded() as states:
        application.wait_for("Synced", "Healthy", SECONDS)
    synced = states[[state.sync for state in states].index("Synced") :]
    assert synced == [State("Synced", "Progressing"), State("Synced", "Healthy")]
    file = space.target("model")["artifact"]["uri"]
    assert file.startswith(f"s3://{RESULTS}/{space.name}/model/")
    assert is_stored(minio, file)
    application.refresh("hard")
    application.wait_for("Synced", "Healthy")

    wrong = build_export("wrong", className=f"{space.name}-git")
    wrong["spec"]["model"]["checkpoint"]["uri"] = f"{CLASSIFIER}.missing"
    application.commit({"wrong.yaml": in_wave(2, wrong)})
    application.refresh()
    application.wait_for("Synced", "Degraded", SECONDS)
    assert "CheckpointNotFound" in application.health_of("wrong")["message"]

    application.commit({"wrong.yaml": None, "export.yaml": None})
    application.refresh()
    application.wait_for("Synced", "Healthy", SECONDS)
    space.kubectl("wait", "--for=delete", "mx", "--all", f"--timeout={SECONDS}s")
    assert not is_stored(minio, file)
