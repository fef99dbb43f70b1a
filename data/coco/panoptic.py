"""COCO's panoptic maps: RGB pictures whose colours are the ids of segments."""

import io
from collections.abc import Collection
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64
from PIL import Image

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import coco_format, raw_files
from unilseg_jax.input_pipeline.stored_pictures import MAX_PIXELS


def read_segment_ids(path: Path, size: tuple[int, int]) -> Int64[np.ndarray, "h w"]:
    """Reads a panoptic PNG, whose colours are the segments' ids: R + 256 G + 65536 B.

    Args:
        path: of the file.
        size: height and width of its picture.

    Raises:
        UserError: it is missing, broken, no RGB file, or of another size.
    """
    encoded = raw_files.read_bytes(path, "panoptic map")
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG",)) as picture:
            if picture.mode != "RGB" or (picture.height, picture.width) != tuple(size):
                found = f"{picture.mode}, {picture.height} × {picture.width}"
                raise UserError(f"the panoptic map is {found}; RGB, {size[0]} × {size[1]} is wanted")
            if picture.height * picture.width > MAX_PIXELS:
                raise UserError(f"the panoptic map has more than {MAX_PIXELS} pixels")
            return np.asarray(picture).astype(np.int64) @ np.array([1, 256, 65536])
    except UserError:
        raise
    # Pillow reports broken files by many classes.
    except Exception as error:
        raise UserError(f"the panoptic map {path.name!r} is broken: {str(error) or type(error).__name__}") from None


def category_masks(
    annotation: dict, maps: Path, size: tuple[int, int], known: Collection[int]
) -> dict[int, Bool[np.ndarray, "h w"]]:
    """Returns a mask per category of a picture: the union of its segments, crowds with them.

    Args:
        annotation: of the picture, with `file_name` and `segments_info`.
        maps: folder of the panoptic maps.
        size: height and width of the picture.
        known: ids of all categories.

    Returns:
        The masks by category id, in the order of the ids.

    Raises:
        UserError: the map cannot be read, or does not have just the segments that the annotation lists.
    """
    ids = read_segment_ids(maps / raw_files.plain_name(annotation["file_name"], "panoptic map"), size)
    # The id 0 is what nobody labelled.
    categories = {0: 0}
    listed = annotation["segments_info"]
    for segment in listed if isinstance(listed, list) else []:
        number, category = (coco_format.whole(segment, field) for field in ("id", "category_id"))
        if category not in known:
            raise UserError(f"the segment {number} is of the category {category}, which is unknown")
        if number in categories:
            raise UserError(f"the segment {number} is listed twice")
        categories[number] = category
    numbers = np.sort(np.fromiter(categories, np.int64, len(categories)))
    place = np.searchsorted(numbers, ids).clip(max=len(numbers) - 1)
    unlisted = numbers[place] != ids
    if unlisted.any():
        raise UserError(f"the panoptic map has the segment {ids[unlisted][0]}, which its annotation does not list")
    drawn = np.bincount(place.ravel(), minlength=len(numbers))
    missing = [int(number) for number, pixels in zip(numbers, drawn, strict=True) if number and not pixels]
    if missing:
        raise UserError(f"the annotation lists the segment {missing[0]}, of which the panoptic map has no pixel")
    labels = np.array([categories[int(number)] for number in numbers])[place]
    return {label: labels == label for label in sorted(set(categories.values()) - {0})}
