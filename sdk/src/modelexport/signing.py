"""Presigned URLs for objects of an S3 server: Signature Version 4 in the query.

Source: "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)" of the Amazon S3 API reference.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from urllib.parse import quote, urlsplit

from modelexport import names

EXPIRES_SECONDS = 3600
ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class Credentials:
    """Credentials for an S3 server."""

    access_key: str
    secret_key: str
    region: str = names.REGION_DEFAULT
    session_token: str | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self | None:
        """Read the AWS environment variables; ``None`` if the keys are not set."""
        access, secret = environ.get(names.ACCESS_KEY_ENV), environ.get(names.SECRET_KEY_ENV)
        if not access or not secret:
            return None
        region = environ.get(names.REGION_ENV) or names.REGION_DEFAULT
        return cls(access, secret, region, environ.get(names.SESSION_TOKEN_ENV) or None)


def presign(
    method: str,
    endpoint: str,
    uri: str,
    credentials: Credentials,
    now: datetime,
    *,
    expires: int = EXPIRES_SECONDS,
) -> str:
    """Return a URL that permits one kind of request for an object until it expires.

    Args:
        method: HTTP method in capitals.
        endpoint: ``http(s)://host[:port]``, exactly as in the request.
        uri: ``s3://bucket/key``.
        credentials: credentials with access to the object.
        now: current time in UTC.
        expires: lifetime in seconds.
    """
    day, at = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{day}/{credentials.region}/s3/aws4_request"
    query = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{credentials.access_key}/{scope}",
        "X-Amz-Date": at,
        "X-Amz-Expires": str(expires),
        **({"X-Amz-Security-Token": credentials.session_token} if credentials.session_token else {}),
        "X-Amz-SignedHeaders": "host",
    }
    path, parts = _path(uri), urlsplit(endpoint)
    # The Host header that clients send has the port, unless it is the default of the scheme.
    host = parts.netloc.removesuffix({"http": ":80", "https": ":443"}[parts.scheme])
    text = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(query.items()))
    request = "\n".join((method, path, text, f"host:{host}", "", "host", "UNSIGNED-PAYLOAD"))
    signed = "\n".join((ALGORITHM, at, scope, hashlib.sha256(request.encode()).hexdigest()))
    # The key that signs on this day, in this region, for this service.
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (day, credentials.region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, signed.encode(), hashlib.sha256).hexdigest()
    return f"{object_url(endpoint, uri)}?{text}&X-Amz-Signature={signature}"


def object_url(endpoint: str, uri: str) -> str:
    """Return the URL of an object without a signature; arguments as for ``presign``."""
    return f"{endpoint.rstrip('/')}{_path(uri)}"


def _path(uri: str) -> str:
    return quote("/" + uri.removeprefix("s3://"), safe="/~")
