"""The programs of the cluster: Debian packages and Go programs, installed once and cached."""

import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from testcluster.layout import BUILDAH, CACHE, HERE, PAUSE_IMAGE, module_dir, tools_dir
from testcluster.shell import exclusive, output, require_disk, run, say, scratch_folder

FAKETIME = f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}/faketime/libfaketime.so.1"
"""Library that shows a process another time than the machine's (libfaketime)."""
PACKAGES = {
    "containerd": "/usr/bin/containerd",
    "runc": "/usr/sbin/runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "iptables": "/usr/sbin/iptables",
    "conntrack": "/usr/sbin/conntrack",
    "iproute2": "/usr/sbin/ip",
    "buildah": "/usr/bin/buildah",
    "mmdebstrap": "/usr/bin/mmdebstrap",
    "gpg": "/usr/bin/gpg",
    "redis-server": "/usr/bin/redis-server",
    "prometheus": "/usr/bin/promtool",
    "libfaketime": FAKETIME,
    "chromium": "/usr/bin/chromium",
    "fonts-dejavu-core": "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
}
"""Debian package -> a file that shows that it is installed."""
KUBERNETES_VERSION = "v1.35.4"
GO_BUILD_GIB = 12
ARGOCD_MODULE = "github.com/argoproj/argo-cd/v3"
KUEUE_MODULE = "sigs.k8s.io/kueue"
MODULE_BUILD_GIB = 8


def install() -> None:
    """Install missing programs; return at once if there are none.

    Raises:
        ClusterError: there is no room for the build, or apt-get or go failed.
    """
    install_packages()
    with exclusive("go"):  # Another process that builds them has its scratch folder.
        if not tools_dir().is_dir():
            build_tools(tools_dir())
    install_module("versitygw", build_versitygw)


def install_packages() -> None:
    """Install the missing packages of Debian."""
    missing = [package for package, proof in PACKAGES.items() if not Path(proof).exists()]
    if not missing:
        return
    say(f"installing {', '.join(missing)}")
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=600", "-qq"]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run([*apt, "update"], env=environment)
    run([*apt, "install", "-y", "--no-install-recommends", *missing], env=environment)


def build_tools(destination: Path) -> None:
    """Build Kubernetes, etcd, CoreDNS, MinIO, Helm, KWOK and the pause program from the pinned Go modules."""
    require_disk(CACHE, GO_BUILD_GIB, "building the Go tools")
    say("building Kubernetes 1.35.4 and six other tools: about 13 minutes on two cores, once")
    with scratch_folder("go") as scratch:
        binaries = Path(scratch) / "bin"
        environment = os.environ | {"CGO_ENABLED": "0", "GOBIN": str(binaries), "GOCACHE": f"{scratch}/cache"}
        version = f"-X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}"
        command = ["go", "install", "-trimpath", "-ldflags", f"-s -w {version}"]
        run([*command, "tool", "./pause"], cwd=HERE / "tools", env=environment)
        run([*command, "tool"], cwd=HERE / "tools/kwok", env=environment)
        (binaries / "server").rename(binaries / "etcd")
        build_pause_image(binaries)
        binaries.rename(destination)


def install_gitops() -> None:
    """Install the programs of the GitOps tests; return at once if they are present.

    Raises:
        ClusterError: there is no room for the build, or apt-get or go failed.
    """
    install_packages()
    install_module("argocd", build_argocd)
    install_module("kstatus", build_kstatus)


def install_kueue() -> None:
    """Install Kueue, which an integration test runs; return at once if it is present.

    Raises:
        ClusterError: there is no room for the build, or go failed.
    """
    install_module("kueue", build_kueue)


def install_module(name: str, build: Callable[[Path], None]) -> None:
    """Build a program with a separate Go module, unless it is present."""
    with exclusive(name):
        if not module_dir(name).is_dir():
            build(module_dir(name))


def build_argocd(destination: Path) -> None:
    """Build Argo CD, one program for all its parts, and keep the manifests of its module beside it."""
    say("building Argo CD: about 6 minutes on two cores, once")
    with go_install("argocd", "tool") as binaries:
        (binaries / "cmd").rename(binaries / "argocd")
        module = output(["go", "list", "-m", "-f", "{{.Dir}}", ARGOCD_MODULE], cwd=HERE / "tools/argocd")
        for part in ("crds", "base/config"):
            shutil.copytree(Path(module) / "manifests" / part, binaries / "manifests" / part)
        binaries.rename(destination)


def build_kstatus(destination: Path) -> None:
    """Build the program that prints the kstatus result of an object, which Flux uses."""
    say("building kstatus: about a minute, once")
    with go_install("kstatus", ".") as binaries:
        binaries.rename(destination)


def build_kueue(destination: Path) -> None:
    """Build Kueue's controller manager, and keep the chart of its module beside it."""
    say("building Kueue: about 4 minutes on two cores, once")
    with go_install("kueue", "tool") as binaries:
        module = output(["go", "list", "-m", "-f", "{{.Dir}}", KUEUE_MODULE], cwd=HERE / "tools/kueue")
        shutil.copytree(Path(module) / "charts/kueue", binaries / "chart")
        binaries.rename(destination)


def build_versitygw(destination: Path) -> None:
    """Build versitygw, the second S3 server of the tests of the store."""
    say("building versitygw: about 2 minutes on two cores, once")
    with go_install("versitygw", "tool") as binaries:
        binaries.rename(destination)


@contextmanager
def go_install(name: str, package: str) -> Iterator[Path]:
    """Build a package of a Go module of its own; yields the folder of the program, and leaves no build cache."""
    require_disk(CACHE, MODULE_BUILD_GIB, f"building {name}")
    with scratch_folder(name) as scratch:
        binaries = Path(scratch) / "bin"
        environment = os.environ | {"CGO_ENABLED": "0", "GOBIN": str(binaries), "GOCACHE": f"{scratch}/cache"}
        command = ["go", "install", "-trimpath", "-ldflags", "-s -w", package]
        run(command, cwd=HERE / "tools" / name, env=environment)
        yield binaries


def build_pause_image(folder: Path) -> None:
    """Write the image of the pause program, which holds the namespaces of a Pod, to ``pause.tar`` beside it."""
    recipe = folder / "Dockerfile"
    recipe.write_text('FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n')
    run([*BUILDAH, "bud", "--file", str(recipe), "--tag", PAUSE_IMAGE, str(folder)])
    run([*BUILDAH, "push", PAUSE_IMAGE, f"oci-archive:{folder / 'pause.tar'}:{PAUSE_IMAGE}"])
    recipe.unlink()
