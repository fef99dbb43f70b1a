"""RefCOCOs as triplet records: harder expressions (negation, relations, nothing) on COCO val2017; a test set.

The file names an object by its box alone, so its mask is that of the COCO object with this box.
"""

import functools
from pathlib import Path
from typing import TypeGuard

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.builder import SetConfig
from unilseg_jax.input_pipeline.json_file import read_json
from unilseg_jax.input_pipeline.refer import ReferBuilder
from unilseg_jax.ops.masks import MAX_COORDINATE

ITEMS = "refcocos_test.json"
INSTANCES = ("instances_val2017.json", "annotations/instances_val2017.json")
# Boxes that were taken over from COCO agree but for rounding; those that were drawn by hand do not.
TOLERANCE = 0.05


class Builder(ReferBuilder):
    """Converts RefCOCOs' list and COCO's annotations."""

    HOMEPAGE = "https://github.com/kuoyang1999/refcocos-annotator"
    LICENCE = "RefCOCOs: MIT; COCO annotations: CC BY 4.0; pictures: their owners on Flickr"
    PICTURE_FOLDERS = ("val2017", "images/val2017")
    BUILDER_CONFIGS = [  # noqa: RUF012
        # The list grew while it was made; these are the pictures and expressions of its last state.
        SetConfig(
            name="refcocos",
            description="RefCOCOs, test",
            published={"test": (460, None, 506)},
            fetch="results/refcocos_test.json from https://github.com/kuoyang1999/refcocos-annotator; pictures and "
            "instances_val2017.json: http://images.cocodataset.org/zips/val2017.zip and "
            "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
            picture_places=PICTURE_FOLDERS,
        )
    ]
    # One box in eight was drawn by hand around something that COCO has no mask of.
    max_skipped = 0.2

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the configuration if its list lies in the raw folder."""
        return ["refcocos"] if (Path(raw) / ITEMS).is_file() else []

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return f"{ITEMS}, {INSTANCES[0]} and val2017/"

    def read(self, raw: Path) -> tuple[list, str, Path]:
        """Returns the items as refs, the name of their file, and the path of the annotation file.

        Items of one picture with one box are one ref, and their `ann_id` is the box.
        """
        report = functools.partial(self.conversion.skip, "", ITEMS)
        items = read_json(raw / ITEMS, "list of expressions", report)
        if not isinstance(items, list):
            raise UserError(f"{ITEMS} holds a {type(items).__name__}, a list of expressions is wanted")
        refs: dict[tuple[int, str], dict] = {}
        seen = set()
        for number, item in enumerate(items):
            try:
                image_id, text = _image_id(item), item["normal_caption"]
            except (LookupError, TypeError, ValueError, AttributeError):
                self.conversion.skip("test", ITEMS, f"item number {number} has no picture of COCO or no normal_caption")
                continue
            if (image_id, repr(text)) in seen:
                reason = f"the expression {text!r} occurs twice; the first one is kept"
                self.conversion.skip("test", ITEMS, reason, image_id=image_id)
                continue
            seen.add((image_id, repr(text)))
            ref = {"ref_id": number, "image_id": image_id, "split": "test", "ann_id": item.get("solution")}
            ref = refs.setdefault((image_id, repr(ref["ann_id"])), ref | {"sentences": []})
            ref["sentences"].append({"sent": text, "sent_id": item.get("annotation_id", "")})
        there = [path for path in INSTANCES if (raw / path).is_file()]
        return list(refs.values()), ITEMS, raw / (there or INSTANCES)[0]

    def targets(self, ref: dict) -> list[int]:
        """Returns the object whose box is the ref's."""
        box = ref["ann_id"]
        if box is None:
            return []
        if not _is_four_coordinates(box):
            raise UserError(f"the solution is {box!r}, a box [x1, y1, x2, y2] or null is wanted")
        objects = [entry for entry in self.coco.annotations.get(ref["image_id"], []) if not entry["iscrowd"]]
        found = [entry["id"] for entry in objects if _is_box(entry["bbox"], box)]
        if len(found) != 1:
            raise UserError(f"{len(found)} objects of COCO have the box {box!r}, one is wanted for a mask")
        return found


def _image_id(item: dict) -> int:
    """Returns the id that a picture's name carries, `000000000139.jpg`."""
    return int(item["file_name"].removesuffix(".jpg"))


def _is_four_coordinates(value: object) -> TypeGuard[list[float]]:
    if not isinstance(value, list) or len(value) != 4:
        return False
    return all(isinstance(number, int | float) and abs(number) <= MAX_COORDINATE for number in value)


def _is_box(bbox: object, corners: list[float]) -> bool:
    """Whether COCO's x, y, width, height are these corners."""
    if not _is_four_coordinates(bbox):
        return False
    x, y, width, height = bbox
    wanted = (x, y, x + width, y + height)
    return all(abs(a - b) <= TOLERANCE for a, b in zip(wanted, corners, strict=True))
