from datetime import UTC, datetime

import pytest

from modelexport.signing import Credentials, presign

NOW = datetime(2013, 5, 24, tzinfo=UTC)
EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


def test_signature_matches_s3_api_reference_example() -> None:
    """The reference has the bucket in the host, so its key takes the place of our bucket."""
    url = presign("GET", "https://examplebucket.s3.amazonaws.com", "s3://test.txt", EXAMPLE, NOW, expires=86400)
    assert url == (
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z"
        "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


@pytest.mark.parametrize(
    ("usual", "bare"), [("http://minio:80", "http://minio"), ("https://minio:443", "https://minio")]
)
def test_default_port_is_signed_as_clients_send_it(usual: str, bare: str) -> None:
    urls = [presign("GET", endpoint, "s3://a/b", EXAMPLE, NOW) for endpoint in (usual, bare, f"{bare}:9000")]
    signatures = [url.rpartition("=")[2] for url in urls]
    assert signatures[0] == signatures[1] != signatures[2]


def test_incomplete_credentials_are_ignored() -> None:
    whole = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t", "AWS_REGION": "eu"}
    assert Credentials.from_environ(whole) == Credentials("a", "s", "eu", "t")
    assert Credentials.from_environ({"AWS_ACCESS_KEY_ID": "a"}) is None
    token = presign("GET", "http://minio", "s3://a/b", Credentials("a", "s", "eu", "t/+"), NOW)
    assert "&X-Amz-Security-Token=t%2F%2B&" in token
