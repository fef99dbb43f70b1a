"""COCO-Stuff as triplet records: a picture with a mask and the phrase "all CLASS" for each of its classes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import coco_format, raw_files
from unilseg_jax.input_pipeline.builder import SetConfig, TripletBuilder
from unilseg_jax.input_pipeline.coco_format import CocoFile, CocoPicture
from unilseg_jax.input_pipeline.label_maps import masks_of_labels
from unilseg_jax.text.prompts import class_names

SPLITS = {"train": "train2017", "val": "val2017"}
PUBLISHED = {"train": (118287, None, None), "val": (5000, None, None)}
FETCH = (
    "{} from https://github.com/nightrome/cocostuff; pictures: train2017.zip and val2017.zip from "
    "https://cocodataset.org/#download"
)
PICTURES = [place.format(folder) for folder in SPLITS.values() for place in ("{}", "images/{}")]
NAMES = {name.label: name for name in class_names("coco_stuff")}
STUFF = {label: name for label, name in NAMES.items() if label > 91}
# In the JSON files 183 is "other": all things, and what nobody labelled.
OTHER = 183
IGNORED = 255
MAP_FOLDERS = ("stuffthingmaps_trainval2017", "stuffthingmaps", "annotations")
_MAP_NAME = re.compile(r"(?P<stem>\d{12})(?P<squeezed>_labelTrainIds)?")


class LabelledPicture(NamedTuple):
    """An item of `pixelmaps`: a picture and its label map.

    Attributes:
        stem: of the picture's name, COCO's id with 12 digits.
        label_map: file name of the map.
    """

    stem: str
    label_map: str


class Builder(TripletBuilder):
    """Converts the pixel maps, or the JSON files of stuff."""

    HOMEPAGE = "https://github.com/nightrome/cocostuff"
    LICENCE = "COCO-Stuff and COCO annotations: CC BY 4.0; pictures: their owners on Flickr"
    BUILDER_CONFIGS = (
        SetConfig(
            name="pixelmaps",
            description="80 classes of things, 91 of stuff",
            published=PUBLISHED,
            fetch=FETCH.format("stuffthingmaps_trainval2017.zip"),
            picture_places=PICTURES,
        ),
        SetConfig(
            name="stuff_json",
            description="91 classes of stuff",
            published=PUBLISHED,
            fetch=FETCH.format("stuff_annotations_trainval2017.zip"),
            picture_places=PICTURES,
        ),
    )
    DEFAULT_BUILDER_CONFIG_NAME = "pixelmaps"

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the configurations of which maps or an annotation file are there."""
        maps = any(_maps(raw, folder) for folder in SPLITS.values())
        files = any(_file(raw, folder).is_file() for folder in SPLITS.values())
        return ["pixelmaps"] * maps + ["stuff_json"] * files

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return (
            "train2017/ or val2017/ and stuffthingmaps_trainval2017/{train,val}2017/ or "
            "annotations/stuff_{train,val}2017.json"
        )

    def plan(self, raw: Path) -> dict[str, Sequence[LabelledPicture] | Sequence[CocoPicture]]:
        """Returns the pictures of each split: those that have a map, or those of the annotation file."""
        self._folders: dict[str, Path] = {}
        self._maps: dict[str, Path] = {}
        self._files: dict[str, CocoFile] = {}
        items = {}
        for split, folder in SPLITS.items():
            pixelmaps = self.builder_config.name == "pixelmaps"
            source = _maps(raw, folder) if pixelmaps else _file(raw, folder)
            if source is None or not source.exists():
                continue
            found = self._plan_maps(split, source) if pixelmaps else self._plan_file(split, source)
            pictures = coco_format.find_pictures(raw, self.pictures, folder)
            if pictures is None:
                reason = f"no folder of pictures {folder}; the split is left out"
                self.conversion.lose_unplanned(split, source.name, reason, len(found))
                continue
            self._folders[split], items[split] = pictures, found
        return items

    def _plan_maps(self, split: str, maps: Path) -> list[LabelledPicture]:
        self._maps[split] = maps
        listing = raw_files.list_files(maps, (".png",))
        # Without its map a picture is no item.
        for file, reason in listing.faults:
            self.conversion.lose_unplanned(split, file, reason)
        found: dict[str, str] = {}
        for name, path in listing.files.items():
            match = _MAP_NAME.fullmatch(name)
            if not match:
                self.conversion.lose_unplanned(split, path.name, "the map's name is not the id of a COCO picture")
            # The stem alone comes first, so that of two maps of a picture the original is taken.
            elif match["stem"] not in found:
                found[match["stem"]] = path.name
        return [LabelledPicture(*item) for item in found.items()]

    def _plan_file(self, split: str, path: Path) -> list[CocoPicture]:
        file = coco_format.read_coco(path, ("id", "category_id", "segmentation"))
        coco_format.check_categories(file, STUFF, passed_over=(OTHER,))
        self.list_faults(split, path.name, file.faults, file.pictures)
        self._files[split] = file
        return list(file.pictures.values())

    def item_file(self, item: LabelledPicture | CocoPicture) -> str:
        """Returns the picture's name, or its id if it has none."""
        if isinstance(item, LabelledPicture):
            return f"{item.stem}.jpg"
        return str(item.file_name or item.id)

    def records(self, split: str, item: LabelledPicture | CocoPicture) -> Iterator[dict]:
        """Makes the record of a picture; it has no mask where nothing of it was labelled."""
        folder = self._folders[split]
        drawn: Mapping[int, UInt8[np.ndarray, "h w"] | Bool[np.ndarray, "h w"]]
        if isinstance(item, LabelledPicture):
            stem, coco_id = item.stem, int(item.stem)
            picture = raw_files.read_picture(folder / f"{stem}.jpg")
            path = self._maps[split] / item.label_map
            labels = _labels(raw_files.read_label_map(path, (picture.height, picture.width)), path)
            drawn = masks_of_labels(labels, NAMES)
        else:
            file_name = raw_files.plain_name(item.file_name, "picture")
            stem, coco_id = Path(file_name).stem, item.id
            picture = raw_files.read_picture(folder / file_name, (item.height, item.width))
            annotations = self._files[split].annotations.get(item.id, [])
            drawn, faults = coco_format.category_masks(annotations, picture.height, picture.width)
            for annotation, reason in faults:
                self.conversion.skip(split, file_name, reason, ann_id=annotation["id"])
        yield self.class_record(picture, drawn, NAMES.values(), image_id=stem, task="semantic", coco_id=coco_id)


