"""Writes an imitation of ImageNet: class folders, a flat folder for validation, and the list of classes."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from unilseg_jax.input_pipeline import stand_ins

CLASSES = {"n01440764": "tench, Tinca tinca", "n01443537": "goldfish, Carassius auratus"}


def write(root: Path, count: int, seed: int = 0) -> None:
    """Writes the files. Their names end in `.JPEG`; as in the real set, some are grey, CMYK, or PNG inside.

    Args:
        root: the raw folder.
        count: pictures of each split.
        seed: decides what is drawn.
    """
    rng = np.random.default_rng(seed)
    lines = [f"{wnid} {names}\n" for wnid, names in CLASSES.items()]
    (root / "LOC_synset_mapping.txt").write_text("".join(lines), encoding="utf-8")
    wnids = list(CLASSES)
    for number in range(count):
        wnid = wnids[number % len(wnids)]
        _write(root / "train" / wnid / f"{wnid}_{number}.JPEG", rng, number)
        _write(root / "val" / f"ILSVRC2012_val_{number + 1:08d}.JPEG", rng, number)


def _write(path: Path, rng: np.random.Generator, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image, _ = stand_ins.draw(rng, 60, 80, 1)
    kind, mode = (("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"))[number % 4]
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, kind)
    path.write_bytes(buffer.getvalue())
