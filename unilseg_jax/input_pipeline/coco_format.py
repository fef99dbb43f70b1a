"""Annotation files in the form of COCO: parsed entry by entry, grouped by picture.

The large ones (Objects365: some gigabytes, 25 million boxes) do not fit into memory as one Python object, so
a file is read as a stream, and of an annotation only the fields that a builder names are kept.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.json_stream import list_entries
from unilseg_jax.input_pipeline.triplet import is_utf8
from unilseg_jax.ops import masks
from unilseg_jax.text.prompts import ClassName

LISTS = ("images", "annotations", "categories")


class CocoPicture(NamedTuple):
    """An entry of `images`, as it stands in the file: nothing of it but the id was checked.

    Attributes:
        id: of the picture.
        file_name: of the picture.
        height: in pixels.
        width: in pixels.
    """

    id: int
    file_name: object
    height: object
    width: object


class Fault(NamedTuple):
    """An entry that is left out.

    Attributes:
        part: the list it stands in.
        id: its id.
        reason: what is wrong with it.
    """

    part: str
    id: object
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class CocoFile:
    """An annotation file.

    Attributes:
        pictures: by id, in the order of the file.
        categories: names by id.
        annotations: the fields that were asked for, by picture id.
        faults: what was left out.
    """

    pictures: dict[int, CocoPicture]
    categories: dict[int, str]
    annotations: dict[int, list[dict]]
    faults: list[Fault]


def read_coco(path: Path, fields: Collection[str], *, key: str = "id") -> CocoFile:
    """Reads an annotation file.

    Args:
        path: of the JSON file.
        fields: of an annotation, to be kept; None where it lacks one.
        key: the field in which no two annotations may be equal (panoptic ones have no id of their own).

    Raises:
        UserError: the file is missing, is no JSON, or lacks one of `LISTS`.
    """
    pictures: dict[int, CocoPicture] = {}
    categories: dict[int, str] = {}
    annotations: dict[int, list[dict]] = {}
    faults: list[Fault] = []
    seen: set[int] = set()
    for part, entry in list_entries(path, LISTS, "annotation file"):
        try:
            if part == "images":
                picture = picture_of(entry)
                _check_new(picture.id, pictures)
                pictures[picture.id] = picture
            elif part == "categories":
                category = whole(entry, "id")
                _check_new(category, categories)
                name = str(fields_of(entry).get("name", ""))
                if not is_utf8(name):
                    raise UserError(f"the category's name {name!r} is not UTF-8")
                categories[category] = name
            else:
                number, image_id = whole(entry, key), whole(entry, "image_id")
                _check_new(number, seen)
                seen.add(number)
                annotations.setdefault(image_id, []).append({name: fields_of(entry).get(name) for name in fields})
        except UserError as error:
            faults.append(Fault(part, fields_of(entry).get("id"), str(error)))
    # The lists may come in any order, so this is known only now.
    for image_id in [image_id for image_id in annotations if image_id not in pictures]:
        for kept in annotations.pop(image_id):
            faults.append(Fault("annotations", kept.get("id"), f"its picture {image_id} is not listed"))
    return CocoFile(pictures=pictures, categories=categories, annotations=annotations, faults=faults)


def find_pictures(raw: Path, pictures: Path | None, folder: str) -> Path | None:
    """Returns the folder of a split's pictures, None if it is not there.

    Args:
        raw: the raw folder.
        pictures: the folder that holds `folder`, if the user named it.
        folder: COCO's name of the split, such as `train2017`.
    """
    places = (raw, raw / "images") if pictures is None else (pictures,)
    return next((place / folder for place in places if (place / folder).is_dir()), None)


def picture_of(entry: object) -> CocoPicture:
    """Returns an entry of `images`.

    Raises:
        UserError: it has no id.
    """
    fields = fields_of(entry)
    return CocoPicture(whole(entry, "id"), fields.get("file_name"), fields.get("height"), fields.get("width"))


def fields_of(entry: object) -> dict:
    """Returns an entry as it is, or an empty one for what is no JSON object."""
    return entry if isinstance(entry, dict) else {}


def whole(entry: object, field: str) -> int:
    """Returns a field that must be a whole number of 64 bits, such as an id.

    Raises:
        UserError: it is not there, or something else.
    """
    value = fields_of(entry).get(field)
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise UserError(f"an entry whose {field} is {value!r}, a whole number is wanted")
    return value


def check_categories(file: CocoFile, names: Mapping[int, ClassName], passed_over: Collection[int] = ()) -> None:
    """Takes the annotations of categories without a name out of a file's, and adds them to its faults.

    Where the category is no number at all, the annotation stays for `category_masks`, which refuses it.

    Args:
        file: is changed.
        names: of the categories that are wanted, by id.
        passed_over: categories that are left out without a word.

    Raises:
        UserError: the file numbers its categories in another way.
    """
    for number, found in file.categories.items():
        if number in names and found != names[number].native:
            raise UserError(
                f"category {number} of the annotation file is {found!r}, {names[number].native!r} is wanted"
            )
    for image_id, annotations in file.annotations.items():
        kept = []
        for entry in annotations:
            category = entry["category_id"]
            if not isinstance(category, int) or category in names:
                kept.append(entry)
            elif category not in passed_over:
                file.faults.append(Fault("annotations", entry.get("id"), f"the category {category} is unknown"))
        file.annotations[image_id] = kept


def category_masks(
    annotations: Iterable[dict], height: int, width: int
) -> tuple[dict[int, UInt8[np.ndarray, "h w"]], list[tuple[dict, str]]]:
    """Draws one mask per category: the union of its annotations, crowds with them.

    A polygon of fewer than 3 points has no area, so a category is complete without it, if anything else is left.

    Args:
        annotations: of a picture, with `id`, `category_id` and `segmentation`.
        height: of the picture, in pixels.
        width: of the picture, in pixels.

    Returns:
        The masks by category id, in the order of the ids, and the annotations that have such a polygon, with the
        reason.

    Raises:
        UserError: a category cannot be drawn, or not all of it. The picture cannot be used then: without the mask
            it would pass for one in which the category is absent.
    """
    drawn: dict[int, np.ndarray] = {}
    faults: list[tuple[dict, str]] = []
    for annotation in annotations:
        segmentation = annotation["segmentation"]
        polygons = segmentation if isinstance(segmentation, list) else []
        shaped = [polygon for polygon in polygons if not isinstance(polygon, list) or len(polygon) >= 6]
        if len(shaped) < len(polygons):
            faults.append((annotation, "a polygon has fewer than 3 points; it is left out"))
        try:
            category = whole(annotation, "category_id")
            if polygons and not shaped:
                mask = np.zeros((height, width), np.uint8)
            else:
                mask = masks.segmentation_to_mask(shaped or segmentation, height, width)
        except UserError as error:
            raise UserError(f"the annotation {annotation.get('id')}: {error}") from None
        drawn[category] = drawn[category] | mask if category in drawn else mask
    for category in sorted(drawn):
        if not drawn[category].any():
            raise UserError(f"the category {category} has no pixel in the picture")
    return dict(sorted(drawn.items())), faults


def _check_new(number: int, known: Collection[int]) -> None:
    if number in known:
        raise UserError(f"the id {number} occurs twice; the first entry is kept")
