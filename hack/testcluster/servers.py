"""The command lines and settings of every server of the node; comments explain unusual ones."""

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from testcluster import layout
from testcluster.credentials import PKI, kubeconfig_of
from testcluster.layout import LOGS, NODE_ADDRESS, NODE_NAME, RUN, SERVICE_RANGE, tool

SETTINGS = RUN / "settings"
KUBELET_ROOT = RUN / "kubelet"
STORE_USER = "modelexport"
STORE_PASSWORD_FILE = RUN / "minio.password"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SERVER_NAMES = (
    "etcd",
    "containerd",
    "minio",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "coredns",
    "kubelet",
    "kwok",
)
# The defaults (20 and 30 requests per second, 5 Jobs at a time) would be the bottleneck of every measurement.
CONTROLLER_RATE = ["--kube-api-qps=500", "--kube-api-burst=1000"]


@dataclass(frozen=True)
class Server:
    """One process of the node; it logs to ``logs/<name>.log``."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"


def stores() -> list[Server]:
    """Return the servers that need no other."""
    etcd = [
        f"--data-dir={RUN / 'etcd'}",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]
    environment = {
        "MINIO_ROOT_USER": STORE_USER,
        "MINIO_ROOT_PASSWORD": STORE_PASSWORD_FILE.read_text(),
        "MINIO_BROWSER": "off",
        "HOME": str(RUN),
    }
    return [
        Server("etcd", [tool("etcd"), *etcd]),
        Server("minio", [tool("minio"), "server", "--address", layout.MINIO_HOST, str(RUN / "minio")], environment),
    ]


def containerd_server() -> Server:
    """Return containerd with a configuration, a state folder and a socket of its own."""
    return Server("containerd", ["/usr/bin/containerd", f"--config={SETTINGS / 'containerd.toml'}"])


def api_server() -> Server:
    """Return the API server, with Pod Security admission and the node authorizer on."""
    flags = [
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={NODE_ADDRESS}",
        f"--tls-cert-file={PKI / 'apiserver.crt'}",
        f"--tls-private-key-file={PKI / 'apiserver.key'}",
        f"--client-ca-file={PKI / 'ca.crt'}",
        f"--kubelet-client-certificate={PKI / 'admin.crt'}",
        f"--kubelet-client-key={PKI / 'admin.key'}",
        # Without it `kubectl logs` looks the node's name up.
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={PKI / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={PKI / 'service-accounts.key'}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
    ]
    return Server("kube-apiserver", [tool("kube-apiserver"), *flags])


def controllers() -> list[Server]:
    """Return the servers that need a ready API server."""
    manager = [
        f"--kubeconfig={kubeconfig_of('controller-manager')}",
        f"--root-ca-file={PKI / 'ca.crt'}",
        f"--service-account-private-key-file={PKI / 'service-accounts.key'}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--concurrent-job-syncs=20",
    ]
    scheduler = [f"--kubeconfig={kubeconfig_of('scheduler')}", "--leader-elect=false"]
    proxy = [
        f"--kubeconfig={kubeconfig_of('proxy')}",
        f"--hostname-override={NODE_NAME}",
        f"--cluster-cidr={layout.POD_RANGE}",
        "--proxy-mode=iptables",
        "--conntrack-max-per-core=0",
    ]
    kwok = [
        f"--kubeconfig={kubeconfig_of('kwok')}",
        f"--config={layout.HERE / 'manifests/kwok.yaml'}",
        "--manage-nodes-with-label-selector=type=kwok",
        "--node-lease-duration-seconds=40",
        "--server-address=127.0.0.1:10247",
    ]
    return [
        Server("kube-controller-manager", [tool("kube-controller-manager"), *manager, *CONTROLLER_RATE]),
        Server("kube-scheduler", [tool("kube-scheduler"), *scheduler, *CONTROLLER_RATE]),
        Server("kube-proxy", [tool("kube-proxy"), *proxy]),
        Server("kwok", [tool("kwok"), *kwok]),
        Server("coredns", [tool("coredns"), "-conf", str(SETTINGS / "Corefile")]),
    ]


def kubelet() -> Server:
    """Return the kubelet; it needs containerd to answer."""
    flags = [
        f"--config={SETTINGS / 'kubelet.yaml'}",
        f"--kubeconfig={kubeconfig_of('kubelet')}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_ADDRESS}",
        f"--root-dir={KUBELET_ROOT}",
        f"--cert-dir={PKI / 'kubelet'}",
    ]
    return Server("kubelet", [tool("kubelet"), *flags])


def write_settings() -> None:
    """Write the configuration files that the command lines name, and a new password for MinIO."""
    STORE_PASSWORD_FILE.write_text(secrets.token_urlsafe(24))
    SETTINGS.mkdir()
    (SETTINGS / "cni").mkdir()
    (SETTINGS / "cni/10-bridge.conflist").write_text(json.dumps(cni_settings()))
    (SETTINGS / "containerd.toml").write_text(CONTAINERD_SETTINGS)
    (SETTINGS / "kubelet.yaml").write_text(yaml.safe_dump(kubelet_settings()))
    (SETTINGS / "resolv.conf").write_text("")
    (SETTINGS / "Corefile").write_text(COREFILE)


def kubelet_settings() -> dict[str, object]:
    """Return the KubeletConfiguration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{layout.CONTAINERD_SOCKET}",
        "authentication": {"x509": {"clientCAFile": str(PKI / "ca.crt")}, "anonymous": {"enabled": False}},
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDomain": "cluster.local",
        "clusterDNS": [layout.DNS_SERVICE_ADDRESS],
        # The host's own would send look-ups out of the node.
        "resolvConf": str(SETTINGS / "resolv.conf"),
        "podLogsDir": str(LOGS / "pods"),
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
        "volumePluginDir": str(RUN / "volume-plugins"),
        # Images come by import: one that was collected could not be pulled again.
        "imageGCHighThresholdPercent": 100,
    }


def cni_settings() -> dict[str, object]:
    """Return the network of the Pods: a bridge on the node, masqueraded towards everything else."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": layout.POD_RANGE}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(RUN / "cni"),
        },
    }
    port_map = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, port_map]}


CONTAINERD_SETTINGS = f"""
version = 2
root = "{layout.IMAGE_STORE}"
state = "{RUN / "containerd"}"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
                    "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper",
                    "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{layout.CONTAINERD_SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{RUN / "opt"}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{layout.PAUSE_IMAGE}"
  # Root lacks CAP_SYS_RESOURCE on many CI machines; a lower score is then refused and every sandbox dies.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{SETTINGS / "cni"}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""

COREFILE = f"""
. {{
  bind {NODE_ADDRESS}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig_of("dns")}
    ttl 5
  }}
}}
"""
