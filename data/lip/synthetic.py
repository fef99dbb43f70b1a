"""An imitation of LIP: `TrainVal_images`, `TrainVal_parsing_annotations` and the lists of ids."""

from pathlib import Path

import numpy as np
from PIL import Image

from unilseg_jax.input_pipeline.stand_ins import draw, jpeg

PARTS = 3
# Small and upright, as LIP's pictures are.
HEIGHT, WIDTH = 72, 48


def write(root: Path, count: int, seed: int = 0) -> None:
    """Writes both splits; each picture has three parts, and all parts occur from seven pictures on.

    Args:
        root: the raw folder to be made.
        count: pictures per split.
        seed: of the drawings.
    """
    rng = np.random.default_rng(seed)
    for place, split in enumerate(("train", "val")):
        pictures = root / "TrainVal_images" / f"{split}_images"
        label_maps = root / "TrainVal_parsing_annotations" / f"{split}_segmentations"
        pictures.mkdir(parents=True, exist_ok=True)
        label_maps.mkdir(parents=True, exist_ok=True)
        ids = []
        for number in range(count):
            image, masks = draw(rng, HEIGHT, WIDTH, PARTS)
            parts = (PARTS * number + np.arange(PARTS)) % 19 + 1
            # The things do not touch.
            labels = (masks * parts[:, None, None]).sum(0)
            # The ids say which pictures of COCO these are; no two splits have one in common.
            other = place * count + number
            ids.append(f"{77 + other}_{471474 + other}")
            (pictures / f"{ids[-1]}.jpg").write_bytes(jpeg(image))
            Image.fromarray(labels.astype(np.uint8)).save(label_maps / f"{ids[-1]}.png")
        (root / f"{split}_id.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
