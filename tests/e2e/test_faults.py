"""Bad input and broken surroundings on the real node: each has its reason and a message that a user can act on."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from minio import Minio

from e2e.faulty_exports import FAULTS, FULL_BUCKET
from e2e.support import Workspace, find_condition, state_of
from e2e.support_inputs import MARK, build_attack

pytestmark = pytest.mark.own_cluster("a MinIO with quotas, and a port of its node on which nobody listens")


@pytest.fixture(scope="module")
def failed(begun_faults: Workspace) -> Iterator[Workspace]:
    """A namespace in which every export has ended."""
    with closing(begun_faults) as space:
        space.wait("mx", "condition=Stalled", seconds=1800)
        yield space


@pytest.mark.parametrize("name", FAULTS)
def test_fault_ends_with_its_reason_and_remedy(failed: Workspace, name: str) -> None:
    fault, target = FAULTS[name], failed.target(name)
    assert (target["state"], target["reason"]) == ("Failed", fault.reason)
    assert [words for words in fault.words if words not in target["message"]] == [], target["message"]
    assert "artifact" not in target


@pytest.mark.parametrize("name", FAULTS)
def test_only_transient_faults_are_retried(failed: Workspace, name: str) -> None:
    assert failed.target(name)["attempts"] == FAULTS[name].attempts


@pytest.mark.parametrize("name", FAULTS)
def test_failure_is_reported_by_conditions_and_event(failed: Workspace, name: str) -> None:
    export, target = failed.read(f"mx/{name}"), failed.target(name)
    ready, stalled = find_condition(export, "Ready"), find_condition(export, "Stalled")
    assert (ready["status"], stalled["status"], export["status"]["ready"]) == ("False", "True", "0/1")
    assert f"{FAULTS[name].target} {target['reason']}: {target['message'][:80]}" in stalled["message"]
    assert ("Warning", target["reason"]) in [event[:2] for event in failed.events(name)]


def test_failed_conversion_publishes_nothing(failed: Workspace, minio: Minio) -> None:
    published = [
        item.object_name
        for bucket in (FULL_BUCKET, "e2e-exports")
        for item in minio.list_objects(bucket_name=bucket, prefix=f"{failed.name}/", recursive=True)
    ]
    assert published == []


def test_attack_works_on_plain_unpickling(tmp_path: Path) -> None:
    (tmp_path / "attack.pt").write_bytes(build_attack())
    program = "import pickle, sys, zipfile; pickle.load(zipfile.ZipFile(sys.argv[1]).open('archive/data.pkl'))"
    victim = subprocess.run([sys.executable, "-c", program, str(tmp_path / "attack.pt")], check=False)
    assert victim.returncode == MARK


def test_attack_did_not_run_in_converter(failed: Workspace) -> None:
    selector = "--selector=modelexport.dev/export=checkpoint-that-attacks"
    [pod] = json.loads(failed.kubectl("get", "pods", selector, "--output=json"))["items"]
    ended = state_of(pod)["terminated"]
    assert (ended["exitCode"], json.loads(ended["message"])["reason"]) == (65, "CheckpointUnsafe")
