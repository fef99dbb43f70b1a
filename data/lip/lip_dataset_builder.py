"""LIP's single-person parsing as triplet records: a person's clothes and body parts, each one mask per picture.

Left and right are the person's: the left arm of someone who faces the camera is on the right of the picture.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import raw_files
from unilseg_jax.input_pipeline.builder import SetConfig, TripletBuilder
from unilseg_jax.input_pipeline.label_maps import masks_of_labels
from unilseg_jax.text import prompts

SPLITS = ("train", "val")
# As the archives unpack, each into a folder of its own or not.
PICTURES = ("TrainVal_images/{}_images", "TrainVal_images/TrainVal_images/{}_images", "{}_images")
LABEL_MAPS = (
    "TrainVal_parsing_annotations/{}_segmentations",
    "TrainVal_parsing_annotations/TrainVal_parsing_annotations/{}_segmentations",
    "{}_segmentations",
)
ID_LISTS = ("{}_id.txt", "TrainVal_images/{}_id.txt", "TrainVal_images/TrainVal_images/{}_id.txt")
BACKGROUND = 0
# Ids of the COCO picture that a person was cut out of, and of the person's annotation there.
_OF_COCO = re.compile(r"[0-9]{1,12}_[0-9]+")

CONFIGS = [
    SetConfig(
        name="lip",
        description="LIP, single person: 19 parts",
        published={"train": (30462, None, None), "val": (10000, None, None)},
        fetch="TrainVal_images.zip and TrainVal_parsing_annotations.zip from https://sysuhcp.github.io/lip/",
        picture_places=[place.format(split) for split in SPLITS for place in PICTURES],
    )
]


class Builder(TripletBuilder):
    """Converts LIP's pictures and label maps."""

    HOMEPAGE = "https://sysuhcp.github.io/lip/"
    LICENCE = "LIP: non-commercial research and education only; pictures: COCO's, their owners on Flickr"
    BUILDER_CONFIGS = CONFIGS

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the one configuration if label maps of a split lie in the raw folder."""
        return ["lip"] if any(_first(Path(raw), LABEL_MAPS, split) for split in SPLITS) else []

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return "TrainVal_images/train_images and TrainVal_parsing_annotations/train_segmentations, or those of val"

    def plan(self, raw: Path) -> dict[str, list[str]]:
        """Returns the ids of each split: those of its list, or else of its label maps and pictures."""
        self._folders: dict[str, tuple[Path, Path]] = {}
        plan = {}
        for split in SPLITS:
            label_maps = _first(raw, LABEL_MAPS, split)
            if label_maps is None:
                continue
            pictures = self._find_pictures(raw, split)
            self._folders[split] = (pictures, label_maps)
            id_list = _first(raw, ID_LISTS, split)
            if id_list is not None:
                plan[split] = raw_files.read_lines(id_list, "list of ids")
                continue
            there, maps = raw_files.list_files(pictures, (".jpg",)), raw_files.list_files(label_maps, (".png",))
            for file, reason in there.faults:
                self.conversion.lose_unplanned(split, file, reason)
            for file, reason in maps.faults:
                self.conversion.skip(split, file, reason)
            # Where one of the two is missing, the picture is listed as lost.
            plan[split] = sorted(there.files.keys() | maps.files.keys())
        return plan

    def item_file(self, item: str) -> str:
        """Returns the picture's name."""
        return f"{item}.jpg"

    def records(self, split: str, item: str) -> Iterator[dict]:
        """Makes the record of a person: every part that is seen has a mask and a phrase."""
        name = raw_files.plain_name(item, "picture")
        pictures, label_maps = self._folders[split]
        picture = raw_files.read_picture(pictures / f"{name}.jpg")
        labels = raw_files.read_label_map(label_maps / f"{name}.png", (picture.height, picture.width))
        names = prompts.class_names("lip")
        masks = masks_of_labels(labels, [row.label for row in names])
        coco_id = int(name.split("_")[0]) if _OF_COCO.fullmatch(name) else -1
        yield self.class_record(picture, masks, names, image_id=name, task="part", kind="part", coco_id=coco_id)

    def _find_pictures(self, raw: Path, split: str) -> Path:
        if self.pictures is None:
            return raw_files.first_folder(raw, tuple(place.format(split) for place in PICTURES), "pictures")
        folder = Path(self.pictures) / f"{split}_images"
        if not folder.is_dir():
            raise UserError(f"no such folder of pictures: {str(folder)!r}; --pictures is the folder of {split}_images")
        return folder


def _first(raw: Path, places: tuple[str, ...], split: str) -> Path | None:
    return next((raw / place.format(split) for place in places if (raw / place.format(split)).exists()), None)
