"""Core ML files as Vision and Xcode read them: classifiers, and detectors that suppress boxes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from modelexport.reading.facts import CLASS_LABEL, CLASS_PROBABILITIES, CONFIDENCE
from modelexport_converter.coreml import Detector
from modelexport_converter.coreml.library import FeatureTypes_pb2, Model_pb2, coremltools
from modelexport_converter.file_input import Array
from modelexport_converter.model import (
    CONFIDENCE_THRESHOLD,
    COORDINATES,
    DETECTOR_OUTPUTS,
    IOU_THRESHOLD,
    LoadedModel,
    Suppression,
)

_RAW = "raw_"
_COLUMNS = 80
"""Core ML's suppression misreads the table of an ML program unless its columns are a multiple of this:
https://github.com/apple/coremltools/issues/2445, https://github.com/ultralytics/ultralytics/issues/22309."""


class _Table(torch.nn.Module):
    """Computes the table of boxes that Core ML's suppression takes, each with the score of its best class alone.

    The other scores are 0, because Vision takes the sum of a row as the confidence that there is an object.
    """

    def __init__(self, network: torch.nn.Module, columns: int) -> None:
        super().__init__()
        self.module = network
        self.register_buffer("columns", torch.arange(columns))
        self.columns: torch.Tensor

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return confidence (N, columns) and coordinates (N, 4) of an image (1, channels, height, width)."""
        boxes, scores = self.module(image)
        best, labels = scores[0].max(0)
        chosen = (labels.unsqueeze(1) == self.columns).float()
        return chosen * best.unsqueeze(1), boxes[0].transpose(0, 1)


def table_of(model: LoadedModel, network: LoadedModel) -> LoadedModel:
    """Return the network before the suppression of boxes, whose outputs are the table that is suppressed."""
    module = _Table(network.module, len(_labels(model))).eval().requires_grad_(False)
    outputs = tuple(replace(output, name=f"{_RAW}{output.name}", keep_float32=True) for output in DETECTOR_OUTPUTS)
    return replace(network, module=module, outputs=outputs, options=model.options)


def _labels(model: LoadedModel) -> list[str]:
    """Return the class names, and names of columns without a class up to the next multiple of ``_COLUMNS``."""
    labels = list(model.class_names)
    for index in range(len(labels), -(-len(labels) // _COLUMNS) * _COLUMNS):
        name = f"unused_{index}"
        while name in labels:
            name += "_"
        labels.append(name)
    return labels


def with_suppression(converted: Any, model: LoadedModel, suppression: Suppression) -> Any:
    """Return a pipeline of the network and Core ML's suppression, as Vision knows it from Create ML and Turi Create."""
    network = converted.get_spec()
    pipeline = Model_pb2.Model(specificationVersion=network.specificationVersion)
    pipeline.pipeline.models.add().CopyFrom(network)
    step = pipeline.pipeline.models.add(specificationVersion=network.specificationVersion)
    pipeline.pipeline.names.extend(["network", "suppression"])
    own = step.nonMaximumSuppression
    own.pickTop.perClass = True
    own.stringClassLabels.vector.extend(_labels(model))
    own.iouThreshold, own.confidenceThreshold = suppression.overlap, suppression.score
    own.iouThresholdInputFeatureName, own.confidenceThresholdInputFeatureName = IOU_THRESHOLD, CONFIDENCE_THRESHOLD
    own.confidenceInputFeatureName, own.confidenceOutputFeatureName = f"{_RAW}{CONFIDENCE}", CONFIDENCE
    own.coordinatesInputFeatureName, own.coordinatesOutputFeatureName = f"{_RAW}{COORDINATES}", COORDINATES
    step.description.input.extend(network.description.output)
    pipeline.description.input.extend(network.description.input)
    for name, default in ((IOU_THRESHOLD, suppression.overlap), (CONFIDENCE_THRESHOLD, suppression.score)):
        threshold = step.description.input.add(name=name, shortDescription=f"Optional; {default:g} by default.")
        threshold.type.doubleType.SetInParent()
        pipeline.description.input.add().CopyFrom(threshold)
    columns = {CONFIDENCE: len(own.stringClassLabels.vector), COORDINATES: 4}
    for name, width in columns.items():
        output = step.description.output.add(name=name)
        output.type.multiArrayType.dataType = FeatureTypes_pb2.ArrayFeatureType.FLOAT32
        sizes = output.type.multiArrayType.shapeRange.sizeRanges
        sizes.add(lowerBound=0, upperBound=-1)
        sizes.add(lowerBound=width, upperBound=width)
        pipeline.description.output.add().CopyFrom(output)
    pipeline.description.metadata.CopyFrom(network.description.metadata)
    return coremltools.models.MLModel(pipeline, weights_dir=converted.weights_dir, skip_model_load=True)


def read_classes(model: LoadedModel, results: Mapping[str, Any]) -> tuple[Array, ...]:
    """Return the probabilities (1, classes) of a classifier in the order of the model's classes.

    Raises:
        ValueError: it names other classes, or not the most probable one.
    """
    by_name: Mapping[str, float] = results[CLASS_PROBABILITIES]
    if set(by_name) != set(model.class_names):
        raise ValueError(f"the file names the classes {', '.join(by_name)} in place of {', '.join(model.class_names)}")
    label, best = results[CLASS_LABEL], max(by_name, key=lambda name: by_name[name])
    if by_name[label] < by_name[best]:
        raise ValueError(f"the file answers {label} where {best} is more probable")
    return (np.array([[by_name[name] for name in model.class_names]], np.float32),)


def read_boxes(model: LoadedModel, opened: Detector, results: Mapping[str, Any]) -> tuple[Array, ...]:
    """Return the best detections of a file that suppresses boxes as boxes, scores, labels and count.

    Raises:
        ValueError: it names other classes, or finds one that does not exist.
    """
    assert model.suppression is not None
    classes = len(model.class_names)
    if opened.labels[:classes] != model.class_names:
        raise ValueError(f"the file names the classes {', '.join(opened.labels[:classes])}")
    most = min(model.suppression.most_detections, opened.boxes)
    confidence, coordinates = results[CONFIDENCE][:most], results[COORDINATES][:most]
    count = len(confidence)
    scores, labels = np.zeros((1, most), np.float32), np.zeros((1, most), np.float32)
    boxes = np.zeros((1, most, 4), np.float32)
    scores[0, :count], labels[0, :count] = confidence.max(axis=1), confidence.argmax(axis=1)
    centres, halves = coordinates[:, :2], coordinates[:, 2:] / 2
    boxes[0, :count] = np.concatenate([centres - halves, centres + halves], axis=1)
    if labels.max() >= classes:
        raise ValueError(f"the file finds the class {int(labels.max())} of {classes}")
    found = {"boxes": boxes, "scores": scores, "labels": labels, "count": np.array([count], np.float32)}
    return tuple(found[output.name] for output in model.outputs)
