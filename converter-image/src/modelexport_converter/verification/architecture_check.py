"""Checks whether a rebuilt network is the one that was trained, and searches for parameters that fit better.

Weights do not reveal the activation between their layers or the preprocessing of pixels. The normalisation statistics
do, to a degree: see ``norm_statistics``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from modelexport.api.reasons import Reason
from modelexport.api.result import Reference
from modelexport.api.spec import Model, Parameters
from modelexport.matrix.support import ARCHITECTURES
from modelexport_converter.backends import Array
from modelexport_converter.checkpoints.state_dict import mismatch
from modelexport_converter.failures import Failure
from modelexport_converter.model import LoadedModel
from modelexport_converter.norm_statistics import ENOUGH_IMAGES, Fit, measure

Load = Callable[[Model], LoadedModel]
Prepare = Callable[[LoadedModel], Sequence[Array]]
FitOf = Callable[[nn.Module, Sequence[Array]], Fit | None]
_OF_IMAGES = frozenset({"colorOrder", "pixelRange", "imageMean", "imageStd"})
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Alternative:
    """Other parameters of a network, as text for ``spec.model.parameters``, and how well they fit."""

    words: str
    fit: Fit


def check_network(
    loaded: LoadedModel, model: Model, load: Load, prepare: Prepare, *, own: bool, fit_of: FitOf = measure
) -> LoadedModel:
    """Compare a network with its normalisation statistics, and return it with warnings.

    A network that the checkpoint itself describes is never refused. A rebuilt network is refused if it cannot be the
    right one, or if other parameters, which the export leaves open, make it fit.

    Args:
        loaded: the network.
        model: the model of the export.
        load: loads the network with other parameters.
        prepare: returns images as inputs of a network, each (1, channels, height, width).
        own: whether the images are the user's.
        fit_of: measures the fit of the network itself to images.

    Raises:
        Failure: ``CheckpointMismatch``, with the numbers and the way out.
    """
    fit = fit_of(loaded.module, prepare(loaded))
    if fit is None:
        return loaded
    enough = own and fit.images >= ENOUGH_IMAGES
    impossible = fit.is_impossible(enough=enough)
    checked = replace(loaded, fit=fit)
    if not impossible and not (enough and fit.misfit > 1):
        return checked
    better = _find_better(fit, model, load, prepare) if loaded.reference is Reference.REBUILT else None
    if loaded.reference is Reference.REBUILT and (impossible or better):
        raise mismatch(_refusal(fit, model, better))
    warning = f"the network or the images may differ from the training: {fit}"
    return replace(checked, warnings=(*loaded.warnings, warning))


def _refusal(fit: Fit, model: Model, better: Alternative | None) -> str:
    found = f"on {fit.images} image{'' if fit.images == 1 else 's'} its {fit}"
    if better:
        wrong = f"this is not the network that was trained: {found}"
        return f"{wrong}; set {better.words} in spec.model.parameters, with which its {better.fit}"
    row = ARCHITECTURES[model.architecture]
    names = [*(["activation"] if row.activations else []), *sorted(row.takes & _OF_IMAGES)]
    program = "its part before the suppression of boxes as .pt2 for Custom" if row.has_nms else "the network as .pt2"
    return (
        f"the network or the images are others than in training: {found}; set {', '.join(names)} in "
        f"spec.model.parameters as in training, give images like those of the training, or save {program}"
    )


def _find_better(fit: Fit, model: Model, load: Load, prepare: Prepare) -> Alternative | None:
    """Return the best parameters that the export leaves open, if they at least halve the misfit of the network."""
    found = []
    for words, parameters in alternatives(model):
        try:
            other = load(replace(model, parameters=parameters))
        except Failure as failure:
            if failure.reason is not Reason.CHECKPOINT_MISMATCH:
                raise
            continue  # does not apply to this variant
        if tried := measure(other.module, prepare(other)):
            found.append(Alternative(words, tried))
    best = min(found, key=lambda one: one.fit.misfit, default=None)
    return best if best and best.fit.misfit <= min(1.0, fit.misfit / 2) else None


def alternatives(model: Model) -> Iterator[tuple[str, Parameters]]:
    """Yield parameters that the export leaves open: text for the specification, and all parameters with them."""
    row, given = ARCHITECTURES[model.architecture], model.parameters
    if given.activation is None:
        for activation in row.activations:
            yield f"activation: {activation}", replace(given, activation=activation)
    open_range = given.pixel_range is None and given.color_order is None
    legacy: dict[str, Any] = {"color_order": "RGB", "pixel_range": "0-1"} if open_range else {}
    if "pixelRange" in row.takes and open_range:
        yield "pixelRange: 0-1", replace(given, pixel_range="0-1")
    ranged = "pixelRange" in row.takes
    if "imageMean" in row.takes and given.image_mean is None and given.image_std is None and (legacy or not ranged):
        stated = "colorOrder: RGB, pixelRange: 0-1, " if ranged else ""
        for mean, std in (_IMAGENET, *(() if ranged else (_PLAIN, _HALF))):
            words = f"{stated}imageMean: {_texts(mean)}, imageStd: {_texts(std)}"
            yield words, replace(given, image_mean=mean, image_std=std, **(legacy if ranged else {}))
    if "alignCorners" in row.takes and given.align_corners is None:
        yield "alignCorners: false", replace(given, align_corners=False)


def _texts(values: Sequence[float]) -> str:
    joined = ", ".join(f'"{value:g}"' for value in values)
    return f"[{joined}]"
