"""Runs buildah in a separate store.

A build has neither network nor settings of this machine, so none can get into a layer: ``uv`` fills its cache outside
and installs from the cache inside. Base images built here replace the public ones of the Dockerfiles.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testcluster.layout import BUILD_STORE, BUILDAH, REPOSITORY, digest_of
from testcluster.shell import output, run, scratch_folder, timed

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
        """Name of the image."""
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
        # The packages depend on dpkg and tar, of which nothing is kept; mmdebstrap has moved one of their programs.
        'set -e; cd "$1/var/cache/apt/archives"; for package in dpkg_*.deb tar_*.deb; do '
        'dpkg-deb --fsys-tarfile "$package" | tar --list | grep -v "/$" | (cd "$1"; xargs rm -f); rm "$package"; done; '
        'rm -f "$1"/sbin/*',
        # dpkg does not list packages that are only unpacked; as in distroless images, each has a file of its own.
        'set -e; cd "$1/var/cache/apt/archives"; mkdir "$1/var/lib/dpkg/status.d"; for package in *.deb; do '
        'dpkg-deb --field "$package" > "$1/var/lib/dpkg/status.d/$(dpkg-deb --field "$package" Package)"; done',
        'ln -s python3.11 "$1/usr/bin/python" && ln -s python3.11 "$1/usr/bin/python3"',
    ),
)
"""Stands in for ``distroless/python3-debian12``."""


def environment() -> dict[str, str]:
    """Return the environment of buildah: without the caller's settings, with temporary files in its store."""
    temporary = BUILD_STORE / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return {"PATH": os.environ["PATH"], "HOME": str(BUILD_STORE), "TMPDIR": str(temporary)}


def uv_image() -> str:
    """Return the name of the image with ``uv``, a replacement for the official one."""
    return f"localhost/uv:{output([str(UV), '--version']).split()[1]}"


def images() -> list[str]:
    """Return the names of the images that buildah has."""
    return output([*BUILDAH, "images", "--format={{.Name}}:{{.Tag}}"]).splitlines()


def remove(names: list[str]) -> None:
    """Remove images, leftovers of killed builds, and unused untagged layers."""
    if names:
        run([*BUILDAH, "rm", "--all"])
        run([*BUILDAH, "rmi", *names])
        run([*BUILDAH, "rmi", "--prune"])


def provide_base(base: Base) -> None:
    """Build a base image and the ``uv`` image unless they exist."""
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
    """Return the command that builds a Debian without traces of the host."""
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
    """Download and unpack all packages of a lock with ``uv``."""
    with scratch_folder("lock") as scratch:
        options = ["--quiet", "--no-deps", "--require-hashes", f"--target={scratch}", f"--python={sys.executable}"]
        # Not in the repository, whose settings exclude packages of the development environment.
        run([str(UV), "pip", "install", *options, f"--requirement={lock}"], cwd=scratch)


def build(dockerfile: Path, base: Base, image: str, target: str | None = None) -> None:
    """Build an image of the repository, or one stage of it, with the cache of earlier builds."""
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
