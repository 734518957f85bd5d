"""Reads the labels of a classifier: one folder of images per class, as torchvision and ultralytics take them."""

from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath

from modelexport.api.spec import LabelKind
from modelexport.text import clean
from modelexport_converter.evaluation.truth import LabelledImage, LabelledSet, Size, Truth, invalid
from modelexport_converter.inputs.dataset import SHOWN, is_image
from modelexport_converter.inputs.images import ImageFile

SPLITS = ("val", "valid", "validation", "test")
"""Folders of a split: of the first of them that is there, only its images are taken."""
FOLDERS_LIMIT = 20_000


def read_folders(files: Sequence[ImageFile]) -> LabelledSet | None:
    """Return the images of a data set by the folders in which they are; ``None`` if these are not several.

    Raises:
        Failure: there are too many folders.
    """
    every = [file for file in files if is_image(file.entry)]
    of_splits = ([image for image in every if split in PurePosixPath(image.entry).parts[:-2]] for split in SPLITS)
    images = next(filter(None, of_splits), every)
    folders = [PurePosixPath(image.entry).parent for image in images]
    names = sorted({folder.name for folder in folders})
    if len(names) < 2 or "" in names or len({folder.parent for folder in folders}) != 1:
        return None
    if len(names) > FOLDERS_LIMIT:
        raise invalid(f"the data set has {len(names):,} folders, at most {FOLDERS_LIMIT:,} classes are read")
    index = {name: place for place, name in enumerate(names)}
    labelled = tuple(
        LabelledImage(image, partial(_constant, index[folder.name]))
        for image, folder in zip(images, folders, strict=True)
    )
    return LabelledSet(LabelKind.IMAGE_FOLDER, tuple(clean(name, SHOWN) for name in names), labelled)


def _constant(label: int, _: Size) -> Truth:
    """Return the class of an image; its size does not matter."""
    return label
