"""The surroundings of the container that opens untrusted files, read from inside while it converts on the real node."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from minio import Minio

from e2e.support import RESULTS, Workspace, build_export, workspace
from modelexport import names
from testcluster.bootstrap import kubectl, store_credentials

LOOK = """
import json, os, pathlib
def read(path):
    try:
        return pathlib.Path(path).read_bytes().decode(errors="replace")
    except OSError as error:
        return f"({error.strerror})"
def writes(folder):
    path = pathlib.Path(folder) / "mine"
    try:
        path.write_text("mine")
    except OSError:
        return False
    path.unlink()
    return True
processes = [entry for entry in os.listdir("/proc") if entry.isdigit()]
folders = [line.split()[4] for line in read("/proc/self/mountinfo").splitlines()]
roots = ("/work", "/var/run", "/run", "/etc", "/dev", "/mnt", "/opt/app", "/root", "/home")
files = [os.path.join(top, name) for root in roots for top, _, names in os.walk(root) for name in names]
print(json.dumps({
    "environ": dict(os.environ),
    "processes": {pid: [read(f"/proc/{pid}/environ"), read(f"/proc/{pid}/cmdline")] for pid in processes},
    "mountinfo": read("/proc/self/mountinfo"),
    "files": {path: read(path)[:100000] for path in files if os.path.isfile(path) and os.path.getsize(path) < 1 << 20},
    "names": files,
    "writable": [folder for folder in ("/", "/tmp", "/work", "/opt/app", *folders) if writes(folder)],
}))
"""
"""A converter that was taken over could do no more: the same user, in the same container."""

OF_THE_IMAGE = {
    "CUDA_VISIBLE_DEVICES",
    "PATH",
    "PYTHONPATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONUNBUFFERED",
    "HOSTNAME",
    "HOME",
    "TMPDIR",
    "LC_CTYPE",
}


@pytest.fixture(scope="module")
def seen(product: str) -> Iterator[dict[str, Any]]:
    """The findings of ``LOOK`` in the container ``convert`` of a Pod that converts."""
    with workspace(product) as space:
        # Loading LiteRT's libraries takes seconds.
        space.apply(build_export("model", "LiteRT/FP32", className=space.create_class()))
        pod = space.wait_for_pod("model")
        found: dict[str, Any] = json.loads(run_inside(space, pod, LOOK))
        space.wait("mx/model", "condition=Ready")
        yield found


def run_inside(space: Workspace, pod: str, program: str) -> str:
    """Run a Python program in the container that converts, and return its output."""
    where = (pod, f"--namespace={space.name}", f"--container={names.CONVERT}")
    return kubectl("exec", *where, "--", "python", "-c", program)


def test_converter_environment_has_request_but_no_credentials(seen: dict[str, Any]) -> None:
    # The kubelet gives every container the address of the API server; without a token it is of no use.
    own = {name for name in seen["environ"] if not name.startswith("KUBERNETES_")} - OF_THE_IMAGE
    folders = {names.INPUTS_ENV, names.OUTPUTS_ENV}
    assert own == {names.REQUEST_ENV, names.JOB_ENV, names.DEADLINE_ENV, *folders}
    assert "minio" not in json.dumps(seen["environ"]).lower()


def holders_of_the_key(texts: dict[str, str]) -> list[str]:
    """The names of the texts that contain the store's secret key."""
    _, secret_key = store_credentials()
    return [name for name, text in texts.items() if secret_key in text]


def test_visible_processes_hold_no_credentials(seen: dict[str, Any]) -> None:
    assert any("modelexport_converter" in command for _, command in seen["processes"].values())
    assert holders_of_the_key({pid: environ + command for pid, (environ, command) in seen["processes"].items()}) == []
    assert [pid for pid, (environ, _) in seen["processes"].items() if "AWS_" in environ] == []


def test_readable_files_hold_no_credentials(seen: dict[str, Any]) -> None:
    assert "/work/inputs/checkpoint" in seen["names"]
    assert holders_of_the_key(seen["files"]) == []
    assert holders_of_the_key({"environ": json.dumps(seen["environ"])}) == []


def test_neither_secret_nor_token_is_mounted(seen: dict[str, Any]) -> None:
    for word in ("kubernetes.io~secret", "kubernetes.io~projected", "serviceaccount", "/etc/modelexport/ca"):
        assert word not in seen["mountinfo"]


def test_extra_output_file_blocks_publishing(space: Workspace, minio: Minio) -> None:
    space.apply(build_export("model", "LiteRT/FP32", className=space.create_class()))
    pod = space.wait_for_pod("model")
    plant = "open('/work/outputs/more', 'w').write('more')"
    run_inside(space, pod, plant)
    target = space.wait_for_reason("model", "OutputRefused")
    assert "its folder holds the unexpected file 'more'" in target["message"]
    assert not list(minio.list_objects(RESULTS, prefix=f"{space.name}/", recursive=True))


def test_converter_writes_only_its_output_and_scratch(seen: dict[str, Any]) -> None:
    assert {folder for folder in seen["writable"] if not folder.startswith("/dev")} == {
        "/work/outputs",
        "/work/scratch",
    }
