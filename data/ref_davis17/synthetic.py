"""Writes an imitation of Ref-DAVIS17 in its own format: DAVIS 2017's folders beside the four files of expressions."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from unilseg_jax.input_pipeline.stand_ins import draw, jpeg

SIZE = (48, 84)  # height, width
FRAMES = 3  # per sequence
OBJECTS = 2  # per sequence; the second one is out of the last frame
CATEGORIES = ("car", "person")
PALETTE = (0, 0, 0, 128, 0, 0, 0, 128, 0)
# The first sequences of the training split are those whose names the expressions' files get wrong.
TYPOS = {"classic-car": "clasic-car", "dogs-scale": "dog-scale", "motorbike": "motor-bike"}
FILES = {
    "annot1": "a {} that moves",
    "annot1_full_video": "the {} that moves to the left",
    "annot2": "the {} beside the café",
    "annot2_full_video": "a {} seen first",
}


def write(root: Path, count: int, seed: int = 0) -> None:
    """Writes `count` frames per split, `FRAMES` to a sequence.

    Args:
        root: raw folder to be made.
        count: frames per split.
        seed: decides the drawings.
    """
    rng = np.random.default_rng(seed)
    for folder in ("DAVIS/ImageSets/2017", "davis_text_annotations"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    splits = {split: _sequences(split, count) for split in ("train", "val")}
    for split, sequences in splits.items():
        for name, frames in sequences.items():
            _write_sequence(root / "DAVIS", name, frames, rng)
        names = "".join(f"{name}\n" for name in sequences)
        (root / "DAVIS" / "ImageSets" / "2017" / f"{split}.txt").write_text(names, encoding="utf-8")
    names = [name for sequences in splits.values() for name in sequences]
    classes = {name: {str(number + 1): CATEGORIES[number] for number in range(OBJECTS)} for name in names}
    (root / "DAVIS" / "davis_semantics.json").write_text(json.dumps(classes), encoding="utf-8")
    for annotator, text in FILES.items():
        lines = [
            f'{TYPOS.get(name, name)} {number + 1} "{text.format(CATEGORIES[number])}"\n'
            for name in names
            for number in range(OBJECTS)
        ]
        path = root / "davis_text_annotations" / f"Davis17_{annotator}.txt"
        path.write_text("".join(lines), encoding="latin-1" if annotator.startswith("annot2") else "utf-8")


def _sequences(split: str, count: int) -> dict[str, int]:
    """Returns the number of frames of each sequence."""
    starts = range(0, count, FRAMES)
    names = [*TYPOS] if split == "train" else []
    names += [f"{split}-{number}" for number in range(len(names), len(starts))]
    return {name: min(FRAMES, count - start) for name, start in zip(names, starts, strict=False)}


def _write_sequence(davis: Path, name: str, frames: int, rng: np.random.Generator) -> None:
    pictures, label_maps = davis / "JPEGImages" / "480p" / name, davis / "Annotations_unsupervised" / "480p" / name
    for folder in (pictures, label_maps):
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(frames):
        image, masks = draw(rng, *SIZE, OBJECTS)
        if number == FRAMES - 1:
            image[masks[-1] > 0] = image[0, 0]
            masks[-1] = 0
        (pictures / f"{number:05d}.jpg").write_bytes(jpeg(image))
        labels = Image.fromarray(sum(mask * np.uint8(label) for label, mask in enumerate(masks, 1)))
        labels.putpalette(PALETTE)
        labels.save(label_maps / f"{number:05d}.png")
