"""An imitation of COCO 2017: ellipses under a sky and on grass, with instances and panoptic segments."""

import json
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from unilseg_jax.input_pipeline import stand_ins
from unilseg_jax.ops.masks import mask_box
from unilseg_jax.text.prompts import class_names

HEIGHT, WIDTH = 96, 128  # px
OBJECTS = 4
SKY, GRASS = 187, 193


def write(root: Path, count: int, seed: int = 0) -> None:
    """Writes pictures, instances and panoptic segments of both splits.

    In every picture the objects 0 and 1 are of one category, and the object 3 is a crowd.

    Args:
        root: the raw folder.
        count: pictures per split.
        seed: decides what is drawn.
    """
    rng = np.random.default_rng(seed)
    for first, folder in ((9, "train2017"), (139, "val2017")):
        _write_split(root, folder, range(first, first + 3 * count, 3), rng)


def _write_split(root: Path, folder: str, image_ids: range, rng: np.random.Generator) -> None:
    things = [name.label for name in class_names("coco_stuff") if name.label < 91]
    maps = root / "annotations" / f"panoptic_{folder}"
    for path in (root / folder, maps):
        path.mkdir(parents=True, exist_ok=True)
    images, instances, panoptic = [], [], []
    for image_id in image_ids:
        image, masks = stand_ins.draw(rng, HEIGHT, WIDTH, OBJECTS)
        ground = masks.max(0) == 0
        above = np.arange(HEIGHT)[:, None] < HEIGHT // 2
        image[ground & above] += np.array([0, 40, 120], np.uint8)
        image[ground & ~above] += np.array([0, 90, 0], np.uint8)
        (root / folder / f"{image_id:012d}.jpg").write_bytes(stand_ins.jpeg(image))
        images.append({"id": image_id, "file_name": f"{image_id:012d}.jpg", "height": HEIGHT, "width": WIDTH})
        shared, *others = (int(label) for label in rng.choice(things, OBJECTS - 1, replace=False))
        categories = [shared, shared, *others]
        instances += _instances(image_id, masks, categories)
        ids = np.zeros((HEIGHT, WIDTH), np.int64)
        # The last row is what nobody labelled.
        ids[: HEIGHT // 2], ids[HEIGHT // 2 : -1] = 70000, 300
        segments = [(70000, SKY, 0), (300, GRASS, 0)]
        for number, (mask, category) in enumerate(zip(masks, categories, strict=True)):
            ids[mask > 0] = number + 1
            segments.append((number + 1, category, int(number == OBJECTS - 1)))
        colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        Image.fromarray(colours).save(maps / f"{image_id:012d}.png")
        panoptic.append(_panoptic(image_id, ids, segments))
    names = {name.label: name.native for table in ("coco_stuff", "coco_panoptic_merged") for name in class_names(table)}
    _write_json(root, f"instances_{folder}", images, instances, {label: names[label] for label in things})
    _write_json(root, f"panoptic_{folder}", images, panoptic, {key: names[key] for key in (*things, SKY, GRASS)})


def _instances(image_id: int, masks: UInt8[np.ndarray, "n h w"], categories: list[int]) -> list[dict]:
    """Returns the annotations of a picture: polygons, and run lengths for the crowd."""
    annotations = []
    for number, (mask, category) in enumerate(zip(masks, categories, strict=True)):
        crowd = number == OBJECTS - 1
        segmentation = {"size": [HEIGHT, WIDTH], "counts": _runs(mask)} if crowd else [stand_ins.polygon(mask)]
        annotations.append(
            {
                "id": image_id * 100 + number,
                "image_id": image_id,
                "category_id": category,
                "bbox": list(mask_box(mask)),
                "area": float(mask.sum()),
                "iscrowd": int(crowd),
                "segmentation": segmentation,
            }
        )
    return annotations


def _runs(mask: UInt8[np.ndarray, "h w"]) -> list[int]:
    """Returns run lengths that are not compressed, as COCO gives them for crowds."""
    pixels = mask.ravel(order="F").astype(np.int64)
    ends = np.flatnonzero(np.diff(pixels, prepend=0)).tolist()
    return np.diff([0, *ends, pixels.size]).tolist()


def _panoptic(image_id: int, ids: np.ndarray, segments: list[tuple[int, int, int]]) -> dict:
    infos = []
    for number, category, crowd in segments:
        mask = ids == number
        box, area = [int(value) for value in mask_box(mask.astype(np.uint8))], int(mask.sum())
        infos.append({"id": number, "category_id": category, "iscrowd": crowd, "bbox": box, "area": area})
    return {"image_id": image_id, "file_name": f"{image_id:012d}.png", "segments_info": infos}


def _write_json(root: Path, name: str, images: list, annotations: list, categories: dict[int, str]) -> None:
    content = {
        "info": {"description": "stand-in"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": label, "name": name} for label, name in categories.items()],
    }
    (root / "annotations" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
