"""Reads the labels of a network for semantic segmentation: a PNG beside each image, whose values are classes.

A mask has the name of its image, with ``.png``, and is in a folder of masks: ``images/a.jpg`` and ``masks/a.png``. Its
pixels are the indexes of the classes, in grey or in a palette; 255 does not count.
"""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from modelexport.api.spec import LabelKind
from modelexport.text import clean
from modelexport_converter.evaluation.truth import ClassMap, LabelledImage, LabelledSet, Size, Truth, invalid
from modelexport_converter.inputs.dataset import SHOWN, is_image
from modelexport_converter.inputs.image_bounds import Excessive, check_bytes, check_pixels
from modelexport_converter.inputs.images import ImageFile
from modelexport_converter.inputs.labelled_names import NAMES_FILES, is_mask

NAMES_LIMIT = 1 << 16


def read_masks(files: Sequence[ImageFile]) -> LabelledSet | None:
    """Return the images that have a mask; ``None`` if the data set has no folder of masks.

    Raises:
        Failure: no image has a mask of its name.
    """
    masks = {PurePosixPath(file.entry).stem: file for file in files if is_mask(file.entry)}
    if not masks:
        return None
    images = [file for file in files if is_image(file.entry) and not is_mask(file.entry)]
    pairs = [(image, masks.get(PurePosixPath(image.entry).stem)) for image in images]
    labelled = tuple(LabelledImage(image, partial(_open_mask, mask)) for image, mask in pairs if mask)
    if not labelled:
        raise invalid(f"none of the {len(images)} images has a mask of its name; name masks/a.png for images/a.jpg")
    missing = len(images) - len(labelled)
    remarks = (f"{missing} of the images have no mask",) if missing else ()
    return LabelledSet(LabelKind.MASK_PNG, _read_names(files), labelled, remarks)


def _read_names(files: Sequence[ImageFile]) -> tuple[str, ...]:
    """Return the names in ``classes.txt``, one per line; empty if there is no such file."""
    found = next((file for file in files if PurePosixPath(file.entry).name.lower() in NAMES_FILES), None)
    if found is None:
        return ()
    content = found.read()
    if len(content) > NAMES_LIMIT:
        raise invalid(f"{found.name} has more than {NAMES_LIMIT >> 10} KiB; give one name per line")
    return tuple(clean(line.strip(), SHOWN) for line in content.decode(errors="replace").splitlines() if line.strip())


def _open_mask(mask: ImageFile, size: Size) -> Truth:
    read = partial(_read_mask, mask, size)
    read()
    return read


def _read_mask(mask: ImageFile, size: Size) -> ClassMap:
    try:
        content = mask.read()
        check_bytes(content)
        image: Image.Image = Image.open(io.BytesIO(content), formats=("PNG",))
        check_pixels(*image.size)
        mode, values = image.mode, np.asarray(image)
    except MemoryError:
        raise
    except (Excessive, Image.DecompressionBombError) as error:
        raise invalid(f"{mask.name} has {clean(str(error), SHOWN)}; make it smaller, or save it again") from error
    except Exception as error:
        # Decoders raise all kinds of exceptions on broken data.
        raise invalid(f"{mask.name} cannot be read as a PNG ({clean(str(error), SHOWN)}); repair it") from error
    if mode not in ("L", "P", "1"):
        raise invalid(f"{mask.name} is a mask in {mode}; save the index of the class of each pixel in 8-bit grey")
    if image.size != size:
        shown = f"{image.width} x {image.height}"
        raise invalid(f"{mask.name} has {shown} pixels, its image {size[0]} x {size[1]}; give masks of its size")
    return np.asarray(values, np.uint8)
