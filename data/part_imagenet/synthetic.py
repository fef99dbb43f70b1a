"""An imitation of PartImageNet_Seg: pictures, label maps, and the annotation files in the form of COCO."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from unilseg_jax.input_pipeline.stand_ins import draw, jpeg, polygon
from unilseg_jax.text.prompts import class_names

PARTS = 3
HEIGHT, WIDTH = 60, 90
BACKGROUND = 40


def write(root: Path, count: int, seed: int = 0) -> None:
    """Writes the three splits; each picture has three things of two parts, and all parts occur from 20 pictures on.

    Args:
        root: the raw folder to be made.
        count: pictures per split.
        seed: of the drawings.
    """
    rng = np.random.default_rng(seed)
    for split in ("train", "val", "test"):
        pictures, label_maps = root / "images" / split, root / "annotations" / split
        pictures.mkdir(parents=True, exist_ok=True)
        label_maps.mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for number in range(count):
            image, masks = draw(rng, HEIGHT, WIDTH, PARTS)
            first = 2 * number % BACKGROUND
            # The first part consists of two pieces, as the feet of an animal do.
            parts = (first, first + 1, first)
            stem = f"n0{1440764 + number}_{10029 + number}"
            labels = np.full((HEIGHT, WIDTH), BACKGROUND, np.uint8)
            for part, mask in zip(parts, masks, strict=True):
                labels[mask > 0] = part
                annotations.append(_annotation(len(annotations), number, part, mask))
            images.append({"id": number, "file_name": f"{stem}.JPEG", "height": HEIGHT, "width": WIDTH})
            (pictures / f"{stem}.JPEG").write_bytes(jpeg(image))
            Image.fromarray(labels).save(label_maps / f"{stem}.png")
            (label_maps / f"{stem}.json").write_text(json.dumps({"imgHeight": HEIGHT, "imgWidth": WIDTH}))
        categories = [
            {"id": row.label, "name": row.native, "supercategory": row.native.split()[0]}
            for row in class_names("part_imagenet")
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (label_maps / f"{split}.json").write_text(json.dumps(content))


def _annotation(number: int, image_id: int, part: int, mask: np.ndarray) -> dict:
    rows, columns = np.nonzero(mask)
    x, y = int(columns.min()), int(rows.min())
    return {
        "id": number,
        "image_id": image_id,
        "category_id": part,
        "bbox": [x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": [polygon(mask)],
    }
