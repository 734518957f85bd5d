"""The exports that the benchmarks measure, as a user would write them."""

from collections.abc import Iterable, Mapping
from typing import Any

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
