"""Whether a network that was rebuilt is the one that was trained, and what else it could be.

Weights do not say which activation is between their layers, or how pixels came to them. The statistics of normalisation
do, to a degree: see ``statistics``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelexport.matrix import ARCHITECTURES
from modelexport.reasons import Reason
from modelexport.result import Reference
from modelexport.spec import Model, Parameters
from modelexport_converter.backends import Array
from modelexport_converter.failures import Failure
from modelexport_converter.matching import mismatch
from modelexport_converter.model import LoadedModel
from modelexport_converter.statistics import ENOUGH_PICTURES, Fit, measure

Load = Callable[[Model], LoadedModel]
Prepare = Callable[[LoadedModel], Sequence[Array]]
_OF_PICTURES = frozenset({"colorOrder", "pixelRange", "imageMean", "imageStd"})
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Alternative:
    """Another statement about a network, in the words of ``spec.model.parameters``, and what comes of it."""

    words: str
    fit: Fit


def check_network(loaded: LoadedModel, model: Model, load: Load, prepare: Prepare, *, own: bool) -> LoadedModel:
    """Compare a network with its statistics of normalisation, and return it with what is doubtful about it.

    A network that the checkpoint itself describes is never refused. One that was rebuilt is, where it cannot be the
    right one, or where another statement about it, which the export leaves open, makes it fit.

    Args:
        loaded: the network.
        model: what the export says of it.
        load: the same with other parameters.
        prepare: pictures as a network takes them.
        own: whether the pictures are the user's.

    Raises:
        Failure: ``CheckpointMismatch``, with the numbers and the way out.
    """
    fit = measure(loaded.module, prepare(loaded))
    if fit is None:
        return loaded
    enough = own and fit.pictures >= ENOUGH_PICTURES
    impossible = fit.is_impossible(enough=enough)
    checked = replace(loaded, fit=fit)
    if not impossible and not (enough and fit.doubt > 1):
        return checked
    better = _find_better(fit, model, load, prepare) if loaded.reference is Reference.REBUILT else None
    if loaded.reference is Reference.REBUILT and (impossible or better):
        raise mismatch(_refusal(fit, model, better))
    return replace(checked, warnings=(*loaded.warnings, _warning(fit)))


def _warning(fit: Fit) -> str:
    return f"the network or the pictures may be others than in training: {fit}"


def _refusal(fit: Fit, model: Model, better: Alternative | None) -> str:
    found = f"on {fit.pictures} picture{'' if fit.pictures == 1 else 's'} its {fit}"
    if better:
        wrong = f"this is not the network that was trained: {found}"
        return f"{wrong}; set {better.words} in spec.model.parameters, with which its {better.fit}"
    row = ARCHITECTURES[model.architecture]
    names = [*(["activation"] if row.activations else []), *sorted(row.takes & _OF_PICTURES)]
    program = "its part before the suppression of boxes as .pt2 for Custom" if row.suppresses else "the network as .pt2"
    return (
        f"the network or the pictures are others than in training: {found}; set {', '.join(names)} in "
        f"spec.model.parameters as in training, give pictures like those of the training, or save {program}"
    )


def _find_better(fit: Fit, model: Model, load: Load, prepare: Prepare) -> Alternative | None:
    """The statement that an export leaves open and that makes a network fit, by half as much doubt at most."""
    found = []
    for words, parameters in alternatives(model):
        try:
            other = load(replace(model, parameters=parameters))
        except Failure as failure:
            if failure.reason is not Reason.CHECKPOINT_MISMATCH:
                raise
            continue  # it is no statement about this variant
        if tried := measure(other.module, prepare(other)):
            found.append(Alternative(words, tried))
    best = min(found, key=lambda one: one.fit.doubt, default=None)
    return best if best and best.fit.doubt <= min(1.0, fit.doubt / 2) else None


def alternatives(model: Model) -> Iterator[tuple[str, Parameters]]:
    """Other statements about a network that an export leaves open: words of the specification, and all parameters."""
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
