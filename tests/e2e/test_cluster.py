"""The behaviour of Kubernetes on which the operator relies, tested without the operator."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testcluster import lifecycle
from testcluster.layout import HOST_INTERFACE, PRIVATE_FOLDERS, RUN
from testcluster.processes import command_of, is_alive, node_processes, servers

pytestmark = pytest.mark.own_cluster("the node and the settings of the test cluster")

Kubectl = Callable[..., str]
Body = dict[str, Any]

FILL_MEMORY = "data = bytearray(200 << 20)"
FILL_DISK = "import time; open('/tmp/data', 'wb').write(bytes(60 << 20)); time.sleep(600)"
ASK_STORE = """
import socket, urllib.request
print(socket.gethostbyname("minio.default.svc.cluster.local"))
print(urllib.request.urlopen("http://minio.default.svc.cluster.local:9000/minio/health/live", timeout=60).status)
"""
ASK_API = """
import ssl, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount"
request = urllib.request.Request("https://kubernetes.default.svc/api")
request.add_header("Authorization", "Bearer " + open(account + "/token").read())
context = ssl.create_default_context(cafile=account + "/ca.crt")
print(urllib.request.urlopen(request, context=context, timeout=60).status)
"""


def build_job(namespace: str, image: str, program: str, **spec: Any) -> Body:
    """A Job of one restricted container that runs a Python program; ``spec`` adds to the Job's spec."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["python", "-c", program],
        "resources": {"limits": {"memory": "100Mi", "ephemeral-storage": "20Mi"}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "job", "namespace": namespace},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}, **spec},
    }


def run_job(kubectl: Kubectl, job: Body, condition: str) -> Body:
    """Create a Job, wait for a condition of it, and return its only Pod."""
    in_namespace = f"--namespace={job['metadata']['namespace']}"
    kubectl("create", "--filename=-", input=json.dumps(job))
    kubectl("wait", f"--for=condition={condition}", "job/job", in_namespace, "--timeout=300s")
    pods: list[Body] = json.loads(kubectl("get", "pods", in_namespace, "--output=json"))["items"]
    [pod] = pods
    return pod


def test_restricted_job_completes_and_expires(kubectl: Kubectl, namespace: str, operator_image: str) -> None:
    run_job(kubectl, build_job(namespace, operator_image, "import kopf"), "Complete")
    # With so short a TTL from the start, the Job might be gone before the test sees it complete.
    patch = json.dumps({"spec": {"ttlSecondsAfterFinished": 1}})
    kubectl("patch", "job/job", f"--namespace={namespace}", "--type=merge", f"--patch={patch}")
    kubectl("wait", "--for=delete", "job/job", f"--namespace={namespace}", "--timeout=120s")


def test_pod_resolves_minio_by_name(kubectl: Kubectl, namespace: str, operator_image: str) -> None:
    run_job(kubectl, build_job(namespace, operator_image, ASK_STORE), "Complete")
    assert kubectl("logs", "job/job", f"--namespace={namespace}").split()[1] == "200"


def test_pod_reaches_api_server_with_token(kubectl: Kubectl, namespace: str, operator_image: str) -> None:
    run_job(kubectl, build_job(namespace, operator_image, ASK_API), "Complete")
    assert kubectl("logs", "job/job", f"--namespace={namespace}") == "200"


def test_container_over_memory_limit_is_oom_killed(kubectl: Kubectl, namespace: str, operator_image: str) -> None:
    pod = run_job(kubectl, build_job(namespace, operator_image, FILL_MEMORY), "Failed")
    terminated = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["reason"], terminated["exitCode"]) == ("OOMKilled", 137)


def test_pod_over_disk_limit_is_evicted(kubectl: Kubectl, namespace: str, operator_image: str) -> None:
    pod = run_job(kubectl, build_job(namespace, operator_image, FILL_DISK), "Failed")
    assert pod["status"]["reason"] == "Evicted"
    assert "ephemeral" in pod["status"]["message"]


def test_permanent_exit_code_fails_job_at_once(kubectl: Kubectl, namespace: str, operator_image: str) -> None:
    codes = {"containerName": "main", "operator": "In", "values": [65]}
    policy = {"rules": [{"action": "FailJob", "onExitCodes": codes}]}
    program = "import sys; open('/dev/termination-log', 'w').write('bad input'); sys.exit(65)"
    job = build_job(namespace, operator_image, program, backoffLimit=6, podFailurePolicy=policy)
    pod = run_job(kubectl, job, "Failed")
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] == "bad input"


def test_pod_allowing_root_is_not_admitted(kubectl: Kubectl, namespace: str, operator_image: str) -> None:
    container = {"name": "main", "image": operator_image}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pod", "namespace": namespace},
        "spec": {"containers": [container]},
    }
    with pytest.raises(subprocess.CalledProcessError):
        kubectl("create", "--filename=-", input=json.dumps(pod))


@pytest.mark.ends_cluster
def test_cluster_leaves_nothing_after_etcd_is_killed(kubectl: Kubectl, operator_image: str) -> None:
    job = build_job("default", operator_image, "import time; time.sleep(600)")
    kubectl("create", "--filename=-", input=json.dumps(job))
    kubectl("wait", "--for=jsonpath={.status.ready}=1", "job/job", "--timeout=120s")
    processes = node_processes()
    assert ["python", "-c", "import time; time.sleep(600)"] in map(command_of, processes)
    os.kill(servers()["etcd"], signal.SIGKILL)
    time.sleep(1)
    lifecycle.down()
    assert {pid: command_of(pid) for pid in processes if is_alive(pid)} == {}
    assert not any(Path(folder).exists() for folder in (RUN, *PRIVATE_FOLDERS, f"/sys/class/net/{HOST_INTERFACE}"))
    assert list(Path("/sys/fs/cgroup").glob("**/kubepods")) == []
    assert str(RUN) not in Path("/proc/self/mountinfo").read_text()
    lifecycle.down()
    assert lifecycle.up()
