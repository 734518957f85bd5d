"""The emulated machine: Debian for arm64 with the packages of the converter's lock for arm64, and qemu.

It is unpacked only, since nothing of arm64 can run before there is an emulator: apt checks Debian's packages, uv those
of the lock by their digests. It has what the image for arm64 has, without the libraries that the Dockerfile removes.
"""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from testcluster.builder import DEBIAN, UNUSED_PATHS, UV
from testcluster.layout import CACHE, REPOSITORY, digest_of
from testcluster.shell import ClusterError, require_disk, run, scratch_folder, timed

ROOM = CACHE / "arm64"
LOCK = REPOSITORY / "requirements/converter-arm64.txt"
DOCKERFILE = REPOSITORY / "converter-image/Dockerfile"
SOURCES = (REPOSITORY / "sdk/src", REPOSITORY / "converter-image/src")
GIB = 14
"""Room for the packages, and for uv's cache of them."""
EMULATOR = "qemu-aarch64-static"
PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6", "qemu-user-static:amd64")
"""Debian's Python is the same as in the image up to its last digit."""
CPUS = os.cpu_count() or 1
PYTHON = "/usr/bin/python3.11"
SITE_PACKAGES = "usr/local/lib/python3.11/dist-packages"
"""Where this Python finds packages without any variable: TensorFlow's own process ignores those."""
CPU = "neoverse-n1"
"""The CPU that qemu emulates: that of AWS Graviton2 and Ampere Altra. It has no SVE, whose emulation is slow."""
MAIN_ID = 0x413FD0C1
"""Its register MIDR_EL1: Arm's Neoverse N1, variant 3, revision 1."""
FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs"
"""Its features by Linux's names."""


def provide() -> Path:
    """Return the root file system of the machine; it is made once for a lock.

    Only the holder of the lock ``arm64`` may call it.

    Raises:
        ClusterError: a program or room is missing, or a download failed.
    """
    inputs = [LOCK, DOCKERFILE, Path(__file__)]
    root = ROOM / f"root-{digest_of(inputs, DEBIAN, str(CPUS))}"
    if root.is_dir():
        return root
    if not shutil.which("mmdebstrap"):
        raise ClusterError("mmdebstrap is missing; run: apt-get install mmdebstrap, or make tools")
    for earlier in ROOM.glob("root-*"):
        shutil.rmtree(earlier)
    require_disk(ROOM, GIB, "the emulated machine")
    with scratch_folder("arm64") as scratch:
        made = Path(scratch) / "root"
        with timed("unpacking Debian for arm64 and qemu"):
            run(["mmdebstrap", *debian_options(), DEBIAN, str(made)])
        with timed("installing the lock for arm64"):
            install_lock(made)
            # Compiling is most of an import under emulation. Python writes the same bytecode on every processor.
            run([sys.executable, "-m", "compileall", "-q", str(made / "usr/lib/python3.11")])
        for path, content in cpu_files(CPUS).items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_text(content, encoding="ascii")
        made.rename(root)
    return root


def cpu_files(cpus: int) -> dict[str, str]:
    """Return the files by which Linux on arm64 describes its CPUs. qemu leaves those of this machine visible.

    ``etc/cpuinfo`` stands for ``proc/cpuinfo``, over which it is mounted.
    """
    fields = {
        "Features": FEATURES,
        "CPU implementer": f"{MAIN_ID >> 24:#x}",
        "CPU architecture": "8",
        "CPU variant": f"{MAIN_ID >> 20 & 15:#x}",
        "CPU part": f"{MAIN_ID >> 4 & 0xFFF:#x}",
        "CPU revision": f"{MAIN_ID & 15}",
    }
    described = "".join(f"{name}\t: {value}\n" for name, value in fields.items())
    folder = "sys/devices/system/cpu"
    return {
        "etc/cpuinfo": "\n".join(f"processor\t: {cpu}\n{described}" for cpu in range(cpus)),
        f"{folder}/kernel_max": f"{cpus - 1}\n",
        **{f"{folder}/{name}": f"0-{cpus - 1}\n" for name in ("possible", "present", "online")},
        **{f"{folder}/cpu{cpu}/regs/identification/midr_el1": f"{MAIN_ID:#018x}\n" for cpu in range(cpus)},
    }


def debian_options() -> list[str]:
    """Return the options of mmdebstrap: packages of two processors in one tree, without what no program reads."""
    excluded = [f"--dpkgopt=path-exclude={path}" for path in (*UNUSED_PATHS, "/usr/bin/qemu-*")]
    return [
        "--quiet",
        "--variant=extract",
        "--architectures=arm64,amd64",
        f"--include={','.join(PACKAGES)}",
        *excluded,
        f"--dpkgopt=path-include=/usr/bin/{EMULATOR}",
    ]


def install_lock(root: Path) -> None:
    """Install the packages of the lock, let this Python compile them, and remove what the Dockerfile removes."""
    platform = ["--python-platform=aarch64-manylinux_2_28", "--python-version=3.11", "--only-binary=:all:"]
    options = ["--quiet", "--no-deps", "--require-hashes", "--compile-bytecode", f"--python={sys.executable}"]
    folder = root / SITE_PACKAGES
    # Not in the repository, whose settings exclude packages of the development environment.
    run([str(UV), "pip", "install", *options, *platform, f"--target={folder}", f"--requirement={LOCK}"], cwd=root)
    for pattern in removed_patterns(DOCKERFILE.read_text(encoding="utf-8")):
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def removed_patterns(dockerfile: str) -> list[str]:
    """Return the patterns, relative to ``site-packages``, of the files that a Dockerfile removes there."""
    return re.findall(r"/site-packages/(\S+)", dockerfile)


def command(root: Path, folders: Sequence[Path], *arguments: str) -> list[str]:
    """Return the command that runs a program on the machine, which has the given folders of this one."""
    enter = Path(__file__).with_name("enter.sh")
    namespaces = ["unshare", "--user", "--map-root-user", "--mount"]
    return [*namespaces, "sh", str(enter), str(root), *map(str, folders), "--", *arguments]
