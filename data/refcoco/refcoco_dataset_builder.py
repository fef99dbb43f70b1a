"""RefCOCO, RefCOCO+ and RefCOCOg as triplet records: a picture of a split with all its objects and sentences.

The ground-truth mask is the union of an object's polygons (count > 0); REFER sums them, and code that then
keeps only the ones loses the pixels on which two polygons of an object overlap.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import triplet
from unilseg_jax.input_pipeline.conversion import Conversion, SplitCounts
from unilseg_jax.ops import masks

from . import refer_format

LICENCE = "REFER: Apache-2.0; COCO annotations: CC BY 4.0; pictures: their owners on Flickr"


@dataclasses.dataclass(eq=False)
class ReferConfig(tfds.core.BuilderConfig):
    """One of the data sets with one of its splits; its folder in the raw folder is named like the set."""

    folder: str = ""
    split_by: str = ""
    published: dict[str, tuple[int, int, int]] = dataclasses.field(default_factory=dict)


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


class Builder(tfds.core.GeneratorBasedBuilder):
    """Converts REFER's files.

    Attributes:
        conversion: the book of this conversion; a command replaces it to follow the progress.
        pictures: folder of COCO's train2014 pictures; None looks for it in the raw folder.
    """

    # The first number is that of the record's schema, so that sets of two schemas never share a folder.
    VERSION = tfds.core.Version(f"{triplet.SCHEMA_VERSION}.0.0")
    BUILDER_CONFIGS = CONFIGS
    DEFAULT_BUILDER_CONFIG_NAME = "refcoco"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "See README.md beside this file."
    pkg_dir_path = tfds.core.Path(__file__).parent

    conversion: Conversion | None = None
    pictures: Path | None = None

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the configurations whose refs file lies in the raw folder."""
        return [config.name for config in CONFIGS if _refs_file(raw, config).is_file()]

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return "refcoco/refs(unc).p, refcoco+/refs(unc).p, refcocog/refs(umd).p or refcocog/refs(google).p"

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=triplet.features(), homepage="https://github.com/lichengunc/refer"
        )

    def _download_and_prepare(self, *args, **kwargs) -> None:
        # Here the data set still has its temporary name, which tfds changes when all is written.
        self.conversion = self.conversion or Conversion()
        super()._download_and_prepare(*args, **kwargs)
        published = {
            split: SplitCounts(pictures=sizes[0], objects=sizes[1], phrases=sizes[2])
            for split, sizes in self.builder_config.published.items()
        }
        self.conversion.write(Path(self.data_dir), published, source=self._source(), licence=LICENCE)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        raw = Path(dl_manager.manual_dir)
        config = self.builder_config
        refs_file = _refs_file(raw, config)
        refs = refer_format.load_refs(refs_file)
        instances = refer_format.load_instances(raw / config.folder / "instances.json")
        pictures = refer_format.find_pictures(raw, self.pictures)
        for part, key, reason in instances.faults:
            self.conversion.skip("", "instances.json", f"{part}: {reason}", id=key)
        generators = {}
        for split, by_picture in _group(refs, refs_file.name, self.conversion).items():
            self.conversion.expect(split, len(by_picture))
            records = self._generate_examples(split, by_picture, instances, pictures)
            # tfds refuses a split without a record, so the first one decides whether the split is there.
            first = list(itertools.islice(records, 1))
            if first:
                generators[split] = itertools.chain(first, records)
        if not generators:
            raise UserError(
                f"nothing of {str(refs_file)!r} could be converted with the pictures in {str(pictures)!r}"
                + (f"; the first fault: {self.conversion.skipped[0]}" if self.conversion.skipped else "")
            )
        return generators

    def _generate_examples(
        self, split: str, by_picture: dict[int, list[dict]], instances: refer_format.Instances, pictures: Path
    ) -> Iterator[tuple[str, dict]]:
        for image_id, refs in by_picture.items():
            record = self._record(split, image_id, refs, instances, pictures)
            if record is not None:
                self.conversion.wrote(split, len(record["masks"]), len(record["phrases"]))
                yield str(image_id), record
            self.conversion.picture_done(split)

    def _record(
        self, split: str, image_id: int, refs: list[dict], instances: refer_format.Instances, pictures: Path
    ) -> dict | None:
        """Returns the record of one picture, None if nothing of it can be used."""
        entry = instances.pictures.get(image_id, {})
        file_name = entry.get("file_name")
        height, width = entry.get("height"), entry.get("width")
        try:
            if not entry:
                raise UserError("the picture is not in instances.json")
            encoded = _read_picture(pictures, file_name, height, width)
        except UserError as error:
            self.conversion.skip(split, str(file_name), str(error), image_id=image_id, refs=len(refs))
            return None
        record_masks, phrases = [], []
        for ref in refs:
            ids = {"image_id": image_id, "ref_id": ref["ref_id"], "ann_id": ref["ann_id"]}
            texts = []
            for sentence in ref["sentences"]:
                text = sentence.get("sent") if isinstance(sentence, dict) else None
                if triplet.has_words(text):
                    texts.append(text)
                else:
                    self.conversion.skip(split, file_name, f"the sentence {text!r} says nothing", **ids)
            try:
                if not texts:
                    raise UserError("the ref has no sentence that says anything")
                mask, faults = _object_mask(ref, instances, height, width)
            except UserError as error:
                self.conversion.skip(split, file_name, str(error), **ids)
                continue
            for fault in faults:
                self.conversion.skip(split, file_name, fault, **ids)
            number = len(record_masks)
            record_masks.append(mask)
            phrases += [triplet.RecordPhrase(text=text, mask_index=number, kind="referring") for text in texts]
        if not record_masks:
            return None
        return triplet.encode_record(
            image=encoded,
            image_id=Path(file_name).stem,
            coco_id=image_id,
            height=height,
            width=width,
            masks=record_masks,
            phrases=phrases,
            task="referring",
            source=self._source(),
            licence=LICENCE,
        )

    def _source(self) -> str:
        return f"{self.name}/{self.builder_config.name}"


def _refs_file(raw: Path, config: ReferConfig) -> Path:
    return Path(raw) / config.folder / f"refs({config.split_by}).p"


def _group(refs: list, file: str, conversion: Conversion) -> dict[str, dict[int, list[dict]]]:
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
    return groups


def _read_picture(pictures: Path, file_name: object, height: object, width: object) -> bytes:
    """Returns a picture's bytes once they were seen to decode to the size that the annotations speak of."""
    if not isinstance(file_name, str) or Path(file_name).name != file_name:
        raise UserError(f"the picture's name is {file_name!r}, a plain file name is wanted")
    try:
        encoded = (pictures / file_name).read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"the picture is not read: {getattr(error, 'strerror', None) or error}") from None
    shape = triplet.decode_image(encoded).shape[:2]
    if shape != (height, width):
        raise UserError(f"the picture is {shape[0]} × {shape[1]}, instances.json says {height} × {width}")
    return encoded


def _object_mask(
    ref: dict, instances: refer_format.Instances, height: int, width: int
) -> tuple[triplet.RecordMask, list[str]]:
    """Returns the mask of a ref's object, and what of it had to be left out."""
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
    if not mask.any():
        raise UserError("the mask has no pixel")
    return triplet.RecordMask(
        counts=masks.mask_to_rle(mask),
        box=masks.mask_box(mask),
        category=instances.categories.get(annotation.get("category_id"), ""),
        source_id=ref["ann_id"],
    ), faults
