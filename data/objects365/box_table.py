"""The boxes of an annotation file in arrays: 25 million of them as Python objects would take tens of gigabytes."""

from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.coco_format import LISTS, CocoPicture, Fault, fields_of, picture_of, whole
from unilseg_jax.input_pipeline.json_stream import list_entries

# In pixels; a comparison with it is false for what is no number, too.
_MAX_COORDINATE = 1e9


class BoxTable:
    """Boxes by picture.

    Args:
        pictures: picture id of every box, in ascending order.
        numbers: ids of the boxes.
        categories: their category ids.
        boxes: x, y, width, height in pixels.
        names: of the categories, by id.
    """

    def __init__(
        self,
        pictures: Int64[np.ndarray, " n"],
        numbers: Int64[np.ndarray, " n"],
        categories: Int64[np.ndarray, " n"],
        boxes: Float32[np.ndarray, "n 4"],
        names: dict[int, str],
    ):
        self._pictures = pictures
        self._numbers = numbers
        self._categories = categories
        self._boxes = boxes
        self._names = names

    def of_picture(self, image_id: int) -> Iterator[tuple[int, str, tuple[float, float, float, float]]]:
        """Yields id, category and box of the objects of a picture, in the order of their ids."""
        first, end = np.searchsorted(self._pictures, [image_id, image_id + 1])
        for row in range(first, end):
            x, y, width, height = self._boxes[row].tolist()
            yield int(self._numbers[row]), self._names[int(self._categories[row])], (x, y, width, height)


def read_boxes(path: Path) -> tuple[BoxTable, list[CocoPicture], list[Fault]]:
    """Reads an annotation file.

    Crowds and fakes (`iscrowd`, `isfake`) are left out. With a crowd, or a box that is broken, all boxes of its
    category in its picture are left out, since the others would not be all of it.

    Args:
        path: of the JSON file; its lists may come in any order, and so may their entries.

    Returns:
        The boxes, the pictures in the order of the file, and what is wrong.

    Raises:
        UserError: the file is missing, is no JSON, or lacks a list.
    """
    pictures: dict[int, CocoPicture] = {}
    names: dict[int, str] = {}
    faults: list[Fault] = []
    rows = _Rows()
    for part, entry in list_entries(path, LISTS, "annotation file"):
        try:
            if part == "annotations":
                rows.add(entry)
                continue
            number = whole(entry, "id")
            if number in (pictures if part == "images" else names):
                raise UserError(f"the id {number} occurs twice; the first entry is kept")
            if part == "images":
                pictures[number] = picture_of(entry)
            else:
                names[number] = str(fields_of(entry).get("name", ""))
        except UserError as error:
            faults.append(Fault(part, fields_of(entry).get("id"), str(error)))
    return rows.table(pictures, names, faults), list(pictures.values()), faults


class _Rows:
    """Gathers boxes in columns that grow."""

    def __init__(self):
        self._pictures, self._numbers, self._categories = array("q"), array("q"), array("q")
        self._boxes = array("f")
        self._incomplete: set[tuple[int, int]] = set()

    def add(self, entry: object) -> None:
        """Adds an annotation.

        Raises:
            UserError: an id or the box is none.
        """
        image_id, category = whole(entry, "image_id"), whole(entry, "category_id")
        fields = fields_of(entry)
        if fields.get("isfake"):
            return
        if fields.get("iscrowd"):
            self._incomplete.add((image_id, category))
            return
        try:
            number, box = whole(entry, "id"), _box(fields.get("bbox"))
        except UserError:
            self._incomplete.add((image_id, category))
            raise
        self._pictures.append(image_id)
        self._numbers.append(number)
        self._categories.append(category)
        self._boxes.extend(box)

    def table(self, known: dict[int, CocoPicture], names: dict[int, str], faults: list[Fault]) -> BoxTable:
        """Sorts the rows by picture and id; what belongs to nothing or comes twice is added to the faults."""
        columns = (self._pictures, self._numbers, self._categories)
        pictures, numbers, categories = (np.frombuffer(column, np.int64) for column in columns)
        boxes = np.frombuffer(self._boxes, np.float32).reshape(-1, 4)
        order = np.lexsort((numbers, pictures))
        keep = np.isin(pictures, np.fromiter(known, np.int64, len(known)))
        named = np.isin(categories, np.fromiter(names, np.int64, len(names)))
        first = np.zeros(len(numbers), bool)
        first[np.unique(numbers, return_index=True)[1]] = True
        for sound, reason in (
            (keep, "its picture is not listed"),
            (named, "its category is unknown"),
            (first, "the id occurs twice; the first entry is kept"),
        ):
            faults.extend(Fault("annotations", int(number), reason) for number in numbers[~sound])
        keep = keep & named & first
        for image_id, category in self._incomplete:
            # The rows of a picture are few, so only they are looked at.
            start, end = np.searchsorted(pictures, [image_id, image_id + 1], sorter=order)
            own = order[start:end]
            keep[own[categories[own] == category]] = False
        order = order[keep[order]]
        return BoxTable(pictures[order], numbers[order], categories[order], boxes[order], names)


def _box(value: object) -> list[float]:
    sound = isinstance(value, list) and all(isinstance(v, int | float) and abs(v) < _MAX_COORDINATE for v in value)
    if not sound or len(value) != 4 or value[2] <= 0 or value[3] <= 0:
        raise UserError(f"the box is {value!r}, x, y and a width and height above 0 are wanted")
    return value
