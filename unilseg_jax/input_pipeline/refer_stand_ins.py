"""COCO pictures and their annotation file, drawn for the imitations of referring data sets."""

import json
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from unilseg_jax.input_pipeline import stand_ins
from unilseg_jax.ops import masks

HEIGHT, WIDTH = 96, 128
# Ids and names as in COCO; the objects of a picture have them in this order, from left to right.
CATEGORIES = {1: "person", 3: "car", 18: "dog"}
CROWD_COLUMNS = 4


class CocoStandIn:
    """Draws pictures and keeps what `instances_*.json` says of them.

    Every object is given as two polygons that overlap. Every picture has a crowd besides, as run lengths: the
    last `CROWD_COLUMNS` columns.

    Args:
        folder: of the pictures.
        file_name: their names, with `{}` for the id.
        seed: decides what is drawn.
    """

    def __init__(self, folder: Path, file_name: str, seed: int = 0):
        self._folder = Path(folder)
        self._file_name = file_name
        self._seed = seed
        self._content: dict[str, list[dict]] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": key, "name": name} for key, name in CATEGORIES.items()],
        }
        self._folder.mkdir(parents=True, exist_ok=True)

    def add(self, image_id: int, objects: int = 2) -> list[dict]:
        """Draws a picture.

        Args:
            image_id: its id in COCO.
            objects: how many, at most one of each category.

        Returns:
            The annotations of its objects, from left to right, and at last that of the crowd.
        """
        # By the id, so that pictures of two data sets are different ones.
        rng = np.random.default_rng([self._seed, image_id])
        image, object_masks = stand_ins.draw(rng, HEIGHT, WIDTH, objects)
        file_name = self._file_name.format(image_id)
        (self._folder / file_name).write_bytes(stand_ins.jpeg(image))
        self._content["images"].append({"id": image_id, "file_name": file_name, "height": HEIGHT, "width": WIDTH})
        annotations = [
            {**_described(mask, 0), "segmentation": _two_polygons(mask), "category_id": category}
            for mask, category in zip(object_masks, CATEGORIES, strict=False)
        ]
        crowd = np.zeros((HEIGHT, WIDTH), np.uint8)
        crowd[:, -CROWD_COLUMNS:] = 1
        runs = [HEIGHT * (WIDTH - CROWD_COLUMNS), HEIGHT * CROWD_COLUMNS]
        annotations.append(
            {**_described(crowd, 1), "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs}, "category_id": 1}
        )
        for number, annotation in enumerate(annotations):
            annotation |= {"id": 10 * image_id + number, "image_id": image_id}
        self._content["annotations"] += annotations
        return annotations

    def save(self, path: Path) -> None:
        """Writes the annotation file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self._content), encoding="utf-8")


def _described(mask: UInt8[np.ndarray, "h w"], crowd: int) -> dict:
    return {"iscrowd": crowd, "area": int(mask.sum()), "bbox": list(masks.mask_box(mask))}


def _two_polygons(mask: UInt8[np.ndarray, "h w"]) -> list[list[float]]:
    """Returns the outlines of a mask's left and right part, which share some columns."""
    x, _, width, _ = masks.mask_box(mask)
    middle, columns = int(x + width / 2), np.arange(mask.shape[1])
    left, right = columns <= middle + 2, columns >= middle - 2
    return [stand_ins.polygon(np.ascontiguousarray(mask * part.astype(np.uint8)[None])) for part in (left, right)]
