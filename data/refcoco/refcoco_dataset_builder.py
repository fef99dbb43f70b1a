"""RefCOCO, RefCOCO+ and RefCOCOg as triplet records: a picture of a split with all its objects and sentences.

The ground-truth mask is the union of an object's polygons (count > 0); REFER sums them, and code that then
keeps only the ones loses the pixels on which two polygons of an object overlap.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import raw_files, triplet
from unilseg_jax.input_pipeline.builder import Annotations, SetConfig, TripletBuilder
from unilseg_jax.input_pipeline.conversion import Conversion
from unilseg_jax.ops import masks

from . import refer_format


class ReferConfig(SetConfig):
    """One of the data sets with one of its splits; its folder in the raw folder is named like the set."""

    def __init__(self, *, folder: str, split_by: str, **more):
        super().__init__(**more)
        self.folder = folder
        self.split_by = split_by


class PictureRefs(NamedTuple):
    """An item: a picture of a split with its refs."""

    image_id: int
    refs: list[dict]


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


class Builder(TripletBuilder):
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

    def plan(self, raw: Path) -> dict[str, list[PictureRefs]]:
        """Returns the pictures of each split with their refs."""
        config = self.builder_config
        refs_file = _refs_file(raw, config)
        refs = refer_format.load_refs(refs_file)
        self._instances = refer_format.load_instances(raw / config.folder / "instances.json")
        self._pictures = refer_format.find_pictures(raw, self.pictures)
        for part, key, reason in self._instances.faults:
            self.conversion.skip("", "instances.json", f"{part}: {reason}", id=key)
        return _group(refs, refs_file.name, self.conversion)

    def item_file(self, item: PictureRefs) -> str:
        """Returns the picture's name, or its id if the annotation file does not name it."""
        return str(self._instances.pictures.get(item.image_id, {}).get("file_name") or item.image_id)

    def records(self, split: str, item: PictureRefs) -> Iterator[dict]:
        """Makes the record of a picture: every ref an object, every sentence a phrase."""
        entry = self._instances.pictures.get(item.image_id)
        if not entry:
            raise UserError("the picture is not in instances.json")
        file_name = raw_files.plain_name(entry.get("file_name"), "picture")
        size = (entry.get("height"), entry.get("width"))
        picture = raw_files.read_picture(self._pictures / file_name, size)
        found = Annotations(picture.height, picture.width)
        for ref in item.refs:
            ids = {"image_id": item.image_id, "ref_id": ref["ref_id"], "ann_id": ref["ann_id"]}
            try:
                texts = self._texts(split, file_name, ref, ids)
                mask, category, faults = _object_mask(ref, self._instances, picture.height, picture.width)
                for fault in faults:
                    self.conversion.skip(split, file_name, fault, **ids)
                found.add(
                    mask, texts, kind="instance", category=category, phrase_kind="referring", source_id=ref["ann_id"]
                )
            except UserError as error:
                self.conversion.skip(split, file_name, str(error), **ids)
        if found.masks:
            yield triplet.encode_record(
                image=picture.encoded,
                image_id=Path(file_name).stem,
                coco_id=item.image_id,
                height=picture.height,
                width=picture.width,
                masks=found.masks,
                phrases=found.phrases,
                task="referring",
                source=self.source,
                licence=self.LICENCE,
            )

    def _texts(self, split: str, file_name: str, ref: dict, ids: dict) -> list[str]:
        """Returns the sentences that say something, and lists the others."""
        texts = []
        for sentence in ref["sentences"]:
            text = sentence.get("sent") if isinstance(sentence, dict) else None
            if triplet.has_words(text):
                texts.append(text)
            else:
                self.conversion.skip(split, file_name, f"the sentence {text!r} says nothing", **ids)
        if not texts:
            raise UserError("the ref has no sentence that says anything")
        return texts


def _refs_file(raw: Path, config: ReferConfig) -> Path:
    return Path(raw) / config.folder / f"refs({config.split_by}).p"


def _group(refs: list, file: str, conversion: Conversion) -> dict[str, list[PictureRefs]]:
    """Sorts refs by split and picture, in the order of the file."""
    groups: dict[str, dict[int, list[dict]]] = {}
    seen = set()
    for number, ref in enumerate(refs):
        fields = ref if isinstance(ref, dict) else {}
        split, ref_id, image_id = (fields.get(key) for key in ("split", "ref_id", "image_id"))
        # A split's name becomes part of file names.
        if not (isinstance(split, str) and split.isalnum() and split.isascii()):
            conversion.skip("", file, f"ref number {number} has no split", ref_id=repr(ref_id))
        elif not all(isinstance(fields.get(key), int) for key in ("ref_id", "image_id", "ann_id")):
            conversion.skip(split, file, f"ref number {number} lacks one of ref_id, image_id, ann_id")
        elif not isinstance(fields.get("sentences"), list | tuple):
            conversion.skip(split, file, "the ref has no list of sentences", ref_id=ref_id, image_id=image_id)
        elif ref_id in seen:
            conversion.skip(split, file, "the ref_id occurs twice; the first ref is kept", ref_id=ref_id)
        else:
            seen.add(ref_id)
            groups.setdefault(split, {}).setdefault(image_id, []).append(ref)
    return {split: [PictureRefs(*item) for item in pictures.items()] for split, pictures in groups.items()}


def _object_mask(
    ref: dict, instances: refer_format.Instances, height: int, width: int
) -> tuple[np.ndarray, str, list[str]]:
    """Returns the mask of a ref's object, its category, and what of it had to be left out."""
    annotation = instances.annotations.get(ref["ann_id"])
    if annotation is None:
        raise UserError(f"the annotation {ref['ann_id']} is not in instances.json")
    if annotation.get("image_id") != ref["image_id"]:
        raise UserError(f"the annotation {ref['ann_id']} is of picture {annotation.get('image_id')}")
    segmentation, faults = annotation.get("segmentation"), []
    if isinstance(segmentation, list):
        sound = []
        for polygon in segmentation:
            try:
                masks.check_polygon(polygon)
                sound.append(polygon)
            except UserError as error:
                faults.append(f"{error}; the polygon is left out")
        if faults and not sound:
            raise UserError(faults[0].removesuffix("; the polygon is left out"))
        segmentation = sound
    mask = masks.segmentation_to_mask(segmentation, height, width)
    return mask, instances.categories.get(annotation.get("category_id"), ""), faults
