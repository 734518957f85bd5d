"""Running buildah in a store of the project's own.

A build sees no network and no setting of this machine, so none can get into a layer: ``uv`` fills its cache outside and
installs from the cache inside. The public base images of the Dockerfiles are replaced by ones that are made here.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.layout import BUILD_STORE, BUILDAH, REPOSITORY, digest_of
from cluster.shell import output, run, scratch_folder, timed

DEBIAN = "bookworm"
UNUSED_PATHS = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")
UV = Path(sys.executable).with_name("uv")


@dataclass(frozen=True)
class Base:
    """A Debian with Python, made by ``mmdebstrap``.

    ``hook`` is the last one that is called for the variant; ``commands`` are those of the shell that it runs on the new
    root, ``$1``.
    """

    variant: str
    packages: tuple[str, ...]
    hook: str
    commands: tuple[str, ...]

    @property
    def image(self) -> str:
        """The name of its image."""
        return f"localhost/modelexport-base:{digest_of([], DEBIAN, repr(self), *UNUSED_PATHS)}"


FORGET_HOST = 'rm -f "$1/etc/resolv.conf" "$1/etc/hostname"'
WITH_SHELL = Base("minbase", ("python3", "ca-certificates"), "customize", (FORGET_HOST,))
"""Stands in for ``python:3.11-slim-bookworm``."""
PYTHON_ONLY = Base(
    "extract",
    ("python3.11-minimal", "libpython3.11-stdlib"),
    "extract",
    (
        FORGET_HOST,
        # The packages depend on dpkg and tar, of which nothing is kept; one program of theirs mmdebstrap has moved.
        'set -e; cd "$1/var/cache/apt/archives"; for package in dpkg_*.deb tar_*.deb; do '
        'dpkg-deb --fsys-tarfile "$package" | tar --list | grep -v "/$" | (cd "$1"; xargs rm -f); rm "$package"; done; '
        'rm -f "$1"/sbin/*',
        # dpkg has no list of what is only unpacked. As in distroless images, a file for each package says what it is.
        'set -e; cd "$1/var/cache/apt/archives"; mkdir "$1/var/lib/dpkg/status.d"; for package in *.deb; do '
        'dpkg-deb --field "$package" > "$1/var/lib/dpkg/status.d/$(dpkg-deb --field "$package" Package)"; done',
        'ln -s python3.11 "$1/usr/bin/python" && ln -s python3.11 "$1/usr/bin/python3"',
    ),
)
"""Stands in for ``distroless/python3-debian12``."""


def environment() -> dict[str, str]:
    """Return the environment of buildah: none of the caller's settings, and its temporary files in its store."""
    temporary = BUILD_STORE / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return {"PATH": os.environ["PATH"], "HOME": str(BUILD_STORE), "TMPDIR": str(temporary)}


def uv_image() -> str:
    """Return the name of the image that holds ``uv`` as the one of its authors does."""
    return f"localhost/uv:{output([str(UV), '--version']).split()[1]}"


def images() -> list[str]:
    """Return the names of the images that buildah has."""
    return output([*BUILDAH, "images", "--format={{.Name}}:{{.Tag}}"]).splitlines()


def remove(names: list[str]) -> None:
    """Remove images, what a killed build left, and the nameless steps that nothing needs any more."""
    if names:
        run([*BUILDAH, "rm", "--all"])
        run([*BUILDAH, "rmi", *names])
        run([*BUILDAH, "rmi", "--prune"])


def provide_base(base: Base) -> None:
    """Make a base image and the one of ``uv`` unless they exist."""
    present = images()
    if uv_image() not in present:
        provide_file("COPY", UV, "/uv", uv_image())
    if base.image in present:
        return
    with timed("making the base image from Debian's packages"), scratch_folder("base") as scratch:
        archive = Path(scratch) / "base.tar"
        run([*mmdebstrap(base), DEBIAN, str(archive)])
        provide_file("ADD", archive, "/", base.image)


def mmdebstrap(base: Base) -> list[str]:
    """Return the command that makes a Debian without the traces that the host would leave in it."""
    excluded = [f"--dpkgopt=path-exclude={path}" for path in UNUSED_PATHS]
    hooks = [f"--{base.hook}-hook={command}" for command in base.commands]
    return [
        "mmdebstrap",
        "--quiet",
        f"--variant={base.variant}",
        f"--include={','.join(base.packages)}",
        *excluded,
        *hooks,
    ]


def provide_file(instruction: str, file: Path, path: str, image: str) -> None:
    """Make an image of one file or archive."""
    with scratch_folder("file") as scratch:
        recipe = Path(scratch) / "Dockerfile"
        recipe.write_text(f"FROM scratch\n{instruction} {file.name} {path}\n")
        run([*BUILDAH, "bud", f"--file={recipe}", f"--tag={image}", str(file.parent)])


def fill_cache(lock: Path) -> None:
    """Have ``uv`` download and unpack everything that a lock names."""
    with scratch_folder("lock") as scratch:
        options = ["--quiet", "--no-deps", "--require-hashes", f"--target={scratch}", f"--python={sys.executable}"]
        # Not from the repository, whose settings leave out packages of the development environment.
        run([str(UV), "pip", "install", *options, f"--requirement={lock}"], cwd=scratch)


def build(dockerfile: Path, base: Base, image: str, target: str | None = None) -> None:
    """Build an image of the repository, or one stage of it, from what earlier builds left."""
    arguments = {"BASE_IMAGE": base.image, "UV_IMAGE": uv_image(), "UV_OFFLINE": "true"}
    options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    if target:
        options.append(f"--target={target}")
    cache = f"--volume={output([str(UV), 'cache', 'dir'])}:/var/cache/uv"
    command = [*BUILDAH, "bud", "--layers", "--isolation=chroot", cache, *options, f"--file={dockerfile}"]
    run([*command, f"--tag={image}", str(REPOSITORY)], env=environment())


@contextmanager
def mounted(image: str) -> Iterator[Path]:
    """Show the root file system of an image, for reading."""
    container = output([*BUILDAH, "from", "--pull=never", image], env=environment())
    try:
        yield Path(output([*BUILDAH, "mount", container]))
    finally:
        run([*BUILDAH, "rm", container])


def push(image: str, layout: str, *options: str) -> None:
    """Write an image into an OCI layout."""
    run([*BUILDAH, "push", *options, image, f"oci:{layout}:{image}"], env=environment())
