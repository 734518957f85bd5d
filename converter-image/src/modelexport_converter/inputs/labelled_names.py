"""Finds labelled images and what belongs to them by the names of the files alone, before anything is opened. Pure."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from modelexport_converter.inputs.dataset import is_hidden, is_image, sort_key

MASK_FOLDERS = ("masks", "mask", "labels", "annotations", "segmentationclass", "gt", "ground_truth")
"""Names of folders of masks, in lower case."""
DESCRIPTIONS = (".json", ".yaml", ".yml")
NAMES_FILES = ("classes.txt", "labels.txt")
"""Files with the names of the classes of masks, one per line."""
DESCRIPTIONS_LIMIT = 20
"""Files that describe a whole folder: more of them are labels of a kind that is not read."""


def is_mask(name: str) -> bool:
    """Return whether a name is that of a mask: a PNG in a folder of masks."""
    path = PurePosixPath(name)
    folders = {part.lower() for part in path.parts[:-1]}
    return path.suffix.lower() == ".png" and not is_hidden(name) and bool(folders & set(MASK_FOLDERS))


def text_name(image: str) -> str:
    """Return the name of YOLO's text file of an image: in ``labels`` where the image is in ``images``."""
    path = PurePosixPath(image)
    parts = list(path.parts)
    if "images" in parts[:-1]:
        parts[max(place for place, part in enumerate(parts[:-1]) if part == "images")] = "labels"
    return str(PurePosixPath(*parts).with_suffix(".txt"))


def is_description(name: str) -> bool:
    """Return whether a name is that of a file which describes the whole data set."""
    path = PurePosixPath(name.lower())
    return not is_hidden(name) and (path.suffix in DESCRIPTIONS or path.name in NAMES_FILES)


def select_labelled(names: Sequence[str], count: int) -> list[str]:
    """Return the first images of a folder in the order of ``sort_key``, their labels, and the descriptions."""
    known = set(names)
    masks = {PurePosixPath(name).stem: name for name in names if is_mask(name)}
    images = sorted((name for name in names if is_image(name) and not is_mask(name)), key=sort_key)[:count]
    texts = [text for image in images if (text := text_name(image)) in known]
    own = [mask for image in images if (mask := masks.get(PurePosixPath(image).stem))]
    described = sorted(name for name in names if is_description(name))[:DESCRIPTIONS_LIMIT]
    return [*dict.fromkeys((*images, *texts, *own, *described))]
