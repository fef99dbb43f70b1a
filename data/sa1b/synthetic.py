"""Writes an imitation of SA-1B: one archive, and one folder as it lies there unpacked."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np

from unilseg_jax.input_pipeline import stand_ins
from unilseg_jax.ops import masks

HEIGHT, WIDTH = 120, 180


def write(root: Path, count: int, seed: int = 0) -> None:
    """Writes the files; the first half of the pictures goes into the archive.

    Args:
        root: the raw folder.
        count: pictures.
        seed: decides what is drawn.
    """
    rng = np.random.default_rng(seed)
    pictures = [(f"sa_{223750 + number}", *_draw(rng, 223750 + number)) for number in range(count)]
    half = (count + 1) // 2
    with tarfile.open(root / "sa_000000.tar", "w") as tar:
        for stem, image, annotation in pictures[:half]:
            for name, content in ((f"{stem}.jpg", image), (f"{stem}.json", annotation)):
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    folder = root / "sa_000001"
    folder.mkdir()
    for stem, image, annotation in pictures[half:]:
        (folder / f"{stem}.jpg").write_bytes(image)
        (folder / f"{stem}.json").write_bytes(annotation)


def _draw(rng: np.random.Generator, image_id: int) -> tuple[bytes, bytes]:
    """Returns a picture and its annotation: two objects, and the upper half of the first as a mask of its own."""
    image, drawn = stand_ins.draw(rng, HEIGHT, WIDTH, 2)
    half = drawn[0].copy()
    half[HEIGHT // 2 :] = 0
    content = {
        "image": {"image_id": image_id, "width": WIDTH, "height": HEIGHT, "file_name": f"sa_{image_id}.jpg"},
        "annotations": [_annotation(rng, mask, 10 * image_id + number) for number, mask in enumerate((*drawn, half))],
    }
    return stand_ins.jpeg(image), json.dumps(content).encode()


def _annotation(rng: np.random.Generator, mask: np.ndarray, number: int) -> dict:
    rows, columns = np.nonzero(mask)
    return {
        "id": number,
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": masks.mask_to_rle(mask).decode()},
        "bbox": list(masks.mask_box(mask)),
        "area": int(mask.sum()),
        # The model's estimate can pass 1.
        "predicted_iou": float(rng.uniform(0.88, 1.04)),
        "stability_score": float(rng.uniform(0.92, 1)),
        "crop_box": [0.0, 0.0, float(WIDTH), float(HEIGHT)],
        "point_coords": [[float(columns.mean()), float(rows.mean())]],
    }
