"""The bills of materials: what is locked is listed, with its digests, and nothing else."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ("operator", "converter")


@pytest.fixture(scope="module")
def bills() -> dict[str, dict[str, Any]]:
    """The bill of each image, as ``make`` writes it."""
    subprocess.run(["make", "--silent", "sbom"], cwd=ROOT, check=True, capture_output=True)
    folder = ROOT / "build/sbom"
    return {image: json.loads((folder / f"modelexport-{image}.cdx.json").read_text()) for image in IMAGES}


def locked(image: str) -> dict[str, set[str]]:
    """The digests of each locked package, by its name and version."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / f"requirements/{image}.txt").read_text().splitlines():
        if pinned := re.match(r"([\w.-]+)==([\w.+!-]+)", line):
            package = f"pkg:pypi/{pinned[1]}@{pinned[2]}"
            found[package] = set()
        found[package] |= set(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
    return found


def digests(component: dict[str, Any]) -> set[str]:
    hashes = [digest for reference in component["externalReferences"] for digest in reference.get("hashes", ())]
    return {digest["content"] for digest in hashes if digest["alg"] == "SHA-256"}


@pytest.mark.parametrize("image", IMAGES)
def test_a_bill_lists_every_locked_package_with_its_digests(bills: dict[str, dict[str, Any]], image: str) -> None:
    bill = bills[image]
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "modelexport"
    assert {part["purl"].replace("%2B", "+"): digests(part) for part in bill["components"]} == locked(image)


def test_the_operator_brings_no_torch_and_the_converter_no_framework_of_operators() -> None:
    operator, converter = ({package.split("/")[1].split("@")[0] for package in locked(image)} for image in IMAGES)
    assert "torch" in converter - operator
    assert "kopf" in operator - converter
