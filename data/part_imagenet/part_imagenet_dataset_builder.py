"""PartImageNet as triplet records: the parts of the animal or thing on a picture, each one mask.

Both configurations take their phrases from one table of names; its labels, 0 to 39, are the category ids of the
annotation files and the values in the label maps.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from unilseg_jax.input_pipeline import coco_format, raw_files
from unilseg_jax.input_pipeline.builder import SetConfig, TripletBuilder
from unilseg_jax.input_pipeline.label_maps import masks_of_labels
from unilseg_jax.input_pipeline.raw_files import Picture
from unilseg_jax.text import prompts

SPLITS = ("train", "val", "test")
PICTURES = ("images/{}", "{}")
PICTURE_PLACES = [
    home + place.format(split) for home in ("", "PartImageNet/") for place in PICTURES for split in SPLITS
]
LABEL_MAPS = "annotations/{}"
ANNOTATION_FILES = ("annotations/{0}/{0}.json", "annotations/{0}.json", "{0}.json")
ENDINGS = (".jpeg", ".jpg")
BACKGROUND, IGNORED = 40, 255


class PictureFiles(NamedTuple):
    """An item of `seg`: a picture and its label map."""

    stem: str
    picture: str
    label_map: str


CONFIGS = [
    SetConfig(
        name="seg",
        description="PartImageNet_Seg, label maps; its splits share their classes, the paper reports on it",
        fetch="PartImageNet_Seg.zip from https://github.com/TACJu/PartImageNet",
        picture_places=PICTURE_PLACES,
    ),
    SetConfig(
        name="coco",
        description="annotation files in the form of COCO; sizes of PartImageNet_OOD, whose splits share no class",
        published={"train": (16540, None, None), "val": (2957, None, None), "test": (4598, None, None)},
        fetch="PartImageNet_OOD.zip from https://github.com/TACJu/PartImageNet",
        picture_places=PICTURE_PLACES,
    ),
]


class Builder(TripletBuilder):
    """Converts PartImageNet's label maps or annotation files."""

    HOMEPAGE = "https://github.com/TACJu/PartImageNet"
    LICENCE = "PartImageNet: its authors' terms; pictures: ImageNet's terms, non-commercial research and education"
    BUILDER_CONFIGS = CONFIGS
    DEFAULT_BUILDER_CONFIG_NAME = "seg"

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the configurations whose annotations lie in the raw folder."""
        home = _home(Path(raw))
        has_maps = any(any((home / LABEL_MAPS.format(split)).glob("*.png")) for split in SPLITS)
        has_files = any(_annotation_file(home, split) for split in SPLITS)
        return ["seg"] * has_maps + ["coco"] * has_files

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return "annotations/train with label maps (or val, test), or train.json (or val, test) there or above"

    def plan(self, raw: Path) -> dict[str, list]:
        """Returns the pictures of each split: of `seg` their files, of `coco` their ids."""
        home = _home(raw)
        if self.builder_config.name == "seg":
            return {split: self._pair(home, split) for split in SPLITS if (home / LABEL_MAPS.format(split)).is_dir()}
        self._files: dict[str, coco_format.CocoFile] = {}
        self._folders: dict[str, Path] = {}
        by_native = {row.native: row for row in prompts.class_names("part_imagenet")}
        self._names: dict[str, dict[int, prompts.ClassName]] = {}
        for split in SPLITS:
            path = _annotation_file(home, split)
            if path is None:
                continue
            file = coco_format.read_coco(path, ("id", "category_id", "segmentation"))
            self.list_faults(split, path.name, file.faults, file.pictures)
            self._files[split], self._folders[split] = file, self._find_pictures(home, split)
            # The file's own names decide, whatever its ids are.
            self._names[split] = {
                number: by_native[name] for number, name in file.categories.items() if name in by_native
            }
        return {split: list(file.pictures) for split, file in self._files.items()}

    def item_file(self, item: PictureFiles | int) -> str:
        """Returns the picture's name, of `coco` its id."""
        return Path(item.picture).name if isinstance(item, PictureFiles) else f"image {item}"

    def records(self, split: str, item: PictureFiles | int) -> Iterator[dict]:
        """Makes the record of a picture: every part has one mask, which is all of it."""
        if isinstance(item, PictureFiles):
            picture = raw_files.read_picture(Path(item.picture))
            labels = raw_files.read_label_map(Path(item.label_map), (picture.height, picture.width))
            known = [row.label for row in prompts.class_names("part_imagenet")]
            masks = masks_of_labels(labels, known, unlabelled=(BACKGROUND, IGNORED))
            # The background is a class of the benchmark, so what is not judged must be told from it.
            yield self._record(item.stem, picture, masks, ignored=(IGNORED, labels == IGNORED))
        else:
            yield self._of_annotations(split, item)

    def _of_annotations(self, split: str, image_id: int) -> dict:
        file, names = self._files[split], self._names[split]
        entry = file.pictures[image_id]
        path = _picture_path(self._folders[split], entry.file_name)
        picture = raw_files.read_picture(path, (entry.height, entry.width))
        known = []
        for annotation in file.annotations.get(image_id, ()):
            category = annotation["category_id"]
            # `category_masks` refuses a picture with a category that is no number.
            if not isinstance(category, int) or category in names:
                known.append(annotation)
            else:
                reason = f"the category {category} is none of PartImageNet's parts"
                self.conversion.skip(split, path.name, reason, id=annotation["id"])
        drawn, faults = coco_format.category_masks(known, picture.height, picture.width)
        for annotation, reason in faults:
            self.conversion.skip(split, path.name, reason, id=annotation["id"])
        return self._record(path.stem, picture, {names[category].label: mask for category, mask in drawn.items()})

    def _record(
        self,
        image_id: str,
        picture: Picture,
        masks: dict[int, UInt8[np.ndarray, "h w"]] | dict[int, Bool[np.ndarray, "h w"]],
        ignored: tuple[int, Bool[np.ndarray, "h w"]] | None = None,
    ) -> dict:
        names = prompts.class_names("part_imagenet")
        return self.class_record(picture, masks, names, image_id=image_id, task="part", kind="part", ignored=ignored)

    def _pair(self, home: Path, split: str) -> list[PictureFiles]:
        """Returns a split's pictures with their label maps, and lists those that have no partner."""
        pictures = raw_files.list_files(self._find_pictures(home, split), ENDINGS, nested=True)
        label_maps = raw_files.list_files(home / LABEL_MAPS.format(split), (".png",), nested=True)
        for file, reason in pictures.faults:
            self.conversion.lose_unplanned(split, file, reason)
        for file, reason in label_maps.faults:
            self.conversion.skip(split, file, reason)
        for stem in sorted(pictures.files.keys() ^ label_maps.files.keys()):
            lonely, partner = (
                (pictures.files[stem], "label map") if stem in pictures.files else (label_maps.files[stem], "picture")
            )
            self.conversion.lose_unplanned(split, lonely.name, f"it has no {partner} of its stem")
        return [
            PictureFiles(stem, str(path), str(label_maps.files[stem]))
            for stem, path in pictures.files.items()
            if stem in label_maps.files
        ]

    def _find_pictures(self, home: Path, split: str) -> Path:
        if self.pictures is None:
            return raw_files.first_folder(home, tuple(place.format(split) for place in PICTURES), "pictures")
        folder = Path(self.pictures) / split
        # ImageNet's own training folder holds the pictures of all splits.
        return folder if folder.is_dir() else Path(self.pictures)


def _home(raw: Path) -> Path:
    """Returns the raw folder, or the folder that its archive unpacks to."""
    return raw / "PartImageNet" if (raw / "PartImageNet").is_dir() else raw


def _annotation_file(home: Path, split: str) -> Path | None:
    places = (home / place.format(split) for place in ANNOTATION_FILES)
    return next((path for path in places if path.is_file()), None)


def _picture_path(folder: Path, file_name: object) -> Path:
    """Returns where a picture lies: in the folder, or in the one of its ImageNet class therein."""
    parts = file_name.split("/") if isinstance(file_name, str) else [file_name]
    name = [raw_files.plain_name(part, "picture") for part in parts][-1]
    nested = folder / name.split("_")[0] / name
    return nested if nested.is_file() else folder / name
