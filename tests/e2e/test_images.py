"""The images of the project as the node has them."""

import json
from collections.abc import Callable

import pytest

from cluster import containerd
from cluster.images import CONVERTER, OPERATOR, provide
from e2e.test_cluster import build_job, run_job

LOOK = """
import importlib.util, json, os
there = {name: importlib.util.find_spec(name) is not None for name in ("kopf", "torch")}
print(json.dumps({"user": os.getuid(), **there}))
"""
MEGABYTE = 1_000_000


def test_the_operator_image_is_small(operator_image: str) -> None:
    transferred = sum(layer["size"] for layer in containerd.manifest_of(operator_image)["layers"])
    assert 20 * MEGABYTE < transferred < 200 * MEGABYTE


def test_the_operator_image_has_no_torch(kubectl: Callable[..., str], namespace: str, operator_image: str) -> None:
    run_job(kubectl, build_job(namespace, operator_image, LOOK), "Complete")
    found = json.loads(kubectl("logs", "job/job", f"--namespace={namespace}"))
    assert found == {"user": 65532, "kopf": True, "torch": False}


def test_with_nothing_changed_nothing_is_built_or_imported(
    operator_image: str, converter_image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {image: containerd.manifest_of(image) for image in (operator_image, converter_image)}
    capsys.readouterr()
    assert [provide(OPERATOR), provide(CONVERTER)] == [operator_image, converter_image]
    assert capsys.readouterr().out == ""
    assert {image: containerd.manifest_of(image) for image in before} == before


@pytest.mark.parametrize("image", ["operator_image", "converter_image"])
def test_an_image_starts_what_it_is_for_as_nobody(image: str, request: pytest.FixtureRequest) -> None:
    config = containerd.config_of(request.getfixturevalue(image))["config"]
    module = {"operator_image": "modelexport_operator", "converter_image": "modelexport_converter"}[image]
    assert config["Entrypoint"] == ["python", "-m", module]
    assert config["User"] == "65532:65532"
