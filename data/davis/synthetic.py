"""Writes an imitation of DAVIS 2016 in its own format."""

from pathlib import Path

import numpy as np
from PIL import Image

from unilseg_jax.input_pipeline.stand_ins import draw, jpeg

SIZE = (48, 84)  # height, width
SEQUENCES = ("blackswan", "camel")  # of each split, in turn


def write(root: Path, count: int, seed: int = 0) -> None:
    """Writes `count` frames per split: pictures, masks and lists; the frames of a split are of two sequences.

    Args:
        root: raw folder to be made.
        count: frames per split.
        seed: decides the drawings.
    """
    rng = np.random.default_rng(seed)
    for split in ("train", "val"):
        lines = []
        for number in range(count):
            sequence = f"{split}-{SEQUENCES[number % 2]}"
            name = f"480p/{sequence}/{number // 2:05d}"
            image, (mask,) = draw(rng, *SIZE, 1)
            picture, drawn = root / "JPEGImages" / f"{name}.jpg", root / "Annotations" / f"{name}.png"
            for path in (picture, drawn):
                path.parent.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(jpeg(image))
            Image.fromarray(mask * np.uint8(255)).save(drawn)
            lines.append(f"/JPEGImages/{name}.jpg /Annotations/{name}.png\n")
        path = root / "ImageSets" / "480p" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
