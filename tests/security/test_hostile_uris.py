"""URIs that programs interpret differently, and addresses of the platform's internal services."""

import json
from pathlib import Path
from typing import Any

import pytest

from command_line import model_export
from modelexport.api.fields import InvalidSpec
from modelexport.api.reasons import Reason
from modelexport.api.sources import explain_unreadable, public_uri
from modelexport.api.spec import DataRef, parse_class, parse_export
from modelexport.cli import main
from modelexport_converter.failures import Failure
from modelexport_converter.inputs.fetch import CHECKPOINT, DATASET, fetch
from modelexport_converter.stores.addresses import is_allowed, parse_networks
from modelexport_converter.stores.opening import open_store
from testplane.objects import make_class

CREDENTIALS = "contains credentials, which would be public"
AUTHORITY = "has an invalid host or port"
NEARLY = "has a malformed IP address; write four decimal numbers, or a host name"
LETTERS = "has a host with letters beyond ASCII; write it as DNS does"
SPACE = "contains a space or a backslash"
PATH = "write the path without"
HIDDEN = "contains an invisible character"
BUCKET = "has an invalid S3 bucket"
SCHEME = "is not a supported URI"

HOSTILE: dict[str, str] = {
    # Whose host is it?
    "https://models.example@evil.example/a.pt": CREDENTIALS,
    "https://user:secret@models.example/a.pt": CREDENTIALS,
    "https://user%40models.example@evil.example/a.pt": CREDENTIALS,
    "https://@evil.example/a.pt": CREDENTIALS,
    "https://models.example\\@evil.example/a.pt": SPACE,
    "https://models.example\\.evil.example/a.pt": SPACE,
    "https://evil.example\\a.pt": SPACE,
    "https://models.example%2eevil.example/a.pt": AUTHORITY,
    "https://models.example%00.evil.example/a.pt": AUTHORITY,
    "https://models.example, evil.example/a.pt": AUTHORITY,
    "https:///a.pt": AUTHORITY,
    "https:////evil.example/a.pt": AUTHORITY,
    "https://?a.pt": AUTHORITY,
    "https://.example/a.pt": AUTHORITY,
    "https://models..example/a.pt": AUTHORITY,
    "https://-models.example/a.pt": AUTHORITY,
    "https://models.example./a.pt": AUTHORITY,
    "https://models_example/a.pt": AUTHORITY,
    f"https://{'a' * 64}.example/a.pt": AUTHORITY,
    f"https://{'a.' * 127}example/a.pt": AUTHORITY,
    # Which host is it?
    "https://m\u043edels.example/a.pt": LETTERS,
    "https://models.ex\u0430mple/a.pt": LETTERS,
    "https://models\u3002example/a.pt": LETTERS,
    "https://\u2460\u2461\u2466.0.0.1/a.pt": LETTERS,
    "https://fa\u00df.example/a.pt": LETTERS,
    # Which address is it?
    "https://127.1/a.pt": NEARLY,
    "https://127.0.1/a.pt": NEARLY,
    "https://2130706433/a.pt": NEARLY,
    "https://0x7f.1/a.pt": NEARLY,
    "https://0x7f000001/a.pt": NEARLY,
    "https://0177.0.0.1/a.pt": NEARLY,
    "https://017700000001/a.pt": NEARLY,
    "https://127.0.0.0x1/a.pt": NEARLY,
    "https://256.0.0.1/a.pt": NEARLY,
    "https://1.2.3.4.5/a.pt": NEARLY,
    "https://models.1/a.pt": NEARLY,
    "https://0/a.pt": NEARLY,
    "https://[::1/a.pt": AUTHORITY,
    "https://::1/a.pt": AUTHORITY,
    "https://[::1]x/a.pt": AUTHORITY,
    "https://[::g]/a.pt": AUTHORITY,
    "https://[1::2::3]/a.pt": NEARLY,
    "https://[127.0.0.256]/a.pt": NEARLY,
    "https://[fe80::1%eth0]/a.pt": AUTHORITY,
    "https://[fe80::1%25eth0]/a.pt": AUTHORITY,
    "https://[v1.a]/a.pt": AUTHORITY,
    # Which port is it?
    "https://models.example:0/a.pt": AUTHORITY,
    "https://models.example:65536/a.pt": AUTHORITY,
    "https://models.example:/a.pt": AUTHORITY,
    "https://models.example:443:80/a.pt": AUTHORITY,
    "https://models.example:\uff180/a.pt": LETTERS,
    "https://models.example:-1/a.pt": AUTHORITY,
    "https://models.example:443x/a.pt": AUTHORITY,
    # Which path is it?
    "https://models.example/team/../other/a.pt": PATH,
    "https://models.example/team/./a.pt": PATH,
    "https://models.example/team/%2e%2e/other/a.pt": PATH,
    "https://models.example/team/%2E./other/a.pt": PATH,
    "https://models.example/team/%252e%252e/other/a.pt": PATH,
    "https://models.example/team/..%2fother/a.pt": PATH,
    "https://models.example/team/..;x=1/other/a.pt": PATH,
    "https://models.example/team/%5c..%5cother/a.pt": PATH,
    "https://models.example/a.pt%00.txt": PATH,
    "https://models.example/a.pt%0d%0aHost:%20evil.example": PATH,
    "https://models.example/%E2%80%AEtp.a": PATH,
    "https://models.example/a%1B%5B2J.pt": PATH,
    "https://models.example/a b.pt": SPACE,
    "https://models.example/a.pt HTTP/1.1": SPACE,
    "https://models.example/a.pt#b": "has a fragment, which clients do not send",
    "https://models.example#@evil.example/a.pt": "has a fragment",
    # What cannot be seen.
    "https://models.example/a.pt\r\nHost: evil.example": SCHEME,
    "https://models.example/a\tb.pt": HIDDEN,
    "https://models.example/a\x00.pt": HIDDEN,
    "https://models.example/a\x1b[2J.pt": HIDDEN,
    "https://models.example/a\x9b2J.pt": HIDDEN,
    "s3://checkpoints/a\x00.pt": HIDDEN,
    "s3://checkpoints/a\x7f.pt": HIDDEN,
    "s3://checkpoints/\u202etp.a": HIDDEN,
    "s3://checkpoints/\u2066a\u2069.pt": HIDDEN,
    "s3://checkpoints/a\u200b.pt": HIDDEN,
    "s3://checkpoints/a\ufeff.pt": HIDDEN,
    "s3://checkpoints/a\u2028b.pt": HIDDEN,
    "s3://checkpoints/a\ud800.pt": HIDDEN,
    "s3://checkpoints/a\U000e0041.pt": HIDDEN,
    "s3://checkpoints/a\nb.pt": SCHEME,
    "file:///data/a\x1b]0;title\x07.pt": HIDDEN,
    "file:///data/\u202etp.a": HIDDEN,
    # Buckets and keys.
    "s3://check..points/a.pt": BUCKET,
    "s3://check.-points/a.pt": BUCKET,
    "s3://check-.points/a.pt": BUCKET,
    "s3://192.168.0.1/a.pt": BUCKET,
    "s3://Checkpoints/a.pt": SCHEME,
    "s3://user@checkpoints/a.pt": SCHEME,
    "s3://checkpoints:9000/a.pt": SCHEME,
    "s3://checkpoints": SCHEME,
    "s3:///a.pt": SCHEME,
    "s3://checkpoints/../other/a.pt": PATH,
    "s3://checkpoints/..": PATH,
    "s3://checkpoints/./a.pt": PATH,
    "s3://checkpoints/a/../../other/a.pt": PATH,
    # Files of this machine.
    "file:///data/../etc/shadow": PATH,
    "file:///data/./a.pt": PATH,
    "file:///data/%2e%2e/etc/shadow": PATH,
    "file:///data/..%2fetc/shadow": PATH,
    "file://evil.example/data/a.pt": SCHEME,
    "file://localhost/data/a.pt": SCHEME,
    "file:/data/a.pt": SCHEME,
    # Other schemes, and none.
    "http://models.example/a.pt": SCHEME,
    "HTTPS://models.example/a.pt": SCHEME,
    "ftp://models.example/a.pt": SCHEME,
    "gopher://models.example/a.pt": SCHEME,
    "javascript:alert(1)//https://models.example/": SCHEME,
    "data:,a": SCHEME,
    " https://models.example/a.pt": SCHEME,
    "https:/models.example/a.pt": SCHEME,
    "//models.example/a.pt": SCHEME,
    "-https://models.example/a.pt": SCHEME,
    "$(cat /etc/passwd)": SCHEME,
    f"https://models.example/{'a' * 1024}": "the limit is 1024; use a shorter URI",
    f"s3://checkpoints/{'%25' * 400}": "the limit is 1024",
}
READABLE = (
    "https://models.example/a.pt",
    "https://models.example:8443/deep/er//a.pt?X-Amz-Signature=a%2Fb+c/../d",
    "https://xn--mdels-wsa.example/a%20b.pt",
    "https://203.0.113.7/a.pt",
    "https://[2001:db8::7]:8443/a.pt",
    "https://7up.example/a.pt",
    "https://models.example/ä/ö.pt",
    "s3://checkpoints/best v1+2 (final).pt",
    "s3://checkpoints/a//b.pt",
    "s3://checkpoints/100%.pt",
    "s3://checkpoints/..best..pt",
    "s3://checkpoints/模型/最好.pt",
    "s3://my.bucket.example/a#b.pt",
    "file:///data/best model.pt",
    "file:///data/a%20b.pt",
)


