"""An imitation of REFER's files: drawn pictures, refs and annotations of all four configurations."""

import pickle
from collections.abc import Iterable
from pathlib import Path

from unilseg_jax.input_pipeline.refer_stand_ins import CATEGORIES, CocoStandIn

SPLITS = {"unc": ("train", "val", "testA", "testB"), "umd": ("train", "val", "test")}
PICTURES = "images/mscoco/images/train2014"
SIDES = ("left", "right")


def write(root: Path, count: int, seed: int = 0) -> None:
    """Writes the raw folder: RefCOCO and RefCOCO+ have the same pictures, as in the original.

    Every picture has two objects and every object two sentences.

    Args:
        root: the raw folder.
        count: pictures of each split.
        seed: decides what is drawn.
    """
    pictures = CocoStandIn(root / PICTURES, "COCO_train2014_{:012d}.jpg", seed)
    drawn = [(split, pictures.add(310_000 + number)) for number, split in _numbered("unc", count)]
    for folder in ("refcoco", "refcoco+"):
        pictures.save(root / folder / "instances.json")
        objects = [(split, annotations[side], side) for split, annotations in drawn for side in (0, 1)]
        _save_refs(root / folder / "refs(unc).p", objects, located=folder == "refcoco")

    pictures = CocoStandIn(root / PICTURES, "COCO_train2014_{:012d}.jpg", seed)
    drawn = [(split, pictures.add(320_000 + number)) for number, split in _numbered("umd", count)]
    pictures.save(root / "refcocog" / "instances.json")
    objects = [(split, annotations[side], side) for split, annotations in drawn for side in (0, 1)]
    _save_refs(root / "refcocog" / "refs(umd).p", objects, located=True)
    # Google's split has pictures that are in both parts, with different objects.
    objects = [
        (split, annotations[side], side)
        for _, annotations in drawn[:count]
        for side, split in enumerate(("train", "val"))
    ]
    _save_refs(root / "refcocog" / "refs(google).p", objects, located=True)


def _numbered(split_by: str, count: int) -> list[tuple[int, str]]:
    return list(enumerate(split for split in SPLITS[split_by] for _ in range(count)))


def _save_refs(path: Path, objects: Iterable[tuple[str, dict, int]], *, located: bool) -> None:
    """Writes a refs file.

    Args:
        path: of the file.
        objects: split, annotation and side (0 left, 1 right) of each ref's object.
        located: whether the sentences may say where the object is; RefCOCO+'s do not.
    """
    refs = []
    for ref_id, (split, annotation, side) in enumerate(objects):
        name, where = CATEGORIES[annotation["category_id"]], SIDES[side]
        texts = (f"{where} {name}", f"the {name} on the {where}") if located else (name, f"the only {name}")
        sent_ids = [2 * ref_id, 2 * ref_id + 1]
        refs.append(
            {
                "ref_id": ref_id,
                "ann_id": annotation["id"],
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                "split": split,
                # Not the picture's name: REFER appends a number.
                "file_name": f"COCO_train2014_{annotation['image_id']:012d}_{ref_id}.jpg",
                "sent_ids": sent_ids,
                "sentences": [
                    {"sent": text, "raw": text.upper(), "tokens": text.split(), "sent_id": sent_id}
                    for sent_id, text in zip(sent_ids, texts, strict=True)
                ],
            }
        )
    path.write_bytes(pickle.dumps(refs, protocol=2))