def _maps(raw: Path, folder: str) -> Path | None:
    """Returns the folder of a split's pixel maps, if there are any in it."""
    places = (Path(raw) / name / folder for name in MAP_FOLDERS)
    return next((place for place in places if place.is_dir() and any(place.glob("*.png"))), None)


def _file(raw: Path, folder: str) -> Path:
    return Path(raw) / "annotations" / f"stuff_{folder}.json"


def _labels(values: Int64[np.ndarray, "h w"], path: Path) -> Int64[np.ndarray, "h w"]:
    """Returns the labels of a pixel map, 0 where nothing is labelled.

    Raises:
        UserError: a value is no class.
    """
    # In the original maps a value is the label minus 1; in the squeezed ones it counts the 171 classes.
    squeezed = path.stem.endswith("_labelTrainIds")
    by_value = dict(enumerate(sorted(NAMES))) if squeezed else {label - 1: label for label in NAMES}
    table = np.full(IGNORED + 1, -1, np.int64)
    table[IGNORED] = 0
    table[list(by_value)] = list(by_value.values())
    if values.min() < 0 or values.max() > IGNORED or (labels := table[values]).min() < 0:
        found = next(value for value in np.unique(values).tolist() if value not in by_value and value != IGNORED)
        raise UserError(f"the label map {path.name} has the value {found}, which is no class of COCO-Stuff")
    return labels
