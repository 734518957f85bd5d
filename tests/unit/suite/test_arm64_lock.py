"""The lock of the converter for arm64 and the support matrix say the same: what converts there, by which packages."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from modelexport.matrix.support import ARCHITECTURES, BACKENDS, Format

LOCKS = Path(__file__).parents[3] / "requirements"
ARM64_BUILDS = {"tensorflow": "tensorflow-cpu"}
"""Packages of one build, by the name of the build that amd64 has."""
IMAGES_AND_LABELS = ("pillow", "pycocotools")


def read_lock(name: str) -> Mapping[str, str]:
    """The versions of a lock by package."""
    return dict(re.findall(r"^([\w.-]+)==([^ ;\\]+)", (LOCKS / name).read_text(encoding="utf-8"), re.MULTILINE))


AMD64, ARM64 = read_lock("converter.txt"), read_lock("converter-arm64.txt")


@pytest.mark.parametrize("fmt", BACKENDS)
def test_format_converts_on_arm64_if_the_lock_has_its_tools(fmt: Format) -> None:
    backend = BACKENDS[fmt]
    assert ("arm64" in backend.cpu_architectures) == (ARM64.keys() >= {*backend.tools})


def test_arm64_has_what_networks_images_and_labels_need() -> None:
    tools = {tool for row in ARCHITECTURES.values() for tool in row.tools}
    assert ARM64.keys() >= {*tools, *IMAGES_AND_LABELS}


def test_packages_have_the_same_versions_on_amd64_and_arm64() -> None:
    builds = {package: ARM64_BUILDS.get(package, package) for package in ARM64}
    assert dict(ARM64) == {package: AMD64.get(build) for package, build in builds.items()}


def test_locks_of_converter_hold_digests_alone() -> None:
    text = (LOCKS / "converter-arm64.txt").read_text(encoding="utf-8")
    pinned = re.findall(r"^[\w.-]+==\S+ \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", text, re.MULTILINE)
    assert len(pinned) == len(ARM64)
    assert "".join(pinned) == text
