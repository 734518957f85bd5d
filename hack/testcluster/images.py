"""Builds the project's images from their Dockerfiles and imports changed layers into the node.

The tag of an image is the digest of its inputs, so nothing is built or imported twice. The locked dependencies are a
separate image, built, compressed and imported when a lock changes; the image with the code is built on top of it, and
only its own layers are imported.
"""

from dataclasses import dataclass
from pathlib import Path

from testcluster import builder, containerd, oci
from testcluster.layout import CACHE, REPOSITORY, digest_of
from testcluster.shell import exclusive, require_disk, scratch_folder, timed


@dataclass(frozen=True)
class ImageSpec:
    """The inputs of an image, and the maximum disk space of its first build in GiB."""

    name: str
    dockerfile: Path
    base: builder.Base
    lock: Path
    sources: tuple[Path, ...]
    gib: float

    @property
    def dependencies(self) -> str:
        """Name of the image with only the locked dependencies."""
        digest = digest_of([self.dockerfile, self.lock], self.base.image)
        return f"modelexport.dev/{self.name}-dependencies:{digest}"

    @property
    def image(self) -> str:
        """Name of the image with dependencies and code."""
        files = [path for source in self.sources for path in source.rglob("*") if is_source(path)]
        return f"modelexport.dev/{self.name}:{digest_of(files, self.dependencies)}"


OPERATOR = ImageSpec(
    "operator",
    REPOSITORY / "operator/Dockerfile",
    builder.PYTHON_ONLY,
    REPOSITORY / "requirements/operator.txt",
    (REPOSITORY / "sdk/src", REPOSITORY / "operator/src"),
    gib=3,
)
CONVERTER = ImageSpec(
    "converter",
    REPOSITORY / "converter-image/Dockerfile",
    builder.WITH_SHELL,
    REPOSITORY / "requirements/converter.txt",
    (REPOSITORY / "sdk/src", REPOSITORY / "converter-image/src"),
    gib=18,
)


def is_source(path: Path) -> bool:
    """Return whether a file goes into an image, as in ``.dockerignore``."""
    return path.is_file() and "__pycache__" not in path.parts


def provide(spec: ImageSpec) -> str:
    """Build and import an image unless the node has it, and return its name.

    Raises:
        ClusterError: there is no room, or a step fails; the message ends with its last lines.
    """
    with exclusive("images"):
        image, dependencies = spec.image, spec.dependencies
        present = containerd.images()
        if image not in present:
            if dependencies not in present:
                provide_dependencies(spec, dependencies)
            provide_code(spec, image, dependencies)
    return image


def build(spec: ImageSpec) -> str:
    """Build an image unless buildah has it, without a node, and return its name.

    Raises:
        ClusterError: there is no room, or a step fails; the message ends with its last lines.
    """
    with exclusive("images"):
        image = spec.image
        if image not in builder.images():
            build_from_lock(spec, image)
    return image


def build_from_lock(spec: ImageSpec, image: str, target: str | None = None) -> None:
    """Build an image, or one stage of it, with all its base images and downloads."""
    require_disk(CACHE, spec.gib, f"the {spec.name} image")
    builder.provide_base(spec.base)
    with timed(f"building {image}"):
        builder.fill_cache(spec.lock)
        builder.build(spec.dockerfile, spec.base, image, target)


def provide_dependencies(spec: ImageSpec, dependencies: str) -> None:
    """Build and import the image with the locked dependencies; remove those of earlier locks first, they are large."""
    drop(f"modelexport.dev/{spec.name}-dependencies:")
    drop(f"modelexport.dev/{spec.name}:")
    build_from_lock(spec, dependencies, target="dependencies")
    with timed(f"importing the dependencies of the {spec.name} image"), scratch_folder("layout") as layout:
        builder.push(dependencies, layout, "--compression-format=zstd", "--compression-level=3")
        oci.import_layout(layout, dependencies)


def provide_code(spec: ImageSpec, image: str, dependencies: str) -> None:
    """Build the image with the code on top of the dependencies, and import its own layers."""
    with timed(f"building and importing {image}"), scratch_folder("layout") as layout:
        builder.build(spec.dockerfile, spec.base, image)
        oci.expect_layers(layout, dependencies)
        builder.push(image, layout, "--disable-compression")
        oci.share_layers(layout, dependencies)
        oci.import_layout(layout, image)
    drop(f"modelexport.dev/{spec.name}:", image)


def drop(repository: str, kept: str | None = None) -> None:
    """Remove all images of a repository but one from node and builder; running containers are not affected."""
    for store in (containerd, builder):
        store.remove([image for image in store.images() if image.startswith(repository) and image != kept])
