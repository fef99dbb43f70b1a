"""An imitation of RefCOCOs' files: drawn pictures, and a list of expressions with boxes."""

import json
from pathlib import Path

from unilseg_jax.input_pipeline.refer_stand_ins import CATEGORIES, HEIGHT, WIDTH, CocoStandIn


def write(root: Path, count: int, seed: int = 0) -> None:
    """Writes the raw folder.

    Every picture has two objects and four expressions: two for the left object, one for the right one, and one that
    matches nothing.

    Args:
        root: the raw folder.
        count: pictures.
        seed: decides what is drawn.
    """
    pictures = CocoStandIn(root / "val2017", "{:012d}.jpg", seed)
    items = []
    for image_id in range(350_000, 350_000 + count):
        left, right, _ = pictures.add(image_id)
        names = [CATEGORIES[annotation["category_id"]] for annotation in (left, right)]
        for text, annotation in (
            (f"the {names[0]} on the left", left),
            (f"the one that is not a {names[1]}", left),
            (f"the {names[1]} to the right of the {names[0]}", right),
            ("the zebra", None),
        ):
            items.append(_item(image_id, len(items), text, annotation))
    pictures.save(root / "instances_val2017.json")
    (root / "refcocos_test.json").write_text(json.dumps(items), encoding="utf-8")


def _item(image_id: int, number: int, text: str, annotation: dict | None) -> dict:
    box = None
    if annotation:
        x, y, width, height = annotation["bbox"]
        box = [x, y, x + width, y + height]
    return {
        "dataset": "refcocos_test",
        "text_type": "caption",
        "height": HEIGHT,
        "width": WIDTH,
        "normal_caption": text,
        "image": f"val2017/{image_id:012d}.jpg",
        "file_name": f"{image_id:012d}.jpg",
        "solution": box,
        "normalized_solution": box
        and [round(1000 * v / size) for v, size in zip(box, (WIDTH, HEIGHT) * 2, strict=True)],
        "categories": {"empty_case": box is None, "hops": "2", "type": ["spatial"]},
        "annotation_id": f"{image_id}_{number}",
    }
