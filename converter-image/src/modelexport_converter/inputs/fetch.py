"""Brings what a request names onto the disk: the checkpoint, and the archive or the folder of pictures."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelexport import names
from modelexport.reasons import Reason
from modelexport.sources import explain_outside, explain_unreadable, public_uri
from modelexport.spec import DataRef
from modelexport.text import clean
from modelexport_converter.checkpoints.kinds import ONE_FILE
from modelexport_converter.failures import Failure
from modelexport_converter.stores import CHUNK, ObjectMissing, Store, TooLarge, TooMany

GIB = 1 << 30


@dataclass(frozen=True)
class Role:
    """What a file is for: its name, the field that names it, its largest size in bytes, the reasons of its failures."""

    name: str
    field_path: str
    limit: int
    missing: Reason
    too_large: Reason


CHECKPOINT = Role(
    "checkpoint", "spec.model.checkpoint", 4 * GIB, Reason.CHECKPOINT_NOT_FOUND, Reason.CHECKPOINT_UNREADABLE
)
DATASET = Role(
    "calibration data", "spec.calibration.dataset", 2 * GIB, Reason.CALIBRATION_NOT_FOUND, Reason.CALIBRATION_TOO_LARGE
)


def fetch(store: Store, environ: Mapping[str, str], ref: DataRef, role: Role, path: Path) -> str:
    """Download a file to ``path`` and return its SHA-256 (64 hex digits).

    Raises:
        Failure: it is not there, too large, or has another SHA-256 than the request asks for. Which one it has is not
            told: the credentials of the store, and the network of the Pod, may reach what the user may not.
    """
    check_source(environ, ref.uri, role)
    try:
        _download(store, environ, ref.uri, role, path)
    except ObjectMissing as error:
        if role is CHECKPOINT and (folder := _describe_folder(store, ref.uri)):
            raise Failure(role.missing, f"{role.name} {public_uri(ref.uri)} is a folder {folder}") from error
        raise Failure(
            role.missing, f"{role.name} {public_uri(ref.uri)}: {error}; upload it or correct {role.field_path}.uri"
        ) from error
    except TooLarge as error:
        raise Failure(role.too_large, f"{role.name} {public_uri(ref.uri)} {error}") from error
    digest = sha256_of(path)
    if ref.sha256 not in (None, digest):
        problem = f"{role.name} {public_uri(ref.uri)} is not the file that {role.field_path}.sha256 asks for"
        way_out = "run sha256sum on yours and correct the digest, or upload it again"
        raise Failure(Reason.DIGEST_MISMATCH, f"{problem} ({ref.sha256}); {way_out}")
    return digest


def _describe_folder(store: Store, uri: str) -> str | None:
    """Say what a folder holds that is named in the place of a file, and what to name instead; ``None``: it is none."""
    if uri.startswith("https://"):
        return None
    try:
        held = store.list_names(f"{uri}/")
    except (Failure, TooMany, OSError):
        return None  # not every key may list, and what is missing is told in any case
    if not held:
        return None
    if any(name.endswith(".distcp") for name in held):
        return f"of torch.distributed; make one file of it, and upload that: {ONE_FILE}"
    shown = ", ".join(clean(name, 60) for name in held[:3]) + (", ..." if len(held) > 3 else "")
    return f"that holds {shown}; name the file of the checkpoint in {CHECKPOINT.field_path}.uri"


def check_source(environ: Mapping[str, str], uri: str, role: Role) -> None:
    """Refuse what the operator refused before: a URI that nobody reads, or one outside of the folders of the class.

    Raises:
        Failure: ``InvalidSpec`` or ``SourceNotAllowed``.
    """
    if problem := explain_unreadable(uri):
        raise Failure(Reason.INVALID_SPEC, f"{role.field_path}.uri: {clean(public_uri(uri))} {problem}")
    if problem := explain_outside(uri, environ.get(names.SOURCES_ENV, "").split()):
        raise Failure(Reason.SOURCE_NOT_ALLOWED, f"{role.field_path}.uri: {public_uri(uri)} {problem}")


def _download(store: Store, environ: Mapping[str, str], uri: str, role: Role, path: Path) -> None:
    if not uri.startswith("https://"):
        store.download(uri, path, role.limit)
        return
    from modelexport_converter.stores import https  # the client of web addresses is seldom needed

    https.download(uri, path, role.limit, environ)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file (64 hex digits), read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
