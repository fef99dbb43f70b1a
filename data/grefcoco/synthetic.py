"""An imitation of gRefCOCO's files: drawn pictures, and refs to one object, to several and to none."""

import itertools
import json
from pathlib import Path

from unilseg_jax.input_pipeline.refer_stand_ins import CATEGORIES, CocoStandIn

SPLITS = ("train", "val", "testA", "testB")


def write(root: Path, count: int, seed: int = 0) -> None:
    """Writes the raw folder.

    Every picture has two objects and four refs of one sentence: to the left object (its id alone, or in a list), to
    both, to nothing, and to the right object together with a crowd, which is no object.

    Args:
        root: the raw folder.
        count: pictures of each split.
        seed: decides what is drawn.
    """
    pictures = CocoStandIn(root / "images/train2014", "COCO_train2014_{:012d}.jpg", seed)
    refs, numbers = [], itertools.count()
    for number, split in enumerate(split for split in SPLITS for _ in range(count)):
        left, right, crowd = pictures.add(340_000 + number)
        names = [CATEGORIES[annotation["category_id"]] for annotation in (left, right)]
        for text, meant in (
            (f"the {names[0]} on the left", left if number % 2 else [left]),
            (f"the {names[0]} and the {names[1]}", [left, right]),
            ("the zebra", []),
            (f"the {names[1]} on the right", [right, crowd]),
        ):
            refs.append(_ref(next(numbers), split, left["image_id"], text, meant))
    pictures.save(root / "grefcoco/instances.json")
    (root / "grefcoco/grefs(unc).json").write_text(json.dumps(refs), encoding="utf-8")


def _ref(ref_id: int, split: str, image_id: int, text: str, meant: dict | list[dict]) -> dict:
    ref = {
        "ref_id": ref_id,
        "image_id": image_id,
        "split": split,
        "file_name": f"COCO_train2014_{image_id:012d}.jpg",
        "sent_ids": [ref_id],
        "sentences": [{"sent": text, "raw": text, "tokens": text.split(), "sent_id": ref_id}],
    }
    if isinstance(meant, dict):
        return ref | {"ann_id": meant["id"], "category_id": meant["category_id"]}
    if not meant:
        return ref | {"ann_id": [-1], "category_id": [-1], "no_target": True}
    return ref | {key: [entry[of] for entry in meant] for key, of in (("ann_id", "id"), ("category_id", "category_id"))}
