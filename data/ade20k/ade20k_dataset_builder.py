"""ADE20K-150 as triplet records: a picture with a mask and the phrase "all CLASS" for each of its classes."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import raw_files
from unilseg_jax.input_pipeline.builder import SetConfig, TripletBuilder
from unilseg_jax.input_pipeline.label_maps import masks_of_labels
from unilseg_jax.text.prompts import class_names

ARCHIVE = "ADEChallengeData2016"
FOLDERS = {"train": "training", "val": "validation"}


class LabelledPicture(NamedTuple):
    """An item: a picture and its label map; one of them may be missing."""

    stem: str
    picture: Path | None
    label_map: Path | None


class Builder(TripletBuilder):
    """Converts `ADEChallengeData2016`."""

    HOMEPAGE = "https://sceneparsing.csail.mit.edu"
    LICENCE = "ADE20K: annotations BSD-3-Clause, pictures for non-commercial research and education only"
    BUILDER_CONFIGS = (
        SetConfig(
            name="ade20k",
            description="the 150 classes of the scene parsing challenge",
            published={"train": (20210, None, None), "val": (2000, None, None)},
            fetch="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
            picture_places=[
                f"{home}{folder}" for home in ("images/", f"{ARCHIVE}/images/") for folder in FOLDERS.values()
            ],
        ),
    )
    DEFAULT_BUILDER_CONFIG_NAME = "ade20k"

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the configuration, if there are label maps of a split."""
        label_maps = _root(raw) / "annotations"
        return ["ade20k"] if any((label_maps / folder).is_dir() for folder in FOLDERS.values()) else []

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return "images/ and annotations/ of ADEChallengeData2016, each with training/ or validation/"

    def plan(self, raw: Path) -> dict[str, list[LabelledPicture]]:
        """Returns the pictures of each split with their label maps, paired by stem."""
        splits = {}
        for split, folder in FOLDERS.items():
            label_maps = _root(raw) / "annotations" / folder
            if not label_maps.is_dir():
                continue
            maps = raw_files.list_files(label_maps, (".png",))
            pictures = raw_files.list_files((self.pictures or _root(raw) / "images") / folder, (".jpg",))
            for file, reason in pictures.faults:
                self.conversion.lose_unplanned(split, file, reason)
            for file, reason in maps.faults:
                self.conversion.skip(split, file, reason)
            splits[split] = [
                LabelledPicture(stem, pictures.files.get(stem), maps.files.get(stem))
                for stem in sorted(maps.files.keys() | pictures.files.keys())
            ]
        return splits

    def item_file(self, item: LabelledPicture) -> str:
        """Returns the picture's name."""
        return f"{item.stem}.jpg"

    def records(self, split: str, item: LabelledPicture) -> Iterator[dict]:
        """Makes the record of a picture."""
        if item.picture is None:
            raise UserError("the label map has no picture of the same name")
        if item.label_map is None:
            raise UserError("the picture has no label map of the same name")
        picture = raw_files.read_picture(item.picture)
        labels = raw_files.read_label_map(item.label_map, (picture.height, picture.width))
        names = class_names("ade20k")
        masks = masks_of_labels(labels, [name.label for name in names])
        yield self.class_record(picture, masks, names, image_id=item.stem, task="semantic")


def _root(raw: Path) -> Path:
    inner = Path(raw) / ARCHIVE
    return inner if inner.is_dir() else Path(raw)
