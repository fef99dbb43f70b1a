"""An imitation of ECSSD, DUTS, SOD and PASCAL-S with their folders and file names, and of pairs of one's own."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from unilseg_jax.input_pipeline.stand_ins import draw, jpeg

HEIGHT, WIDTH = 60, 80
# Folders of pictures and masks, and the pictures' names.
SETS = (
    ("ECSSD/images", "ECSSD/ground_truth_mask", "{:04d}"),
    ("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask", "n01532829_{:d}"),
    ("DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask", "ILSVRC2012_test_{:08d}"),
    ("SOD/Imgs", "SOD/Imgs", "{:d}"),
    ("PASCAL-S/datasets/imgs/pascal", "PASCAL-S/datasets/masks/pascal", "{:d}"),
    ("own/images", "own/masks", "{:d}"),
)
MODES = ("1", "L", "P", "RGB", "RGBA")


def write(root: Path, count: int, seed: int = 0) -> None:
    """Writes all sets.

    Args:
        root: the raw folder to be made.
        count: pictures per split.
        seed: of the drawings.
    """
    rng = np.random.default_rng(seed)
    for pictures, masks, name in SETS:
        (root / pictures).mkdir(parents=True, exist_ok=True)
        (root / masks).mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            image, drawn = draw(rng, HEIGHT, WIDTH, 2)
            stem = name.format(number)
            (root / pictures / f"{stem}.jpg").write_bytes(jpeg(image))
            levels = drawn[0] * np.uint8(255)
            if pictures.startswith("PASCAL-S"):
                # Twelve annotators: all chose the one object, five the other.
                levels = levels + drawn[1] * np.uint8(255 * 5 // 12)
            mode = MODES[number % len(MODES)] if pictures.startswith("own") else "L"
            as_mode(levels, mode).save(root / masks / f"{stem}.png")


def as_mode(levels: UInt8[np.ndarray, "h w"], mode: str) -> Image.Image:
    """Returns a mask as a picture of a mode in which masks are found.

    Args:
        levels: grey levels.
        mode: one of `MODES`; with RGBA the background is transparent and white.
    """
    grey = Image.fromarray(levels)
    if mode == "RGBA":
        white = Image.new("RGBA", grey.size, (255, 255, 255, 255))
        white.putalpha(grey)
        return white
    return grey.convert(mode)
