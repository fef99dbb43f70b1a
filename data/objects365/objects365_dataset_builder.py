"""Objects365 (v2) as triplet records without phrases: pictures with the boxes of their objects."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import raw_files, triplet
from unilseg_jax.input_pipeline.builder import SetConfig, TripletBuilder
from unilseg_jax.input_pipeline.coco_format import CocoPicture
from unilseg_jax.text.prompts import clean

from .box_table import BoxTable, read_boxes

SPLITS = ("train", "val")
_PATCH = re.compile(r"patch\d+")
# Native names that `clean` leaves misspelt, cut short, or without the thing that they mean.
WORDING = {
    "Canned": "canned food",
    "Cue": "billiard cue",
    "Curling": "curling stone",
    "Dinning Table": "dining table",
    "Formula 1": "formula 1 car",
    "French": "french horn",
    "Mouse": "computer mouse",
    "Noddles": "noodles",
    "Other Balls": "ball",
    "Other Fish": "fish",
    "Other Shoes": "shoes",
    "Remote": "remote control",
    "Soccer": "soccer ball",
    "Table Tennis": "table tennis ball",
    "Tennis": "tennis ball",
    "Tong": "tongs",
    "Trash bin Can": "trash can",
}


class Builder(TripletBuilder):
    """Converts the annotation files of both splits."""

    HOMEPAGE = "https://www.objects365.org"
    LICENCE = "Objects365 annotations: CC BY 4.0; pictures: their owners on Flickr"
    BUILDER_CONFIGS = (
        SetConfig(
            name="objects365",
            description="boxes of 365 categories, without phrases",
            published={"train": (1742289, None, 0), "val": (80000, None, 0)},
            fetch="zhiyuan_objv2_train.json, zhiyuan_objv2_val.json and the patches from https://www.objects365.org",
            picture_places=[f"{split}/{place}patch*" for split in SPLITS for place in ("", "images/v*/")],
        ),
    )
    DEFAULT_BUILDER_CONFIG_NAME = "objects365"

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the configuration, if an annotation file is there."""
        return ["objects365"] if any(_file(raw, split) for split in SPLITS) else []

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return "zhiyuan_objv2_train.json or zhiyuan_objv2_val.json, and train/patch*/ or val/patch*/"

    def plan(self, raw: Path) -> dict[str, Sequence[CocoPicture]]:
        """Returns the pictures of each split in the order of its annotation file."""
        self._folders: dict[str, Path] = {}
        self._boxes: dict[str, BoxTable] = {}
        items: dict[str, Sequence[CocoPicture]] = {}
        for split in SPLITS:
            path = _file(raw, split)
            if path is None:
                continue
            boxes, pictures, faults = read_boxes(path)
            folder = (self.pictures or raw) / split
            if not folder.is_dir():
                reason = f"no folder of pictures {split}; the split is left out"
                self.conversion.lose_unplanned(split, path.name, reason, len(pictures))
                continue
            self._folders[split], self._boxes[split], items[split] = folder, boxes, pictures
            self.list_faults(split, path.name, faults, {picture.id for picture in pictures} if faults else ())
        return items

    def item_file(self, item: CocoPicture) -> str:
        """Returns the picture's name, or its id if it has none."""
        return str(item.file_name or item.id)

    def records(self, split: str, item: CocoPicture) -> Iterator[dict]:
        """Makes the record of a picture: a mask of kind "box" for each object, no phrase."""
        path = _picture(self._folders[split], item.file_name)
        picture = raw_files.read_picture(path, (item.height, item.width))
        found = []
        for number, category, box in self._boxes[split].of_picture(item.id):
            try:
                counts, inside = _filled(box, picture.height, picture.width)
            except UserError as error:
                self.conversion.skip(split, path.name, str(error), ann_id=number)
                continue
            words = WORDING.get(category) or clean(category)
            found.append(triplet.RecordMask(counts=counts, box=inside, category=words, kind="box", source_id=number))
        yield self.record(picture, image_id=path.stem, masks=found, task="none")


def _file(raw: Path, split: str) -> Path | None:
    name = f"zhiyuan_objv2_{split}.json"
    places = (Path(raw) / name, Path(raw) / split / name, Path(raw) / "annotations" / name)
    return next((place for place in places if place.is_file()), None)


def _picture(folder: Path, name: object) -> Path:
    """Returns the file of a picture; its name in the annotation file is such as `images/v1/patch8/NAME.jpg`.

    Raises:
        UserError: the name is of another form.
    """
    parts = name.split("/") if isinstance(name, str) else []
    if len(parts) < 2 or not _PATCH.fullmatch(parts[-2]):
        raise UserError(f"the picture's name is {name!r}, one that ends with patch…/NAME.jpg is wanted")
    inner = Path(parts[-2]) / raw_files.plain_name(parts[-1], "picture")
    # The archives of val unpack to images/v1 and images/v2.
    places = (folder / inner, folder / "images" / "v1" / inner, folder / "images" / "v2" / inner)
    return next((place for place in places if place.is_file()), places[0])


def _filled(
    box: tuple[float, float, float, float], height: int, width: int
) -> tuple[bytes, tuple[float, float, float, float]]:
    """Returns the run lengths of the whole pixels that a box touches, and the part of it inside the picture.

    Raises:
        UserError: nothing of the box is inside.
    """
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    right, bottom = min(box[0] + box[2], float(width)), min(box[1] + box[3], float(height))
    if right <= left or bottom <= top:
        shown = ", ".join(f"{value:g}" for value in box)
        raise UserError(f"the box {shown} has no part in the picture of {height} × {width}")
    x, y = int(left), int(top)
    pixels = np.array([[x, y, int(np.ceil(right)) - x, int(np.ceil(bottom)) - y]], np.float64)
    return coco_mask.frPyObjects(pixels, height, width)[0]["counts"], (left, top, right - left, bottom - top)
