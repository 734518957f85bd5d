"""Builds the ModelExport of a checkpoint in a store, from Python objects."""

from collections.abc import Sequence

from modelexport.api.quantization import Quantization
from modelexport.api.spec import (
    DEFAULT_SAMPLES,
    Calibration,
    DataRef,
    DeletionPolicy,
    Evaluation,
    Model,
    ModelExport,
    Parameters,
)
from modelexport.building import check_export, read_targets
from modelexport.matrix.support import SupportLevel, Target


def export(
    name: str,
    *,
    architecture: str,
    checkpoint: str | DataRef,
    to: str | Target | Sequence[str | Target],
    calibration: str | DataRef | None = None,
    samples: int = DEFAULT_SAMPLES,
    evaluation: str | DataRef | Evaluation | None = None,
    quantization: Quantization | None = None,
    parameters: Parameters | None = None,
    namespace: str = "default",
    class_name: str | None = None,
    extended: bool = False,
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN,
    ttl_seconds_after_finished: int | None = None,
) -> ModelExport:
    """Return a ModelExport that the operator accepts.

    Args:
        name: its name.
        architecture: a row of the support matrix.
        checkpoint: ``s3://bucket/key``, or ``https://`` with its SHA-256 in a ``DataRef``.
        to: targets such as ``LiteRT/INT8``; a format alone stands for all its precisions. A name and options may
            follow: ``ONNX/FP32/server:dynamicBatch=true``.
        calibration: URI of a folder of images (with a slash at its end), a zip archive of images, or an image.
        samples: the number of images to calibrate on.
        evaluation: labelled images, by their URI or with the allowed loss of accuracy in an ``Evaluation``.
        quantization: how far to go for an INT8 file that loses too much.
        parameters: facts about the model that the checkpoint does not contain.
        namespace: the namespace.
        class_name: the ExportClass; by default the default class.
        extended: whether to ask for the support level Extended.
        deletion_policy: what happens to the files when the export is deleted.
        ttl_seconds_after_finished: seconds from the end of the export to its deletion.

    Raises:
        BadInput: the operator would refuse it; with the field and the way out.
    """
    targets = read_targets(to)
    images = None if calibration is None else Calibration(_reference(calibration), samples)
    if evaluation is not None and not isinstance(evaluation, Evaluation):
        evaluation = Evaluation(_reference(evaluation))
    return check_export(
        ModelExport(
            name=name,
            namespace=namespace,
            model=Model(architecture, _reference(checkpoint), parameters or Parameters()),
            targets=tuple(targets),
            options={target: options for target, options in targets.items() if options},
            class_name=class_name,
            support_level=SupportLevel.EXTENDED if extended else SupportLevel.STABLE,
            calibration=images,
            evaluation=evaluation,
            quantization=quantization,
            deletion_policy=deletion_policy,
            ttl_seconds_after_finished=ttl_seconds_after_finished,
        )
    )


def _reference(source: str | DataRef) -> DataRef:
    return source if isinstance(source, DataRef) else DataRef(source)
