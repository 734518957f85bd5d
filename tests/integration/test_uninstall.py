"""Exports that outlive their operator: the commands of the page remove them."""

import re
import shlex

import pytest

from modelexport.names import FINALIZER
from testcluster.layout import REPOSITORY
from testplane.api import EXPORTS, Api, ApiError
from testplane.control_plane import ControlPlane
from testplane.objects import make_export


def commands(api: Api) -> list[list[str]]:
    """The patches of the page for an export of the test: one for use before, one for use after uninstalling."""
    section = (REPOSITORY / "docs/operator.md").read_text().split("## Uninstalling\n")[1].split("\n## ")[0]
    found = re.findall(r"^    kubectl (patch mx NAME [^']*'[^']*')$", section, re.MULTILINE)
    return [shlex.split(words.replace("NAMESPACE", api.namespace).replace("NAME", "shapes")) for words in found]


def delete(api: Api, *finalizers: str) -> None:
    body = make_export("ONNX/FP16", deletionPolicy="Delete")
    body["metadata"] = {"name": "shapes", "finalizers": list(finalizers)}
    api.create(EXPORTS, body)
    api.delete(EXPORTS, "shapes")
    assert api.get(EXPORTS, "shapes")["metadata"]["deletionTimestamp"]


def test_removing_finalizer_deletes_export_without_operator(plane: ControlPlane, api: Api) -> None:
    delete(api, FINALIZER)
    _, way_out = commands(api)
    plane.kubectl(*way_out)
    with pytest.raises(ApiError, match="not found"):
        api.get(EXPORTS, "shapes")


def test_foreign_finalizer_stays(plane: ControlPlane, api: Api) -> None:
    delete(api, "example.com/of-others", FINALIZER)
    _, way_out = commands(api)
    with pytest.raises(AssertionError, match="The request is invalid"):
        plane.kubectl(*way_out)
    plane.kubectl(*(word.replace("finalizers/0", "finalizers/1") for word in way_out))
    assert api.get(EXPORTS, "shapes")["metadata"]["finalizers"] == ["example.com/of-others"]
    api.patch(f"{EXPORTS}/shapes", {"metadata": {"finalizers": []}})


def test_export_can_retain_files_before_uninstall(plane: ControlPlane, api: Api) -> None:
    delete(api, FINALIZER)
    before, way_out = commands(api)
    plane.kubectl(*before)
    assert api.get(EXPORTS, "shapes")["spec"]["deletionPolicy"] == "Retain"
    plane.kubectl(*way_out)
