"""The exports that the benchmarks measure, as a user would write them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from modelexport.matrix.support import Target


def build_export(
    name: str, targets: Iterable[Target], model: Mapping[str, Any], images: str, samples: int, **spec: Any
) -> dict[str, Any]:
    """Return a ModelExport whose calibration images are an archive of the bucket ``datasets``."""
    return {
        "apiVersion": "modelexport.dev/v1alpha1",
        "kind": "ModelExport",
        "metadata": {"name": name},
        "spec": {
            "model": model,
            "targets": [{"format": str(target.format), "precision": str(target.precision)} for target in targets],
            "calibration": {"dataset": {"uri": f"s3://datasets/{images}"}, "samples": samples},
            **spec,
        },
    }


def write_command(export: Mapping[str, Any], folder: Path, store: Path, jobs: int | None = None) -> list[str]:
    """Write an export to a folder, and return the arguments of Python that run it and print its records as JSON.

    ``jobs``: how many targets run at a time; by default, ``modelexport run`` chooses.
    """
    document = folder / f"{export['metadata']['name']}.yaml"
    document.write_text(yaml.safe_dump(export))
    command = ["-m", "modelexport", "run", str(document), "--store", str(store), "-o", "json"]
    return [*command, *(["--jobs", str(jobs)] if jobs else [])]
