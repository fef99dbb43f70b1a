"""gRefCOCO as triplet records: expressions that mean one object, several (one mask, their union), or nothing."""

import functools
from pathlib import Path

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.builder import SetConfig
from unilseg_jax.input_pipeline.json_file import read_json
from unilseg_jax.input_pipeline.refer import ReferBuilder

REFS, INSTANCES = "grefcoco/grefs(unc).json", "grefcoco/instances.json"
NO_TARGET = [-1]


class Builder(ReferBuilder):
    """Converts gRefCOCO's files."""

    HOMEPAGE = "https://github.com/henghuiding/gRefCOCO"
    LICENCE = "gRefCOCO: none stated; COCO annotations: CC BY 4.0; pictures: their owners on Flickr"
    # The pictures and their splits are RefCOCO's. Expressions are published as a sum only, and the files hold fewer.
    BUILDER_CONFIGS = [  # noqa: RUF012
        SetConfig(
            name="grefcoco",
            description="gRefCOCO, split by UNC",
            published={
                "train": (16994, None, None),
                "val": (1500, None, None),
                "testA": (750, None, None),
                "testB": (750, None, None),
            },
            fetch="grefs(unc).json and instances.json from https://github.com/henghuiding/gRefCOCO; pictures: "
            "http://images.cocodataset.org/zips/train2014.zip",
            picture_places=ReferBuilder.PICTURE_FOLDERS,
        )
    ]

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the configuration if its refs file lies in the raw folder."""
        return ["grefcoco"] if (Path(raw) / REFS).is_file() else []

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return f"{REFS} and {INSTANCES}"

    def read(self, raw: Path) -> tuple[list, str, Path]:
        """Returns the refs, the name of their file, and the path of the annotation file."""
        path = raw / REFS
        refs = read_json(path, "refs file", functools.partial(self.conversion.skip, "", path.name))
        if not isinstance(refs, list):
            raise UserError(f"{str(path)!r} holds a {type(refs).__name__}, a list of refs is wanted")
        return refs, path.name, raw / INSTANCES

    def targets(self, ref: dict) -> list[int]:
        """Returns the annotations of a ref without crowds, which its authors leave out too."""
        value = ref["ann_id"]
        keys = value if isinstance(value, list) else [value]
        if not keys or not all(isinstance(key, int) for key in keys):
            raise UserError(f"the ann_id is {value!r}, an id, a list of them or [-1] is wanted")
        if keys == NO_TARGET:
            return []
        if ref.get("no_target") or -1 in keys:
            raise UserError(f"the ref says that it has no target, and has the ann_id {value!r}")
        kept = [key for key in dict.fromkeys(keys) if not self.annotations.get(key, {}).get("iscrowd")]
        if not kept:
            raise UserError(f"the ref means crowds only ({value!r}), which have no mask of objects")
        return kept
