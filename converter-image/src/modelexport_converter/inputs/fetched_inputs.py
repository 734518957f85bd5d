"""What the first step leaves for the others: the files that a request names, as bytes, and what is known of them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from modelexport.request import ConversionRequest
from modelexport.result import ConversionResult
from modelexport_converter.datasets import Found, fetch_dataset
from modelexport_converter.fetch import CHECKPOINT, fetch
from modelexport_converter.progress import Effort
from modelexport_converter.report import Sources, read_earlier, report_uri
from modelexport_converter.stores import Store

CHECKPOINT_FILE = "checkpoint"
RECORD_FILE = "fetched.json"


@dataclass(frozen=True)
class Intake:
    """What a conversion starts from, all of it in ``folder``.

    ``earlier`` is the result of an equal conversion: with it there is nothing left to do.
    """

    folder: Path
    checkpoint_digest: str
    pictures: Found | None
    effort: Effort
    earlier: ConversionResult | None = None

    @property
    def checkpoint(self) -> Path:
        """The file of the checkpoint."""
        return self.folder / CHECKPOINT_FILE

    @property
    def sources(self) -> Sources:
        """The digests by which equal conversions know each other."""
        return Sources(self.checkpoint_digest, self.pictures.digest if self.pictures else None)

    def write(self) -> None:
        """Write what is known beside the files; ``read`` reads it in the steps that follow."""
        record = {
            "checkpoint": self.checkpoint_digest,
            "pictures": self.pictures and asdict(self.pictures),
            "effort": asdict(self.effort),
            "earlier": self.earlier and self.earlier.to_json(),
        }
        (self.folder / RECORD_FILE).write_text(json.dumps(record), encoding="ascii")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what the first step wrote. It is ours: the step that opens files of strangers cannot change it."""
        record: Mapping[str, Any] = json.loads((folder / RECORD_FILE).read_text(encoding="ascii"))
        found, earlier = record["pictures"], record["earlier"]
        return cls(
            folder,
            record["checkpoint"],
            found and Found(found["digest"], found["names"] and tuple(found["names"]), found["count"]),
            Effort(**record["effort"]),
            earlier and ConversionResult.from_json(earlier),
        )


def fetch_inputs(
    store: Store, environ: Mapping[str, str], request: ConversionRequest, folder: Path
) -> tuple[str, Found | None]:
    """Download checkpoint and pictures to ``folder``; return the checkpoint's SHA-256 and what was found of pictures.

    Raises:
        Failure: one of them is not there, or not what the request says.
    """
    digest = fetch(store, environ, request.model.checkpoint, CHECKPOINT, folder / CHECKPOINT_FILE)
    return digest, fetch_dataset(
        store, environ, request.calibration, folder, calibrates=request.scheme.needs_calibration
    )


def find_earlier(store: Store, request: ConversionRequest, sources: Sources) -> ConversionResult | None:
    """Return the result of an earlier, equal conversion whose artifact stands in the store with its size."""
    text = store.read_text(report_uri(request))
    earlier = read_earlier(text, request, sources) if text else None
    if earlier is None or earlier.artifact is None:
        return None
    return earlier if store.size_of(earlier.artifact.uri) == earlier.artifact.size_bytes else None
