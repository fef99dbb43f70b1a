"""RefCOCO, RefCOCO+ and RefCOCOg as triplet records: a picture of a split with all its objects and sentences."""

from pathlib import Path

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.builder import SetConfig
from unilseg_jax.input_pipeline.refer import ReferBuilder

from . import refer_format

PICTURES = "http://images.cocodataset.org/zips/train2014.zip"


class ReferConfig(SetConfig):
    """One of the data sets with one of its splits; its folder in the raw folder is named like the set."""

    def __init__(self, *, folder: str, split_by: str, **more):
        fetch = f"{folder}.zip from https://github.com/lichengunc/refer; pictures: {PICTURES}"
        super().__init__(fetch=fetch, picture_places=ReferBuilder.PICTURE_FOLDERS, **more)
        self.folder = folder
        self.split_by = split_by


# Published sizes: pictures, objects (refs), phrases (sentences).
CONFIGS = [
    ReferConfig(
        name="refcoco",
        description="RefCOCO, split by UNC",
        folder="refcoco",
        split_by="unc",
        published={
            "train": (16994, 42404, 120624),
            "val": (1500, 3811, 10834),
            "testA": (750, 1975, 5657),
            "testB": (750, 1810, 5095),
        },
    ),
    ReferConfig(
        name="refcoco+",
        description="RefCOCO+, split by UNC; its phrases have no words of location",
        folder="refcoco+",
        split_by="unc",
        published={
            "train": (16992, 42278, 120191),
            "val": (1500, 3805, 10758),
            "testA": (750, 1975, 5726),
            "testB": (750, 1798, 4889),
        },
    ),
    ReferConfig(
        name="refcocog",
        description="RefCOCOg, split by UMD; no picture is in two splits",
        folder="refcocog",
        split_by="umd",
        published={
            "train": (21899, 42226, 80512),
            "val": (1300, 2573, 4896),
            "test": (2600, 5023, 9602),
        },
    ),
    ReferConfig(
        name="refcocog_google",
        description="RefCOCOg, split by Google; pictures are in train and val with different objects",
        folder="refcocog",
        split_by="google",
        published={"train": (24698, 44822, 85474), "val": (4650, 5000, 9536)},
    ),
]


class Builder(ReferBuilder):
    """Converts REFER's files."""

    HOMEPAGE = "https://github.com/lichengunc/refer"
    LICENCE = "REFER: Apache-2.0; COCO annotations: CC BY 4.0; pictures: their owners on Flickr"
    BUILDER_CONFIGS = CONFIGS
    DEFAULT_BUILDER_CONFIG_NAME = "refcoco"

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the configurations whose refs file lies in the raw folder."""
        return [config.name for config in CONFIGS if _refs_file(raw, config).is_file()]

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return "refcoco/refs(unc).p, refcoco+/refs(unc).p, refcocog/refs(umd).p or refcocog/refs(google).p"

    def read(self, raw: Path) -> tuple[list, str, Path]:
        """Returns the refs, the name of their file, and the path of the annotation file."""
        file = _refs_file(raw, self.builder_config)
        return refer_format.load_refs(file), file.name, raw / self.builder_config.folder / "instances.json"

    def targets(self, ref: dict) -> list[int]:
        """Returns the annotation of a ref: here it is always one."""
        if not isinstance(ref["ann_id"], int):
            raise UserError(f"the ann_id is {ref['ann_id']!r}, the id of one annotation is wanted")
        return [ref["ann_id"]]


def _refs_file(raw: Path, config: ReferConfig) -> Path:
    return Path(raw) / config.folder / f"refs({config.split_by}).p"
