"""An S3 server as store. Only this module imports ``minio``."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from modelexport import names
from modelexport.api.reasons import Reason
from modelexport.logs import announce
from modelexport_converter.failures import Failure
from modelexport_converter.stores import CHUNK, TEXT_LIMIT, ObjectMissing, TooLarge, bounded, split_uri
from modelexport_converter.stores.retry import RetryPolicy, read_retry_policy
from modelexport_converter.stores.tls import trust_arguments

T = TypeVar("T")

PART_SIZE = 64 << 20
"""Bytes of one part: nearly every artifact is smaller, and so a single, atomic request without an upload to abort."""
TIMEOUT = urllib3.Timeout(connect=5, read=60)

OWNER = "export-uid"
"""Object metadata: the uid of the export that published it."""

MISSING = ("NoSuchKey", "NoSuchVersion")
OCCUPIED = (
    "DirectoryObjectContainsData",
    "ExistingObjectIsDirectory",
    "ObjectParentIsFile",
    "XMinioObjectExistsAsDirectory",
)
"""Codes of servers that keep objects as files: there, an object cannot have the name of a folder (versitygw,
s3err/s3err.go; MinIO, cmd/api-errors.go)."""
MAKE_ROOM = (
    "Remove the object that has the name of this folder, or the folder that has the name of this object, or name the"
    " ModelExport or spec.storage.prefix of the ExportClass differently."
)
REASONS: Mapping[str, Reason] = {
    **dict.fromkeys(("NoSuchBucket", "InvalidBucketName"), Reason.BUCKET_NOT_FOUND),
    **dict.fromkeys(
        (
            "AccessDenied",
            "AccountProblem",
            "AllAccessDisabled",
            "AuthorizationHeaderMalformed",
            "ExpiredToken",
            "InvalidAccessKeyId",
            "InvalidToken",
            "MethodNotAllowed",
            "RequestTimeTooSkewed",
            "SignatureDoesNotMatch",
            "XAdminUserNotFound",
            "XMinioInvalidIAMCredentials",
        ),
        Reason.STORAGE_DENIED,
    ),
    **dict.fromkeys(
        ("KeyTooLongError", "XMinioInvalidObjectName", "XMinioInvalidResourceName", *OCCUPIED), Reason.INVALID_SPEC
    ),  # about the name at the start of the message
    **dict.fromkeys(
        (
            "EntityTooLarge",
            "InsufficientStorage",
            "QuotaExceeded",
            "XMinioAdminBucketQuotaExceeded",
            "XMinioStorageFull",
        ),
        Reason.STORAGE_FULL,
    ),
    **dict.fromkeys(
        (
            "InternalError",
            "OperationAborted",
            "RequestTimeout",
            "ServiceUnavailable",
            "SlowDown",
            "SlowDownRead",
            "SlowDownWrite",
            "XMinioBackendDown",
            "XMinioReadQuorum",
            "XMinioServerNotInitialized",
            "XMinioWriteQuorum",
        ),
        Reason.STORAGE_UNAVAILABLE,
    ),
}
"""Reasons for the error codes of S3 servers. A code that is missing here is a bug of ours or of the server."""


class Removal(StrEnum):
    """The outcome of deleting an object."""

    REMOVED = "removed"
    ABSENT = "was not there"
    FOREIGN = "was published for another ModelExport and stays"


class S3Store:
    """Implements ``Store``."""

    def __init__(self, client: Minio, endpoint: str, owner: str | None, retry_policy: RetryPolicy) -> None:
        self._client = client
        self.endpoint = endpoint
        self._owner = owner
        self._retry_policy = retry_policy

    @classmethod
    def connect(cls, environ: Mapping[str, str]) -> Self:
        """Create the client; it sends nothing yet."""
        endpoint = urlsplit(environ[names.STORE_ENV])
        trust = trust_arguments(environ) if endpoint.scheme == "https" else {}  # slow to load
        pool = urllib3.PoolManager(timeout=TIMEOUT, retries=False, maxsize=2, **trust)
        client = Minio(
            endpoint=endpoint.netloc.rpartition("@")[2],
            access_key=environ.get(names.ACCESS_KEY_ENV),
            secret_key=environ.get(names.SECRET_KEY_ENV),
            session_token=environ.get(names.SESSION_TOKEN_ENV),
            secure=endpoint.scheme == "https",
            region=environ.get(names.REGION_ENV, names.REGION_DEFAULT),
            http_client=pool,
        )
        address = f"{endpoint.scheme}://{endpoint.netloc.rpartition('@')[2]}"
        return cls(client, address, environ.get(names.EXPORT_UID_ENV), read_retry_policy(environ))

    def download(self, uri: str, path: Path, limit: int) -> None:
        """Copy an object to ``path``; see ``Store``."""
        self._attempt(uri, lambda: self._download(uri, path, limit))

    def _download(self, uri: str, path: Path, limit: int) -> None:
        response = self._client.get_object(*split_uri(uri))
        with response, path.open("wb") as writer:
            if (size := int(response.headers.get("content-length", 0))) > limit:
                raise TooLarge(size, limit)
            for chunk in response.stream(CHUNK):
                writer.write(chunk)

    def read_text(self, uri: str) -> str | None:
        """Return a small text object, or ``None``; see ``Store``."""

        def read() -> str | None:
            with self._client.get_object(*split_uri(uri)) as response:
                content = response.read(TEXT_LIMIT + 1)
            return content.decode(errors="replace") if len(content) <= TEXT_LIMIT else None

        return self._if_there(uri, read)

    def size_of(self, uri: str) -> int | None:
        """Return the bytes of an object, or ``None``; see ``Store``."""
        return self._if_there(uri, lambda: int(self._client.stat_object(*split_uri(uri)).size or 0))

    def list_names(self, uri: str) -> tuple[str, ...]:
        """Return the names below a folder; see ``Store``."""
        bucket, prefix = split_uri(uri)

        def read() -> tuple[str, ...]:
            objects = self._client.list_objects(bucket, prefix=prefix, recursive=True)
            found = bounded(str(item.object_name).removeprefix(prefix) for item in objects)
            return tuple(sorted(name for name in found if name and not name.endswith("/")))

        return self._attempt(uri, read)

    def upload(self, path: Path, uri: str, metadata: Mapping[str, str]) -> None:
        """Write a file to a URI, complete or not at all; see ``Store``."""
        self._attempt(uri, lambda: self._upload(path, uri, metadata))

    def _upload(self, path: Path, uri: str, metadata: Mapping[str, str]) -> None:
        bucket, key = split_uri(uri)
        owned: dict[str, str | list[str] | tuple[str]] = {**metadata, **({OWNER: self._owner} if self._owner else {})}
        with self._leaving_no_parts(uri, in_parts=path.stat().st_size > PART_SIZE):
            # One part at a time: bounded memory, and an error aborts the upload before anything else happens.
            sent = self._client.fput_object(
                bucket, key, str(path), metadata=owned, part_size=PART_SIZE, num_parallel_uploads=1
            )
        found = self._client.stat_object(bucket, key)
        if (found.size, found.etag) != (path.stat().st_size, sent.etag):
            message = (
                f"{uri} was read back as {found.size} bytes with ETag {found.etag}, not what was sent ({sent.etag})"
            )
            raise Failure(Reason.STORAGE_UNAVAILABLE, message)

    @contextmanager
    def _leaving_no_parts(self, uri: str, *, in_parts: bool) -> Iterator[None]:
        """Remove parts of an earlier, killed upload to the same URI, and parts of this one if it is interrupted.

        The client aborts an upload that fails, but not one that is interrupted, nor one of an earlier process.
        """
        if not in_parts:
            yield
            return
        self.abort_uploads(uri)
        try:
            yield
        except BaseException:
            self.abort_uploads(uri)
            raise

    def abort_uploads(self, uri: str) -> None:
        """Remove the parts of unfinished uploads to a URI; parts that cannot be removed are logged and stay.

        Not every key may list uploads, and only complete files matter.
        """
        try:
            bucket, key = split_uri(uri)
            with self._translated(uri):
                # The client has no public method for this; tests run both private ones against real servers.
                for upload in self._client._list_multipart_uploads(bucket, prefix=key).uploads:
                    if upload.object_name == key:  # S3 lists longer names, too; MinIO treats the prefix as a whole name
                        self._client._abort_multipart_upload(bucket, key, str(upload.upload_id))
        except Failure as failure:
            announce("unfinished uploads remain", uri=uri, message=str(failure))

    def remove_own(self, uri: str) -> Removal:
        """Delete an object that was published for the export of this store's environment, and nothing else.

        Raises:
            Failure: the store does not answer, or denies it.
        """
        bucket, key = split_uri(uri)

        def remove() -> Removal:
            metadata = self._client.stat_object(bucket, key).metadata or {}
            if not self._owner or metadata.get(f"x-amz-meta-{OWNER}") != self._owner:
                return Removal.FOREIGN
            self._client.remove_object(bucket, key)
            return Removal.REMOVED

        return self._if_there(uri, remove) or Removal.ABSENT

    def _if_there(self, uri: str, operation: Callable[[], T]) -> T | None:
        try:
            return self._attempt(uri, operation)
        except ObjectMissing:
            return None

    def _attempt(self, uri: str, operation: Callable[[], T]) -> T:
        def once() -> T:
            with self._translated(uri):
                return operation()

        return self._retry_policy.attempt(once)

    @contextmanager
    def _translated(self, uri: str) -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            if error.code in MISSING:
                raise ObjectMissing(f"the store {self.endpoint} has no object of this name") from error
            reason = REASONS.get(error.code or "", Reason.INTERNAL_ERROR)
            way_out = MAKE_ROOM if error.code in OCCUPIED else None
            words = (error.message or "").rstrip(".")
            raise self._failure(reason, uri, f"answered {error.code}: {words}", way_out) from error
        except urllib3.exceptions.SSLError as error:
            way_out = "Give its certificate authority (spec.storage.caSecretName of the ExportClass)."
            raise self._failure(
                Reason.STORAGE_DENIED, uri, f"has a certificate that is not trusted ({error})", way_out
            ) from error
        except (InvalidResponseError, ServerError) as error:
            raise self._failure(
                Reason.STORAGE_UNAVAILABLE, uri, f"does not answer as an S3 server: {error}"[:300]
            ) from error
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise self._failure(Reason.STORAGE_UNAVAILABLE, uri, f"cannot be reached: {error}"[:300]) from error

    def _failure(self, reason: Reason, uri: str, found: str, way_out: str | None = None) -> Failure:
        return Failure(reason, f"{uri}: the store {self.endpoint} {found}. {way_out or reason.policy.advice}")
