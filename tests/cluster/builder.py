"""Running buildah in a store of the project's own.

A build sees no network and no setting of this machine, so none can get into a layer: ``uv`` fills its cache outside and
installs from the cache inside. The public base images of the Dockerfiles are replaced by ones that are made here.
"""

import os
import sys
from pathlib import Path

from cluster.layout import BUILD_STORE, BUILDAH, REPOSITORY, digest_of
from cluster.shell import output, run, scratch_folder, timed

BASE_PACKAGES = ("python3", "ca-certificates")
DEBIAN = "bookworm"
UNUSED_PATHS = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")
UV = Path(sys.executable).with_name("uv")


def environment() -> dict[str, str]:
    """Return the environment of buildah: none of the caller's settings, and its temporary files in its store."""
    temporary = BUILD_STORE / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return {"PATH": os.environ["PATH"], "HOME": str(BUILD_STORE), "TMPDIR": str(temporary)}


def base_image() -> str:
    """Return the name of the base image: Debian with its Python."""
    return f"localhost/modelexport-base:{digest_of([], DEBIAN, *BASE_PACKAGES, *UNUSED_PATHS)}"


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


def provide_base() -> None:
    """Make the base image and the one of ``uv`` unless they exist."""
    present = images()
    if uv_image() not in present:
        provide_file("COPY", UV, "/uv", uv_image())
    if base_image() in present:
        return
    with timed("making the base image from Debian's packages"), scratch_folder("base") as scratch:
        archive = Path(scratch) / "base.tar"
        run([*mmdebstrap(), DEBIAN, str(archive)])
        provide_file("ADD", archive, "/", base_image())


def mmdebstrap() -> list[str]:
    """Return the command that makes a Debian without the traces that the host would leave in it."""
    excluded = [f"--dpkgopt=path-exclude={path}" for path in UNUSED_PATHS]
    packages = f"--include={','.join(BASE_PACKAGES)}"
    clean = '--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname"'
    return ["mmdebstrap", "--quiet", "--variant=minbase", packages, *excluded, clean]


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


def build(dockerfile: Path, image: str, target: str | None = None) -> None:
    """Build an image of the repository, or one stage of it, from what earlier builds left."""
    arguments = {"BASE_IMAGE": base_image(), "UV_IMAGE": uv_image(), "UV_OFFLINE": "true"}
    options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    if target:
        options.append(f"--target={target}")
    cache = f"--volume={output([str(UV), 'cache', 'dir'])}:/var/cache/uv"
    command = [*BUILDAH, "bud", "--layers", "--isolation=chroot", cache, *options, f"--file={dockerfile}"]
    run([*command, f"--tag={image}", str(REPOSITORY)], env=environment())


def push(image: str, layout: str, *options: str) -> None:
    """Write an image into an OCI layout."""
    run([*BUILDAH, "push", *options, image, f"oci:{layout}:{image}"], env=environment())
