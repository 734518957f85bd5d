"""The exports that the benchmarks measure, as a user would write them."""

from collections.abc import Iterable, Mapping
from typing import Any

from command_line import model_export
from modelexport.matrix.support import Target


def build_export(
    name: str, targets: Iterable[Target], model: Mapping[str, Any], images: str, samples: int, **spec: Any
) -> dict[str, Any]:
    """Return a ModelExport whose calibration images are an archive of the bucket ``datasets``."""
    calibration = {"dataset": {"uri": f"s3://datasets/{images}"}, "samples": samples}
    return model_export(name, *map(str, targets), model=model, calibration=calibration, **spec)
