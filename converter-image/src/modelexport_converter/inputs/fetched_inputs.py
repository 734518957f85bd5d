"""The result of the fetch step: downloaded files and a record about them, for the steps that follow."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from modelexport.api.request import ConversionRequest
from modelexport.api.result import ConversionResult
from modelexport_converter.inputs.dataset import FetchedImages, fetch_dataset
from modelexport_converter.inputs.fetch import CHECKPOINT, fetch
from modelexport_converter.inputs.labelled_data import fetch_labelled
from modelexport_converter.publishing.report import Sources, read_earlier, report_uri
from modelexport_converter.runtime.progress import Effort
from modelexport_converter.stores import Store

CHECKPOINT_FILE = "checkpoint"
RECORD_FILE = "fetched.json"


@dataclass(frozen=True)
class FetchedInputs:
    """The inputs of a conversion, all of them in ``folder``.

    ``earlier`` is the result of an equal conversion; if it is set, nothing is left to do.
    """

    folder: Path
    checkpoint_digest: str
    images: FetchedImages | None
    labelled: FetchedImages | None
    effort: Effort
    earlier: ConversionResult | None = None

    @property
    def checkpoint(self) -> Path:
        """Return the path of the checkpoint."""
        return self.folder / CHECKPOINT_FILE

    @property
    def sources(self) -> Sources:
        """Return the digests by which equal conversions recognise each other."""
        images, labelled = (found.digest if found else None for found in (self.images, self.labelled))
        return Sources(self.checkpoint_digest, images, labelled)

    def write(self) -> None:
        """Write the record beside the files; the steps that follow ``read`` it."""
        record = {
            "checkpoint": self.checkpoint_digest,
            "images": self.images and asdict(self.images),
            "labelled": self.labelled and asdict(self.labelled),
            "effort": asdict(self.effort),
            "earlier": self.earlier and self.earlier.to_json(),
        }
        (self.folder / RECORD_FILE).write_text(json.dumps(record), encoding="ascii")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the record of the fetch step. It is trusted: the step that opens untrusted files cannot change it."""
        record: Mapping[str, Any] = json.loads((folder / RECORD_FILE).read_text(encoding="ascii"))
        earlier = record["earlier"]
        return cls(
            folder,
            record["checkpoint"],
            _images(record["images"]),
            _images(record["labelled"]),
            Effort(**record["effort"]),
            earlier and ConversionResult.from_json(earlier),
        )


def _images(found: Mapping[str, Any] | None) -> FetchedImages | None:
    return FetchedImages(found["digest"], found["names"] and tuple(found["names"]), found["count"]) if found else None


def fetch_inputs(
    store: Store, environ: Mapping[str, str], request: ConversionRequest, folder: Path
) -> tuple[str, FetchedImages | None, FetchedImages | None]:
    """Download checkpoint and images to ``folder``. Return the checkpoint's SHA-256, the images and the labelled ones.

    Raises:
        Failure: an input is missing or is not the one that the request describes.
    """
    digest = fetch(store, environ, request.model.checkpoint, CHECKPOINT, folder / CHECKPOINT_FILE)
    images = fetch_dataset(store, environ, request.calibration, folder, calibrates=request.recipe.needs_calibration)
    return digest, images, fetch_labelled(store, environ, request, folder)


def find_earlier(store: Store, request: ConversionRequest, sources: Sources) -> ConversionResult | None:
    """Return the result of an earlier, equal conversion if its artifact is in the store with the recorded size."""
    text = store.read_text(report_uri(request))
    earlier = read_earlier(text, request, sources) if text else None
    if earlier is None or earlier.artifact is None:
        return None
    return earlier if store.size_of(earlier.artifact.uri) == earlier.artifact.size_bytes else None
