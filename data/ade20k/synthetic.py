"""An imitation of ADE20K-150: pictures of ellipses before a wall, and their label maps."""

from pathlib import Path

import numpy as np
from PIL import Image

from unilseg_jax.input_pipeline import stand_ins
from unilseg_jax.text.prompts import class_names

HEIGHT, WIDTH = 96, 128  # px
OBJECTS = 3


def write(root: Path, count: int, seed: int = 0) -> None:
    """Writes the files of a small data set.

    Args:
        root: the raw folder.
        count: pictures per split.
        seed: decides what is drawn.
    """
    rng = np.random.default_rng(seed)
    names = class_names("ade20k")
    for folder, prefix in (("training", "train"), ("validation", "val")):
        for kind in ("images", "annotations"):
            (root / kind / folder).mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            stem = f"ADE_{prefix}_{number:08d}"
            image, masks = stand_ins.draw(rng, HEIGHT, WIDTH, OBJECTS)
            background, *labels = rng.choice([name.label for name in names], OBJECTS + 1, replace=False)
            label_map = np.full((HEIGHT, WIDTH), background, np.uint8)
            # The lowest rows are "other objects", which are not evaluated.
            label_map[-HEIGHT // 12 :] = 0
            for mask, label in zip(masks, labels, strict=True):
                label_map[mask > 0] = label
            (root / "images" / folder / f"{stem}.jpg").write_bytes(stand_ins.jpeg(image))
            Image.fromarray(label_map).save(root / "annotations" / folder / f"{stem}.png")
    lines = ["Idx\tRatio\tTrain\tVal\tName", *(f"{name.label}\t0.0\t0\t0\t{name.native}" for name in names)]
    (root / "objectInfo150.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
