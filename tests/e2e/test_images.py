"""The images of the project as the node has them."""

import json
from collections.abc import Callable

import pytest

from e2e.test_cluster import build_job, run_job
from testcluster import containerd, sbom
from testcluster.images import CONVERTER, OPERATOR, build, provide

pytestmark = pytest.mark.own_cluster("images that the tests build and import")

LOOK = """
import importlib.util, json, os
size = 0
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if not os.path.ismount(os.path.join(folder, name))]
    size += sum(os.lstat(os.path.join(folder, name)).st_size for name in files)
there = {name: importlib.util.find_spec(name) is not None for name in ("kopf", "torch")}
print(json.dumps({"user": os.getuid(), "shell": os.path.exists("/bin/sh"), "size": size, **there}))
"""
MEGABYTE = 1_000_000


def test_operator_image_is_small_without_torch_or_shell(
    kubectl: Callable[..., str], namespace: str, operator_image: str
) -> None:
    run_job(kubectl, build_job(namespace, operator_image, LOOK), "Complete")
    found = json.loads(kubectl("logs", "job/job", f"--namespace={namespace}"))
    assert 100 * MEGABYTE < found.pop("size") < 200 * MEGABYTE
    assert found == {"user": 65532, "kopf": True, "torch": False, "shell": False}
    transferred = sum(layer["size"] for layer in containerd.manifest_of(operator_image)["layers"])
    assert 20 * MEGABYTE < transferred < 80 * MEGABYTE


def test_operator_image_sbom_lists_lock_and_base_image() -> None:
    parts = json.loads(sbom.write("operator", build(OPERATOR)).read_text())["components"]
    python, debian = (
        {f"{part['name']}=={part['version']}" for part in parts if part["purl"].startswith(f"pkg:{kind}/")}
        for kind in ("pypi", "deb")
    )
    lines = OPERATOR.lock.read_text().splitlines()
    assert python == {line.split()[0] for line in lines if "==" in line and not line.startswith(" ")}
    found = {name.split("==")[0] for name in debian}
    assert found >= {"libc6", "libssl3", "python3.11-minimal", "zlib1g"}
    assert not found & {"dpkg", "tar"}


def test_unchanged_sources_rebuild_and_import_nothing(
    operator_image: str, converter_image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {image: containerd.manifest_of(image) for image in (operator_image, converter_image)}
    capsys.readouterr()
    assert [provide(OPERATOR), provide(CONVERTER)] == [operator_image, converter_image]
    assert capsys.readouterr().out == ""
    assert {image: containerd.manifest_of(image) for image in before} == before


@pytest.mark.parametrize("image", ["operator_image", "converter_image"])
def test_image_runs_its_command_as_nobody(image: str, request: pytest.FixtureRequest) -> None:
    config = containerd.config_of(request.getfixturevalue(image))["config"]
    module = {"operator_image": "modelexport_operator", "converter_image": "modelexport_converter"}[image]
    assert config["Entrypoint"] == ["python", "-m", module]
    assert config["User"] == "65532:65532"
