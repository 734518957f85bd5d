"""The SBOMs: of a lock, with its digests, and of a root file system."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from testcluster.sbom import describe

ROOT = Path(__file__).parents[2]
IMAGES = ("operator", "converter", "converter-arm64")


@pytest.fixture(scope="module")
def sboms() -> dict[str, dict[str, Any]]:
    """The SBOM of each image, as ``make`` writes it."""
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
def test_sbom_lists_every_locked_package_with_digests(sboms: dict[str, dict[str, Any]], image: str) -> None:
    sbom = sboms[image]
    assert sbom["bomFormat"] == "CycloneDX"
    assert sbom["metadata"]["component"]["name"] == "modelexport"
    assert {part["purl"].replace("%2B", "+"): digests(part) for part in sbom["components"]} == locked(image)


def test_operator_sbom_has_no_torch_and_converter_no_kubernetes() -> None:
    operator, converter, _ = ({package.split("/")[1].split("@")[0] for package in locked(image)} for image in IMAGES)
    assert "torch" in converter - operator
    assert "kopf" in operator - converter


def lay(root: Path, files: dict[str, str]) -> Path:
    """Write files as in the root file system of an image."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def package(name: str, version: str, status: str = "") -> str:
    return (
        f"Package: {name}\n{status}Architecture: amd64\nVersion: {version}\nDescription: what it is\n more of it\n .\n"
    )


LIBRARY = {
    "opt/venv/lib/python3.11/site-packages/Some_Library-1.2.dist-info/METADATA": "Name: Some_Library\nVersion: 1.2\n"
}
GONE = package("gone", "1", "Status: deinstall ok not-installed\n")
HEADER = '#define PY_MAJOR_VERSION 3\n#define PY_VERSION             "3.11.9"\n'
ROOTS = {
    "Debian's": (
        {"var/lib/dpkg/status": f"{package('libc6', '2.36-9+deb12u9')}\n{GONE}\n{package('zlib1g', '1:1.2.13')}"},
        {"pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64", "pkg:deb/debian/zlib1g@1:1.2.13?arch=amd64"},
    ),
    "a distroless one": (
        {
            "var/lib/dpkg/status": "",
            "var/lib/dpkg/status.d/libssl3": package("libssl3", "3.0.15"),
            "var/lib/dpkg/status.d/libssl3.md5sums": "d41d8cd98f00b204e9800998ecf8427e  usr/lib/libssl.so.3\n",
        },
        {"pkg:deb/debian/libssl3@3.0.15?arch=amd64"},
    ),
    "one with a Python of its own": (
        {"usr/local/include/python3.11/patchlevel.h": HEADER},
        {"pkg:generic/python@3.11.9"},
    ),
}


@pytest.mark.parametrize("name", ROOTS)
def test_image_sbom_lists_everything_in_image(name: str, tmp_path: Path) -> None:
    files, expected = ROOTS[name]
    root = lay(tmp_path, {**LIBRARY, **files})
    text = describe("modelexport-operator", root)
    sbom = json.loads(text)
    assert sbom["bomFormat"] == "CycloneDX"
    assert sbom["metadata"]["component"]["name"] == "modelexport-operator"
    assert {part["purl"] for part in sbom["components"]} == {"pkg:pypi/some-library@1.2", *expected}
    assert describe("modelexport-operator", root) == text
