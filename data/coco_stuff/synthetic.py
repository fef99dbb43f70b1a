"""An imitation of COCO-Stuff: ellipses under a sky and on grass, with pixel maps and JSON files of stuff."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from unilseg_jax.input_pipeline import stand_ins
from unilseg_jax.ops.masks import mask_box, mask_to_rle
from unilseg_jax.text.prompts import class_names

HEIGHT, WIDTH = 96, 128  # px
OBJECTS = 3
SKY, GRASS, OTHER = 157, 124, 183
UNLABELED = 255


def write(root: Path, count: int, seed: int = 0) -> None:
    """Writes pictures, pixel maps and JSON files of both splits; every second map is squeezed to 171 classes.

    Args:
        root: the raw folder.
        count: pictures per split.
        seed: decides what is drawn.
    """
    rng = np.random.default_rng(seed)
    for first, folder in ((9, "train2017"), (139, "val2017")):
        _write_split(root, folder, range(first, first + 3 * count, 3), rng)


def _write_split(root: Path, folder: str, image_ids: range, rng: np.random.Generator) -> None:
    names = class_names("coco_stuff")
    labels = [name.label for name in names]
    maps = root / "stuffthingmaps_trainval2017" / folder
    for path in (root / folder, maps, root / "annotations"):
        path.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number, image_id in enumerate(image_ids):
        image, masks = stand_ins.draw(rng, HEIGHT, WIDTH, OBJECTS)
        ground = masks.max(0) == 0
        above = np.arange(HEIGHT)[:, None] < HEIGHT // 2
        image[ground & above] += np.array([0, 40, 120], np.uint8)
        image[ground & ~above] += np.array([0, 90, 0], np.uint8)
        (root / folder / f"{image_id:012d}.jpg").write_bytes(stand_ins.jpeg(image))
        images.append({"id": image_id, "file_name": f"{image_id:012d}.jpg", "height": HEIGHT, "width": WIDTH})
        drawn = np.where(above, SKY, GRASS) * np.ones((1, WIDTH), np.int64)
        # The last row is what nobody labelled.
        drawn[-1] = 0
        for mask, label in zip(masks, rng.choice(labels[:80], OBJECTS, replace=False), strict=True):
            drawn[mask > 0] = label
        squeezed = number % 2 == 1
        values = np.searchsorted(labels, drawn) if squeezed else drawn - 1
        values[drawn == 0] = UNLABELED
        ending = "_labelTrainIds" if squeezed else ""
        Image.fromarray(values.astype(np.uint8)).save(maps / f"{image_id:012d}{ending}.png")
        annotations += _stuff(image_id, drawn)
    categories = [{"id": name.label, "name": name.native} for name in names if name.label > 91]
    content = {
        "info": {"description": "stand-in"},
        "images": images,
        "annotations": annotations,
        "categories": [*categories, {"id": OTHER, "name": "other"}],
    }
    (root / "annotations" / f"stuff_{folder}.json").write_text(json.dumps(content), encoding="utf-8")


def _stuff(image_id: int, drawn: np.ndarray) -> list[dict]:
    """Returns the annotations of a picture: compressed run lengths, one for each class and one for the rest."""
    annotations = []
    for label in (SKY, GRASS, OTHER):
        mask = ((drawn == label) if label != OTHER else (drawn < 92)).astype(np.uint8)
        annotations.append(
            {
                "id": 10_000_000 + image_id * 10 + len(annotations),
                "image_id": image_id,
                "category_id": label,
                "bbox": list(mask_box(mask)),
                "area": float(mask.sum()),
                "iscrowd": 0,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": mask_to_rle(mask).decode("ascii")},
            }
        )
    return annotations
