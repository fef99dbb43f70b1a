"""An imitation of Objects365: ellipses in patches, with an annotation file that is not sorted."""

import json
from pathlib import Path

import numpy as np

from unilseg_jax.input_pipeline import stand_ins
from unilseg_jax.ops.masks import mask_box

HEIGHT, WIDTH = 96, 144  # px
OBJECTS = 4
CATEGORIES = {1: "Person", 2: "Sneakers", 17: "Picture/Frame", 99: "Dinning Table", 306: "Crosswalk Sign"}


def write(root: Path, count: int, seed: int = 0) -> None:
    """Writes pictures and annotation files of both splits; in every picture the last object is a fake.

    Args:
        root: the raw folder.
        count: pictures per split.
        seed: decides what is drawn.
    """
    rng = np.random.default_rng(seed)
    for split in ("train", "val"):
        images, annotations = [], []
        for number in range(count):
            release, patch = (1, number % 16) if number % 2 == 0 else (2, 16 + number % 35)
            name = f"objects365_v{release}_{420917 + number:08d}.jpg"
            (root / split / f"patch{patch}").mkdir(parents=True, exist_ok=True)
            image, masks = stand_ins.draw(rng, HEIGHT, WIDTH, OBJECTS)
            (root / split / f"patch{patch}" / name).write_bytes(stand_ins.jpeg(image))
            file_name = f"images/v{release}/patch{patch}/{name}"
            images.append({"id": 420917 + number, "file_name": file_name, "height": HEIGHT, "width": WIDTH})
            for mask, category in zip(masks, rng.choice(list(CATEGORIES), OBJECTS, replace=False), strict=True):
                x, y, width, height = mask_box(mask)
                annotations.append(
                    {
                        "id": len(annotations) + 51,
                        "image_id": 420917 + number,
                        "category_id": int(category),
                        "bbox": [x + 0.25, y + 0.25, width - 0.5, height - 0.5],
                        "area": (width - 0.5) * (height - 0.5),
                        "iscrowd": 0,
                        "isfake": int(len(annotations) % OBJECTS == OBJECTS - 1),
                        "isreflected": 0,
                    }
                )
        content = {
            "annotations": [annotations[place] for place in rng.permutation(len(annotations))],
            "categories": [{"id": number, "name": name} for number, name in CATEGORIES.items()],
            "images": [images[place] for place in rng.permutation(len(images))],
            "licenses": [],
        }
        (root / f"zhiyuan_objv2_{split}.json").write_text(json.dumps(content), encoding="utf-8")