def export_of(uri: str) -> dict[str, Any]:
    body = model_export()
    body["spec"]["model"]["checkpoint"] = {"uri": uri, **({"sha256": "0" * 64} if uri.startswith("https:") else {})}
    return body


@pytest.mark.parametrize("uri", HOSTILE, ids=ascii)
def test_hostile_uri_is_refused_with_its_field(uri: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_export(export_of(uri))
    said = str(caught.value)
    assert said.startswith("spec.model.checkpoint.uri: ")
    assert HOSTILE[uri] in said
    assert "secret" not in said
    assert said.isprintable()
    assert len(said) < 400


@pytest.mark.parametrize("uri", [uri for uri, problem in HOSTILE.items() if problem != SCHEME], ids=ascii)
@pytest.mark.parametrize("role", [CHECKPOINT, DATASET], ids=["checkpoint", "images"])
def test_converter_refuses_uri_operator_missed(uri: str, role: Any, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    if len(uri) > 1024:
        assert explain_unreadable(uri) is None
        return
    with pytest.raises(Failure, match=r"^spec\.[a-z.]+\.uri: ") as caught:
        fetch(open_store({"MODELEXPORT_STORE": str(tmp_path)}), {}, DataRef(uri), role, tmp_path / "file")
    assert caught.value.reason is Reason.INVALID_SPEC
    assert str(caught.value).isprintable()
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("uri", READABLE)
def test_ordinary_uri_is_read(uri: str) -> None:
    assert parse_export(export_of(uri)).model.checkpoint.uri == uri


@pytest.mark.parametrize("uri", HOSTILE, ids=ascii)
def test_no_uri_crashes_cli_or_leaks_its_secret(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "export.yaml"
    path.write_text(json.dumps(export_of(uri)), encoding="utf-8")
    assert main(["validate", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.rstrip("\n").isprintable()
    assert "secret" not in said
    assert "secret" not in public_uri(uri)


REFUSED_ADDRESSES = (
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "172.16.0.1"),
    *("172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255", "169.254.169.254", "169.254.170.2"),
    *(
        "168.63.129.16",
        "192.0.0.192",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "192.88.99.1",
        "224.0.0.1",
    ),
    *("239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *(
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
    ),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:10.0.0.1"),
    *("64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::10.0.0.1", "64:ff9b:1::808:808"),
    *("2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:808:808::1", "2001:0:7f00:1::", "2001:db8::1", "3fff::1"),
    *("100::1", "4000::1", "5f00::1", "e000::1"),
)


@pytest.mark.parametrize("address", REFUSED_ADDRESSES)
def test_private_address_is_refused(address: str) -> None:
    assert not is_allowed(address, ())


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "1.1.1.1",
        "172.15.0.1",
        "172.32.0.1",
        "100.63.0.1",
        "100.128.0.1",
        "192.167.0.1",
        "169.253.0.1",
        "2606:4700::1111",
        "2a00:1450:4001::8a",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
    ],
)
def test_public_address_is_allowed(address: str) -> None:
    assert is_allowed(address, ())


@pytest.mark.parametrize(
    ("address", "networks", "allowed"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.2.0.0/16", False),
        ("10.1.2.3", "192.168.0.0/16 10.1.2.3/32", True),
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("64:ff9b::10.1.2.3", "10.0.0.0/8", True),
        ("64:ff9b::10.1.2.3", "192.168.0.0/16", False),
        ("fd00::1", "fd00::/8", True),
        ("fd00::1", "10.0.0.0/8", False),
        ("fd00::1", "0.0.0.0/0", False),
        ("169.254.169.254", "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16", False),
        ("127.0.0.1", "0.0.0.0/0", True),
        ("::1", "::/0", True),
    ],
)
def test_address_in_allowed_network_is_allowed(address: str, networks: str, *, allowed: bool) -> None:
    assert is_allowed(address, parse_networks(networks)) is allowed


@pytest.mark.parametrize(
    "value",
    [
        "10.0.0.1/8",
        "10.0.0.0",
        "10.0.0.0/33",
        "10.0.0.0/255.0.0.0/8",
        "example.com/8",
        "",
        "/8",
        8,
        None,
        ["10.0.0.0/8"],
        "0x0a.0.0.0/8",
        "010.0.0.0/8",
        "fd00::/129",
        "fd00::1/8",
        "10.0.0.0/8 0.0.0.0/0",
        "10.0.0.0/-1",
    ],
)
def test_invalid_network_makes_class_invalid(value: object) -> None:
    with pytest.raises(InvalidSpec, match=r"spec.https.allowedNetworks\[1\]: .* is not a network, for example"):
        parse_class(make_class(https={"allowedNetworks": ["10.0.0.0/8", value]}))


@pytest.mark.parametrize("value", ["10.0.0.0/8", 5, {"a": 1}])
def test_networks_are_parsed_as_list(value: object) -> None:
    with pytest.raises(InvalidSpec, match=r"spec\.https\.allowedNetworks: .* is not a list"):
        parse_class(make_class(https={"allowedNetworks": value}))
