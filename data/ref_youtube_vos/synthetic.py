"""Writes an imitation of Ref-YouTube-VOS in its own format."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from unilseg_jax.input_pipeline.stand_ins import draw, jpeg

SIZE = (48, 84)  # height, width
FRAMES = 3  # per video
OBJECTS = 2  # per video; the second one is out of the last frame
CATEGORIES = ("dog", "person")
PALETTE = (0, 0, 0, 236, 95, 103, 249, 145, 87)


def write(root: Path, count: int, seed: int = 0) -> None:
    """Writes `count` frames per split, `FRAMES` to a video, and as many of one test video.

    Args:
        root: raw folder to be made.
        count: frames per split.
        seed: decides the drawings.
    """
    rng = np.random.default_rng(seed)
    train, valid, test = (_videos(name, count) for name in ("train", "valid", "test"))
    for split, videos in (("train", train), ("valid", valid)):
        for name, entry in videos.items():
            for number, frame in enumerate(entry["frames"]):
                image, masks = draw(rng, *SIZE, OBJECTS)
                if number == FRAMES - 1:
                    image[masks[-1] > 0] = image[0, 0]
                    masks[-1] = 0
                _file(root / split / "JPEGImages" / name / f"{frame}.jpg").write_bytes(jpeg(image))
                drawn = root / split / "Annotations" / name
                if split == "train":
                    labels = Image.fromarray(sum(mask * np.uint8(label) for label, mask in enumerate(masks, 1)))
                    labels.putpalette(PALETTE)
                    labels.save(_file(drawn / f"{frame}.png"))
                    continue
                # The benchmark's ground truth is published per expression.
                for key, expression in entry["expressions"].items():
                    mask = masks[int(expression["obj_id"]) - 1] * np.uint8(255)
                    Image.fromarray(mask).save(_file(drawn / key / f"{frame}.png"))
    objects = {str(number + 1): {"category": CATEGORIES[number]} for number in range(OBJECTS)}
    meta = {name: {"objects": objects} for name in train}
    (root / "train" / "meta.json").write_text(json.dumps({"videos": meta}), encoding="utf-8")
    _write_expressions(root, "train", train)
    # The published file of the valid split lists the test videos as well, and names no objects.
    _write_expressions(root, "valid", _without_objects(valid | test))
    _write_expressions(root, "test", _without_objects(test))


def _videos(split: str, count: int) -> dict[str, dict]:
    videos = {}
    for start in range(0, count, FRAMES):
        expressions = {
            str(2 * number + form): {"exp": text.format(CATEGORIES[number]), "obj_id": str(number + 1)}
            for number in range(OBJECTS)
            for form, text in enumerate(("a {} that moves", "the {} number " + str(number + 1)))
        }
        frames = [f"{5 * number:05d}" for number in range(min(FRAMES, count - start))]
        videos[f"{split}{start:06x}"] = {"expressions": expressions, "frames": frames}
    return videos


def _without_objects(videos: dict[str, dict]) -> dict[str, dict]:
    return {
        name: {**entry, "expressions": {key: {"exp": value["exp"]} for key, value in entry["expressions"].items()}}
        for name, entry in videos.items()
    }


def _write_expressions(root: Path, split: str, videos: dict[str, dict]) -> None:
    path = _file(root / "meta_expressions" / split / "meta_expressions.json")
    path.write_text(json.dumps({"videos": videos}), encoding="utf-8")


def _file(path: Path) -> Path:
    """Makes the folder of a file that is to be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
