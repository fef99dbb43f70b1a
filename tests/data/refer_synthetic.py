"""A tiny imitation of REFER's files: a picture per split, two objects in it, two sentences for each."""

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 40, 60
SPLITS = {"unc": ("train", "val", "testA", "testB"), "umd": ("train", "val", "test")}


@dataclasses.dataclass
class ReferFolder:
    """The contents before they are written; a test changes them and calls `save`."""

    root: Path
    folder: str
    split_by: str
    refs: list
    instances: dict

    @property
    def pictures(self) -> Path:
        return self.root / "images/mscoco/images/train2014"

    @property
    def refs_file(self) -> Path:
        return self.root / self.folder / f"refs({self.split_by}).p"

    def picture(self, number: int) -> Path:
        return self.pictures / self.instances["images"][number]["file_name"]

    def save(self) -> None:
        self.refs_file.parent.mkdir(parents=True, exist_ok=True)
        self.refs_file.write_bytes(pickle.dumps(self.refs, protocol=2))
        (self.refs_file.parent / "instances.json").write_text(json.dumps(self.instances))


def rectangle(x: int, y: int, width: int, height: int) -> list[float]:
    """A polygon that covers exactly these pixels."""
    return [float(v) for v in (x, y, x + width, y, x + width, y + height, x, y + height)]


def make_refer_folder(root: Path, folder: str = "refcoco", split_by: str = "unc") -> ReferFolder:
    """Writes the files; picture number i belongs to split number i and has the refs 2 i and 2 i + 1."""
    refs, images, annotations = [], [], []
    for number, split in enumerate(SPLITS[split_by]):
        image_id = 100 + number
        images.append(
            {
                "id": image_id,
                "file_name": f"COCO_train2014_{image_id:012d}.jpg",
                "height": HEIGHT,
                "width": WIDTH,
            }
        )
        for side in (0, 1):
            x = 5 + 30 * side
            annotations.append(
                {
                    "id": 10 * image_id + side,
                    "image_id": image_id,
                    "category_id": 1 + side,
                    "iscrowd": 0,
                    "bbox": [x, 10, 20, 12],
                    # Two rectangles that overlap on 4 × 12 pixels.
                    "segmentation": [rectangle(x, 10, 12, 12), rectangle(x + 8, 10, 12, 12)],
                }
            )
            words = ["left", "right"][side]
            refs.append(
                {
                    "ref_id": 2 * number + side,
                    "ann_id": 10 * image_id + side,
                    "image_id": image_id,
                    "split": split,
                    "category_id": 1 + side,
                    "file_name": f"COCO_train2014_{image_id:012d}_{side}.jpg",
                    "sent_ids": [0, 1],
                    "sentences": [
                        {"sent": text, "raw": text.upper(), "tokens": text.split(), "sent_id": count}
                        for count, text in enumerate((f"{words} box", f"the box on the {words}"))
                    ],
                }
            )
    categories = [{"id": 1, "name": "box"}, {"id": 2, "name": "crate"}]
    instances = {"images": images, "annotations": annotations, "categories": categories}
    made = ReferFolder(root, folder, split_by, refs, instances)
    made.pictures.mkdir(parents=True, exist_ok=True)
    for number in range(len(images)):
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(made.picture(number), quality=90)
    made.save()
    return made
