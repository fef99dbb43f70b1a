"""An imitation of Pascal Context: pictures of ellipses, with label maps in both forms."""

from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from unilseg_jax.input_pipeline import stand_ins
from unilseg_jax.text.prompts import class_names

HEIGHT, WIDTH = 90, 120  # px
OBJECTS = 3
IDS = 459


def write(root: Path, count: int, seed: int = 0) -> None:
    """Writes the files of a small data set.

    Args:
        root: the raw folder.
        count: pictures per split.
        seed: decides what is drawn.
    """
    rng = np.random.default_rng(seed)
    names = class_names("pascal_context59")
    # As in the real list, the ids of the 59 classes lie in the order of the names among those of many others.
    ids = np.sort(rng.choice(np.arange(1, IDS + 1), len(names), replace=False))
    others = np.setdiff1d(np.arange(1, IDS + 1), ids)
    to_id = np.array([0, *ids], np.uint16)
    voc, mats = root / "VOC2010", root / "trainval"
    lists = voc / "ImageSets" / "SegmentationContext"
    for folder in (lists, mats, voc / "JPEGImages", voc / "SegmentationClassContext"):
        folder.mkdir(parents=True, exist_ok=True)
    for place, split in enumerate(("train", "val")):
        stems = [f"2008_{2 * number + place:06d}" for number in range(1, count + 1)]
        for stem in stems:
            image, masks = stand_ins.draw(rng, HEIGHT, WIDTH, OBJECTS)
            labels = _draw_labels(rng, masks, len(names))
            original = to_id[labels]
            # What the 59 classes leave out has a class of the others, or none.
            original[(labels == 0) & (np.arange(WIDTH) < WIDTH // 2)] = rng.choice(others)
            (voc / "JPEGImages" / f"{stem}.jpg").write_bytes(stand_ins.jpeg(image))
            Image.fromarray(labels).save(voc / "SegmentationClassContext" / f"{stem}.png")
            scipy.io.savemat(mats / f"{stem}.mat", {"LabelMap": original}, do_compression=True)
        (lists / f"{split}.txt").write_text("\n".join(stems) + "\n", encoding="utf-8")
    listed = dict.fromkeys(range(1, IDS + 1), "") | {int(i): name.native for i, name in zip(ids, names, strict=True)}
    lines = [f"{number}: {name or f'other {number}'}" for number, name in listed.items()]
    (root / "labels.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _draw_labels(rng: np.random.Generator, masks: np.ndarray, classes: int) -> np.ndarray:
    background, *labels = rng.choice(np.arange(1, classes + 1), len(masks) + 1, replace=False)
    label_map = np.full((HEIGHT, WIDTH), background, np.uint8)
    label_map[-HEIGHT // 9 :] = 0
    for mask, label in zip(masks, labels, strict=True):
        label_map[mask > 0] = label
    return label_map
