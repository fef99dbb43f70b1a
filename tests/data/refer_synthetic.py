"""The stand-in of REFER's files, opened: a test changes what it holds and saves it."""

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from unilseg_jax.input_pipeline.catalogue import load_stand_in

HEIGHT, WIDTH = 96, 128


@dataclasses.dataclass
class ReferFolder:
    """One configuration; picture number i belongs to split number i and has the refs 2 i and 2 i + 1."""

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
        self.refs_file.write_bytes(pickle.dumps(self.refs, protocol=2))
        (self.refs_file.parent / "instances.json").write_text(json.dumps(self.instances))


def make_refer_folder(root: Path, folder: str = "refcoco", split_by: str = "unc") -> ReferFolder:
    """Writes the stand-in with a picture per split, and keeps one configuration of it beside those that were there."""
    there = {path.parent.name for path in root.glob("*/instances.json")}
    load_stand_in("refcoco").write(root, 1)
    for other in {"refcoco", "refcoco+", "refcocog"} - {folder} - there:
        shutil.rmtree(root / other)
    for refs_file in (root / folder).glob("refs*.p"):
        if refs_file.name != f"refs({split_by}).p":
            refs_file.unlink()
    refs = pickle.loads((root / folder / f"refs({split_by}).p").read_bytes())
    return ReferFolder(root, folder, split_by, refs, json.loads((root / folder / "instances.json").read_text()))


def rectangle(x: int, y: int, width: int, height: int) -> list[float]:
    """A polygon that covers exactly these pixels."""
    return [float(v) for v in (x, y, x + width, y, x + width, y + height, x, y + height)]


def drawn_mask(polygons: list[list[float]]) -> np.ndarray:
    """The pixels of polygons, as pycocotools draws them."""
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, HEIGHT, WIDTH)))
