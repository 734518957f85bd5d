"""The project's images on the node, built from its Dockerfiles and imported only as far as anything changed.

The tag of an image is the digest of everything that goes into it, so nothing is built or imported twice. The locked
dependencies are an image of their own, built, compressed and imported when a lock changes; the image with the code is
built on top of it, and only its own layers are imported.
"""

from dataclasses import dataclass
from pathlib import Path

from cluster import builder, containerd, oci
from cluster.layout import CACHE, REPOSITORY, digest_of
from cluster.shell import exclusive, require_disk, scratch_folder, timed


@dataclass(frozen=True)
class Recipe:
    """What goes into an image, and the disk in GiB that its first build takes at most."""

    name: str
    dockerfile: Path
    base: builder.Base
    lock: Path
    sources: tuple[Path, ...]
    gib: float

    @property
    def dependencies(self) -> str:
        """The name of the image that holds the locked dependencies only."""
        digest = digest_of([self.dockerfile, self.lock], self.base.image)
        return f"modelexport.dev/{self.name}-dependencies:{digest}"

    @property
    def image(self) -> str:
        """The name of the image that holds dependencies and code."""
        files = [path for source in self.sources for path in source.rglob("*") if is_source(path)]
        return f"modelexport.dev/{self.name}:{digest_of(files, self.dependencies)}"


OPERATOR = Recipe(
    "operator",
    REPOSITORY / "operator/Dockerfile",
    builder.PYTHON_ONLY,
    REPOSITORY / "requirements/operator.txt",
    (REPOSITORY / "operator/src",),
    gib=3,
)
CONVERTER = Recipe(
    "converter",
    REPOSITORY / "converter-image/Dockerfile",
    builder.WITH_SHELL,
    REPOSITORY / "requirements/converter.txt",
    (REPOSITORY / "operator/src/modelexport", REPOSITORY / "converter-image/src/modelexport_converter"),
    gib=18,
)


def is_source(path: Path) -> bool:
    """Tell whether a file goes into an image; ``.dockerignore`` says the same."""
    return path.is_file() and "__pycache__" not in path.parts


def provide(recipe: Recipe) -> str:
    """Build and import an image unless the node has it, and return its name.

    Raises:
        ClusterError: there is no room, or a step fails; the message ends with its last lines.
    """
    with exclusive("images"):
        image, dependencies = recipe.image, recipe.dependencies
        present = containerd.images()
        if image not in present:
            if dependencies not in present:
                provide_dependencies(recipe, dependencies)
            provide_code(recipe, image, dependencies)
    return image


def build(recipe: Recipe) -> str:
    """Build an image unless buildah has it, without a node, and return its name.

    Raises:
        ClusterError: there is no room, or a step fails; the message ends with its last lines.
    """
    with exclusive("images"):
        image = recipe.image
        if image not in builder.images():
            build_from_lock(recipe, image)
    return image


def build_from_lock(recipe: Recipe, image: str, target: str | None = None) -> None:
    """Build an image, or one stage of it, with everything that it is made from."""
    require_disk(CACHE, recipe.gib, f"the {recipe.name} image")
    builder.provide_base(recipe.base)
    with timed(f"building {image}"):
        builder.fill_cache(recipe.lock)
        builder.build(recipe.dockerfile, recipe.base, image, target)


def provide_dependencies(recipe: Recipe, dependencies: str) -> None:
    """Build and import the image with the locked dependencies; those of the lock before go first, they are large."""
    drop(f"modelexport.dev/{recipe.name}-dependencies:")
    drop(f"modelexport.dev/{recipe.name}:")
    build_from_lock(recipe, dependencies, target="dependencies")
    with timed(f"importing the dependencies of the {recipe.name} image"), scratch_folder("layout") as layout:
        builder.push(dependencies, layout, "--compression-format=zstd", "--compression-level=3")
        oci.import_layout(layout, dependencies)


def provide_code(recipe: Recipe, image: str, dependencies: str) -> None:
    """Build the image with the code on top of the dependencies and import what it adds."""
    with timed(f"building and importing {image}"), scratch_folder("layout") as layout:
        builder.build(recipe.dockerfile, recipe.base, image)
        oci.expect_layers(layout, dependencies)
        builder.push(image, layout, "--disable-compression")
        oci.share_layers(layout, dependencies)
        oci.import_layout(layout, image)
    drop(f"modelexport.dev/{recipe.name}:", image)


def drop(repository: str, kept: str | None = None) -> None:
    """Remove the images of a repository but one, from the node and from the builder; what runs goes on."""
    for store in (containerd, builder):
        store.remove([image for image in store.images() if image.startswith(repository) and image != kept])
