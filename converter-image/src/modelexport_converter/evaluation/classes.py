"""Matches the classes of labels with those of a model, by their names or by their places."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from modelexport.api.spec import LabelKind
from modelexport.matrix.support import Task
from modelexport.text import clean
from modelexport_converter.evaluation.opening import CheckedImage, EvaluationSet
from modelexport_converter.evaluation.scoring import keypoint_sigmas, paint
from modelexport_converter.evaluation.truth import VOID, ClassMap, Truth, invalid
from modelexport_converter.model import LoadedModel
from modelexport_converter.verification.agreement import run_model

SHOWN_CLASSES, SHOWN_CHARACTERS = 8, 30
BACKGROUND = ("background", "__background__", "_background_")
BY_NAME, BY_PLACE = "name", "place"


@dataclass(frozen=True)
class MatchedImages:
    """The images of an evaluation with labels in the classes of the model, and by what these were matched.

    ``sigmas`` are the constants of the keypoints, if the labels have some; ``digest`` identifies the images.
    """

    images: tuple[CheckedImage, ...]
    matched_by: str
    sigmas: tuple[float, ...]
    digest: str


def match_images(found: EvaluationSet, model: LoadedModel, task: Task) -> MatchedImages:
    """Return the images with their labels in the classes of the model.

    Raises:
        Failure: ``EvaluationInvalid``: the labels have other classes, or other keypoints.
    """
    places, matched_by = _match(found, model, task)
    elsewhere = _class_without_object(model.class_names, found.labels.classes, places)
    images = tuple(replace(image, truth=_translate(image, places, task, elsewhere)) for image in found.images)
    sigmas = _check_keypoints(found, model) if task is Task.KEYPOINTS else ()
    return MatchedImages(images, matched_by, sigmas, found.digest)


def _check_keypoints(found: EvaluationSet, model: LoadedModel) -> tuple[float, ...]:
    """Return the constants of the keypoints' similarity if the labels have as many keypoints as the model."""
    place = [output.name for output in model.outputs].index("keypoints")
    own = run_model(model, model.example_input().numpy())[place].shape[1]
    for image in found.images:
        for one in image.truth if isinstance(image.truth, tuple) else ():
            if one.keypoints is not None and len(one.keypoints) != own:
                raise invalid(
                    f"an object in {image.file.name} has {len(one.keypoints)} keypoints, the model has {own}; "
                    "give labels of the model's keypoints, in its order"
                )
    return tuple(keypoint_sigmas(own, found.labels.sigmas).tolist())


def _match(found: EvaluationSet, model: LoadedModel, task: Task) -> tuple[Mapping[int, int], str]:
    """Return the model's index for each index of the labels."""
    own, used = found.labels.classes, found.used - ({VOID} if found.labels.kind is LabelKind.MASK_PNG else set())
    if task is Task.SEMANTIC_SEGMENTATION and len(model.class_names) == 1:
        # A single class has the pixels above 0.5; masks of two values have 1 or 255 for them.
        return {index: int(index > 0 or found.labels.kind is not LabelKind.MASK_PNG) for index in range(256)}, BY_PLACE
    # A checkpoint without names of its classes has these.
    generated = all(name in (f"class_{index}", "background") for index, name in enumerate(model.class_names))
    if own and not generated:
        return _by_name(own, used, model.class_names), BY_NAME
    return _by_place(found, used, model), BY_PLACE


def _by_name(own: Sequence[str], used: frozenset[int], names: Sequence[str]) -> Mapping[int, int]:
    known = {_plain(name): index for index, name in enumerate(names)}
    unknown = [own[index] if index < len(own) else f"number {index}" for index in sorted(used)]
    unknown = [name for name in unknown if _plain(name) not in known]
    if unknown:
        raise invalid(
            f"the labels have classes that the model does not have: {_show(unknown)}; the labels have {_show(own)}, "
            f"the model has {_show(names)}; give labels of the model's classes, with its names"
        )
    return {index: known[_plain(name)] for index, name in enumerate(own) if _plain(name) in known}


def _by_place(found: EvaluationSet, used: frozenset[int], model: LoadedModel) -> Mapping[int, int]:
    names, own = model.class_names, found.labels.classes
    offset = int(names[0] in BACKGROUND and found.labels.kind is not LabelKind.MASK_PNG)
    classes = len(names) - offset
    count = len(own) or max(used) + 1
    if (own and count != classes) or count > classes:
        raise invalid(
            f"the labels have {count} classes{f' ({_show(own)})' if own else ''}, the model has {classes}, "
            "without names; give labels of the model's classes, in its order"
        )
    return {index: index + offset for index in range(count)}


def _plain(name: str) -> str:
    """Return a name as it is compared: without the difference of case, spaces, hyphens and underscores."""
    words = name.casefold().replace("_", " ").replace("-", " ").split()
    return BACKGROUND[0] if words == [BACKGROUND[0]] else " ".join(words)


def _show(names: Sequence[str]) -> str:
    shown = ", ".join(clean(name, SHOWN_CHARACTERS) for name in names[:SHOWN_CLASSES])
    return f"{shown}, ... ({len(names)})" if len(names) > SHOWN_CLASSES else shown


def _class_without_object(names: Sequence[str], own: Sequence[str], places: Mapping[int, int]) -> int:
    """Return the class of pixels that no outline covers: the background of the model, or of the labels.

    A single class always has a background. Where there is none, every pixel is of some class, and what nobody outlined
    is unlabelled and does not count.
    """
    if len(names) == 1:
        return 0
    of_model = [index for index, name in enumerate(names) if _plain(name) == BACKGROUND[0]]
    of_labels = [places[index] for index, name in enumerate(own) if _plain(name) == BACKGROUND[0] and index in places]
    return (*of_model, *of_labels, VOID)[0]


def _translate(image: CheckedImage, places: Mapping[int, int], task: Task, elsewhere: int) -> Truth:
    truth = image.truth
    if isinstance(truth, int):
        return places[truth]
    if isinstance(truth, tuple):
        objects = tuple(replace(one, label=places[one.label]) for one in truth)
        return partial(paint, objects, image.size, elsewhere) if task is Task.SEMANTIC_SEGMENTATION else objects
    table = np.full(256, VOID, np.uint8)
    for index, place in places.items():
        table[index] = place
    return partial(_look_up, truth, table)


def _look_up(read: Callable[[], ClassMap], table: ClassMap) -> ClassMap:
    return np.asarray(table[read()])
