"""Writes the SBOM of an image in CycloneDX format, from the content of its root file system.

It lists Debian packages, Python distributions, and a Python that is not from a package. For an image that was not built
here, unpack the output of ``docker export`` and run ``python -m testcluster.sbom NAME FOLDER``.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from importlib.metadata import distributions
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from testcluster import builder
from testcluster.layout import REPOSITORY

FOLDER = REPOSITORY / "build/sbom"
DPKG = "var/lib/dpkg"


def write(name: str, image: str) -> Path:
    """Write the SBOM of an image in buildah's store, and return its path."""
    with builder.mounted(image) as root:
        text = describe(f"modelexport-{name}", root)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"modelexport-{name}-image.cdx.json"
    path.write_text(text)
    return path


def describe(name: str, root: Path) -> str:
    """Return the SBOM of a root file system; the output is deterministic."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    bom = Bom(components=[*_debian(root), *_distributions(root), *_python(root)])
    image = Component(name=name, version=project["version"], type=ComponentType.CONTAINER, bom_ref=name)
    bom.metadata.component = image
    bom.register_dependency(image, bom.components)
    # Both are optional in CycloneDX and would change with every run; the library's types do not allow None.
    bom.metadata.timestamp = bom.serial_number = None  # type: ignore[assignment]
    return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"


def _debian(root: Path) -> Iterator[Component]:
    """Yield the Debian packages, from dpkg's list or from the files that distroless images have instead."""
    for path in sorted([root / DPKG / "status", *(root / DPKG / "status.d").glob("*")]):
        if path.is_file() and path.suffix != ".md5sums":
            for paragraph in path.read_text().split("\n\n"):
                package = Parser().parsestr(paragraph, headersonly=True)
                if _is_there(package):
                    yield _package(package)


def _is_there(package: Message) -> bool:
    return "Package" in package and "not-installed" not in package.get("Status", "")


def _package(package: Message) -> Component:
    qualifiers = {"arch": package["Architecture"]}
    return _component("deb", package["Package"], package["Version"], "debian", qualifiers)


def _distributions(root: Path) -> Iterator[Component]:
    folders = sorted(map(str, root.glob("**/python3*/site-packages")))
    for found in distributions(path=folders):
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        yield _component("pypi", name, found.version)


def _python(root: Path) -> Iterator[Component]:
    """Yield a Python that was built in the image, as in Docker's official images."""
    for header in sorted(root.glob("usr/local/include/python3.*/patchlevel.h")):
        [version] = re.findall(r'#define PY_VERSION\s+"([^"]+)"', header.read_text())
        yield _component("generic", "python", version)


def _component(
    kind: str, name: str, version: str, namespace: str | None = None, qualifiers: dict[str, str] | None = None
) -> Component:
    purl = PackageURL(kind, namespace, name, version, qualifiers)
    return Component(name=name, version=version, purl=purl, bom_ref=str(purl))


if __name__ == "__main__":
    print(describe(sys.argv[1], Path(sys.argv[2])), end="")
