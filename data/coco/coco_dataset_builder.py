"""COCO 2017 as triplet records: a picture with a mask and the phrase "all CLASS" for each of its categories."""

from collections.abc import Iterator
from pathlib import Path

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import coco_format, raw_files
from unilseg_jax.input_pipeline.builder import SetConfig, TripletBuilder
from unilseg_jax.input_pipeline.coco_format import CocoFile, CocoPicture
from unilseg_jax.text.prompts import class_names

from . import panoptic

SPLITS = {"train": "train2017", "val": "val2017"}
PUBLISHED = {"train": (118287, None, None), "val": (5000, None, None)}
FETCH = "train2017.zip, val2017.zip and {} from https://cocodataset.org/#download"
PICTURES = [place.format(folder) for folder in SPLITS.values() for place in ("{}", "images/{}")]
# Things have the ids 1 to 90 there and here.
THINGS = {name.label: name for name in class_names("coco_stuff") if name.label < 91}
PANOPTIC = {name.label: name for name in (*class_names("coco_stuff"), *class_names("coco_panoptic_merged"))}


class Builder(TripletBuilder):
    """Converts the annotations of COCO 2017."""

    HOMEPAGE = "https://cocodataset.org"
    LICENCE = "COCO annotations: CC BY 4.0; pictures: their owners on Flickr"
    BUILDER_CONFIGS = (
        SetConfig(
            name="instances",
            description="80 categories of things",
            published=PUBLISHED,
            fetch=FETCH.format("annotations_trainval2017.zip"),
            picture_places=PICTURES,
        ),
        SetConfig(
            name="panoptic",
            description="80 categories of things, 53 of stuff",
            published=PUBLISHED,
            fetch=FETCH.format("panoptic_annotations_trainval2017.zip"),
            picture_places=PICTURES,
        ),
    )
    DEFAULT_BUILDER_CONFIG_NAME = "instances"

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the configurations of which an annotation file is there."""
        names = [config.name for config in cls.BUILDER_CONFIGS]
        return [name for name in names if any(_file(raw, name, split).is_file() for split in SPLITS)]

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return "train2017/ or val2017/ and annotations/instances_*2017.json or panoptic_*2017.json with panoptic_*2017/"

    def plan(self, raw: Path) -> dict[str, list[CocoPicture]]:
        """Returns the pictures of each split in the order of its annotation file."""
        self._files: dict[str, CocoFile] = {}
        self._folders: dict[str, Path] = {}
        self._maps: dict[str, Path] = {}
        for split, folder in SPLITS.items():
            path = _file(raw, self.builder_config.name, split)
            if not path.is_file():
                continue
            pictures = coco_format.find_pictures(raw, self.pictures, folder)
            if self.builder_config.name == "instances":
                file = coco_format.read_coco(path, ("id", "category_id", "segmentation"))
            else:
                file = coco_format.read_coco(path, ("image_id", "file_name", "segments_info"), key="image_id")
            if pictures is None:
                reason = f"no folder of pictures {folder}; the split is left out"
                self.conversion.lose_unplanned(split, path.name, reason, len(file.pictures))
                continue
            if self.builder_config.name == "instances":
                coco_format.check_categories(file, THINGS)
            else:
                self._maps[split] = raw_files.first_folder(
                    raw, (f"annotations/{path.stem}", path.stem), "panoptic maps"
                )
            self.list_faults(split, path.name, file.faults, file.pictures)
            self._folders[split], self._files[split] = pictures, file
        return {split: list(file.pictures.values()) for split, file in self._files.items()}

    def item_file(self, item: CocoPicture) -> str:
        """Returns the picture's name, or its id if it has none."""
        return str(item.file_name or item.id)

    def records(self, split: str, item: CocoPicture) -> Iterator[dict]:
        """Makes the record of a picture; it has no mask where no object was drawn in it."""
        file_name = raw_files.plain_name(item.file_name, "picture")
        picture = raw_files.read_picture(self._folders[split] / file_name, (item.height, item.width))
        size = (picture.height, picture.width)
        annotations = self._files[split].annotations.get(item.id, [])
        if self.builder_config.name == "instances":
            drawn, faults = coco_format.category_masks(annotations, *size)
        elif annotations:
            drawn, faults = panoptic.category_masks(annotations[0], self._maps[split], size, PANOPTIC), []
        else:
            raise UserError("the picture has no panoptic annotation")
        for annotation, reason in faults:
            self.conversion.skip(split, file_name, reason, ann_id=annotation["id"])
        yield self.class_record(
            picture, drawn, PANOPTIC.values(), image_id=Path(file_name).stem, task="semantic", coco_id=item.id
        )


def _file(raw: Path, config: str, split: str) -> Path:
    return Path(raw) / "annotations" / f"{config}_{SPLITS[split]}.json"
