"""Certificates and kubeconfigs of one cluster, made anew by every ``up``."""

import base64
import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from testcluster.layout import API_SERVER, API_SERVICE_ADDRESS, KUBECONFIG, NODE_ADDRESS, NODE_NAME, RUN

PKI = RUN / "pki"
CA_FILE = PKI / "ca.crt"
LIFETIME = datetime.timedelta(days=365)
SERVER_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
SERVER_ADDRESSES = (NODE_ADDRESS, API_SERVICE_ADDRESS, "127.0.0.1")

CLIENTS = {
    "admin": ("kubernetes-admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "kubelet": (f"system:node:{NODE_NAME}", "system:nodes"),
    "proxy": ("system:kube-proxy", None),
    "kwok": ("kwok", "system:masters"),
    "dns": ("coredns", "system:masters"),
}
"""File -> user and group of its certificate."""


@dataclass(frozen=True)
class Identity:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        return private_pem(self.key)

    def write(self, name: str) -> None:
        (PKI / f"{name}.crt").write_bytes(self.certificate_pem())
        (PKI / f"{name}.key").write_bytes(self.key_pem())


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the key as unencrypted PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def distinguished_name(user: str, group: str | None = None) -> x509.Name:
    """Return the subject by which Kubernetes knows a user and its group."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
    if group:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    return x509.Name(attributes)


def build_certificate(subject: x509.Name, issuer: Identity | None, *extensions: x509.ExtensionType) -> Identity:
    """Return a new key with its certificate; without an issuer it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return Identity(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def build_server(authority: Identity) -> Identity:
    """Return the identity of the API server, under all the names by which it is called."""
    names = [x509.DNSName(name) for name in SERVER_NAMES]
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in SERVER_ADDRESSES]
    return build_certificate(
        distinguished_name("kube-apiserver"),
        authority,
        x509.SubjectAlternativeName([*names, *addresses]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    )


def build_client(authority: Identity, user: str, group: str | None) -> Identity:
    """Return the identity of one client of the API server."""
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    return build_certificate(distinguished_name(user, group), authority, usage)


def build_kubeconfig(authority: Identity, client: Identity) -> str:
    """Return a kubeconfig that needs no other file."""
    cluster = {"server": API_SERVER, "certificate-authority-data": encoded(authority.certificate_pem())}
    user = {
        "client-certificate-data": encoded(client.certificate_pem()),
        "client-key-data": encoded(client.key_pem()),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NODE_NAME, "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": NODE_NAME, "context": {"cluster": NODE_NAME, "user": "user"}}],
        "current-context": NODE_NAME,
    }
    return yaml.safe_dump(config)


def encoded(pem: bytes) -> str:
    """Return the PEM as a kubeconfig carries it."""
    return base64.b64encode(pem).decode()


def kubeconfig_of(client: str) -> Path:
    """Return the kubeconfig of one client of ``CLIENTS``."""
    return PKI / f"{client}.kubeconfig"


def write_credentials() -> None:
    """Write every key, certificate and kubeconfig below the folder of the running cluster."""
    PKI.mkdir(mode=0o700)
    authority = build_certificate(
        distinguished_name("modelexport-test-cluster"), None, x509.BasicConstraints(ca=True, path_length=None)
    )
    authority.write("ca")
    build_server(authority).write("apiserver")
    write_service_account_keys()
    for name, (user, group) in CLIENTS.items():
        client = build_client(authority, user, group)
        client.write(name)
        kubeconfig_of(name).write_text(build_kubeconfig(authority, client))
    KUBECONFIG.write_text(kubeconfig_of("admin").read_text())


def write_service_account_keys() -> None:
    """Write the key that signs the tokens of service accounts, and its public half, which checks them."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (PKI / "service-accounts.key").write_bytes(private_pem(key))
    (PKI / "service-accounts.pub").write_bytes(public)
