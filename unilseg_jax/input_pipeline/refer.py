"""Referring expressions in the form of the REFER interface: refs that speak of objects in a COCO annotation file.

The ground-truth mask is the union of an object's polygons (count > 0); REFER sums them, and code that then
keeps only the ones loses the pixels on which two polygons of an object overlap.
"""

import abc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import UInt8

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import coco_format, raw_files, triplet
from unilseg_jax.input_pipeline.annotations import Annotations
from unilseg_jax.input_pipeline.builder import TripletBuilder
from unilseg_jax.input_pipeline.conversion import Conversion
from unilseg_jax.ops import masks

# Relative to the raw folder: REFER's own place first, then those of other code bases.
TRAIN2014_FOLDERS = ("images/mscoco/images/train2014", "images/train2014", "train2014")
# What a builder needs of an annotation.
ANNOTATION_FIELDS = ("id", "image_id", "category_id", "iscrowd", "bbox", "segmentation")


class Ref(NamedTuple):
    """What a refs file says of one object or group of objects.

    Attributes:
        ref_id: of the ref.
        image_id: of its picture.
        targets: ids of the annotations that it means together; none if it means nothing in the picture.
        sentences: as they stand in the file.
    """

    ref_id: int
    image_id: int
    targets: tuple[int, ...]
    sentences: Sequence


class PictureRefs(NamedTuple):
    """An item: a picture of a split with its refs."""

    image_id: int
    refs: list[Ref]


def find_pictures(raw: Path, pictures: Path | None, folders: tuple[str, ...]) -> Path:
    """Returns the folder of the pictures.

    Args:
        raw: the raw folder.
        pictures: the folder if the user named it, else it is looked for.
        folders: where to look, relative to the raw folder.

    Raises:
        UserError: there is no such folder.
    """
    if pictures is not None:
        if not Path(pictures).is_dir():
            raise UserError(f"no such folder of pictures: {str(pictures)!r}; check the path")
        return Path(pictures)
    try:
        return raw_files.first_folder(raw, folders, "COCO pictures")
    except UserError as error:
        raise UserError(f"{error}; name their folder with --pictures") from None


def group_refs(
    refs: list, file: str, targets: Callable[[dict], Sequence[int]], conversion: Conversion
) -> dict[str, list[PictureRefs]]:
    """Sorts refs by split and picture, in the order of the file; refs that make no sense are listed.

    Args:
        refs: as they stand in the file.
        file: its name, for the list.
        targets: returns the ids of the annotations that a ref means; a `UserError` lists the ref.
        conversion: keeps the list.
    """
    groups: dict[str, dict[int, list[Ref]]] = {}
    seen = set()
    for number, ref in enumerate(refs):
        fields = ref if isinstance(ref, dict) else {}
        split, ref_id, image_id = (fields.get(key) for key in ("split", "ref_id", "image_id"))
        # A split's name becomes part of file names.
        if not (isinstance(split, str) and split.isalnum() and split.isascii()):
            conversion.skip("", file, f"ref number {number} has no split", ref_id=repr(ref_id))
        elif split.lower() == "all":
            reason = f"the split of ref number {number} is {split!r}, a word kept for all splits together"
            conversion.skip("", file, reason, ref_id=repr(ref_id))
        elif not (isinstance(ref_id, int) and isinstance(image_id, int) and "ann_id" in fields):
            conversion.skip(split, file, f"ref number {number} lacks one of ref_id, image_id, ann_id")
        elif not isinstance(fields.get("sentences"), list | tuple):
            conversion.skip(split, file, "the ref has no list of sentences", ref_id=ref_id, image_id=image_id)
        elif ref_id in seen:
            conversion.skip(split, file, "the ref_id occurs twice; the first ref is kept", ref_id=ref_id)
        else:
            seen.add(ref_id)
            try:
                checked = Ref(ref_id, image_id, tuple(targets(fields)), fields["sentences"])
            except UserError as error:
                conversion.skip(split, file, str(error), ref_id=ref_id, image_id=image_id)
            else:
                groups.setdefault(split, {}).setdefault(image_id, []).append(checked)
    return {split: [PictureRefs(*item) for item in pictures.items()] for split, pictures in groups.items()}


def object_mask(annotation: dict, height: int, width: int) -> tuple[UInt8[np.ndarray, "h w"], list[str]]:
    """Returns the mask of an annotated object.

    Args:
        annotation: of a COCO file.
        height: of the picture, in pixels.
        width: of the picture, in pixels.

    Returns:
        The mask, and which of its polygons had to be left out.

    Raises:
        UserError: nothing of it can be used.
    """
    segmentation, faults = annotation["segmentation"], []
    if isinstance(segmentation, list):
        sound = []
        for polygon in segmentation:
            try:
                masks.check_polygon(polygon)
                sound.append(polygon)
            except UserError as error:
                faults.append(str(error))
        if faults and not sound:
            raise UserError(faults[0])
        segmentation = sound
    return masks.segmentation_to_mask(segmentation, height, width), [f"{f}; the polygon is left out" for f in faults]


class ReferBuilder(TripletBuilder, skip_registration=True):
    """Converts refs and a COCO annotation file: a record is a picture of a split with all its refs.

    Attributes:
        PICTURE_FOLDERS: where the pictures may lie, relative to the raw folder.
        coco: the annotation file, once `plan` was called.
        annotations: its annotations by id.
    """

    PICTURE_FOLDERS: ClassVar[tuple[str, ...]] = TRAIN2014_FOLDERS

    coco: coco_format.CocoFile
    annotations: dict[int, dict]

    @abc.abstractmethod
    def read(self, raw: Path) -> tuple[list, str, Path]:
        """Returns the refs, the name of their file, and the path of the annotation file."""

    @abc.abstractmethod
    def targets(self, ref: dict) -> Sequence[int]:
        """Returns the ids of the annotations that a ref means together; none if it means nothing.

        Raises:
            UserError: the ref does not say it in a form that is known.
        """

    def plan(self, raw: Path) -> dict[str, list[PictureRefs]]:
        """Returns the pictures of each split with their refs."""
        refs, file, instances = self.read(raw)
        self.coco = coco_format.read_coco(instances, ANNOTATION_FIELDS)
        self.annotations = {entry["id"]: entry for entries in self.coco.annotations.values() for entry in entries}
        self._folder = find_pictures(raw, self.pictures, self.PICTURE_FOLDERS)
        for part, key, reason in self.coco.faults:
            self.conversion.skip("", instances.name, f"{part}: {reason}", id=key)
        return group_refs(refs, file, self.targets, self.conversion)

    def item_file(self, item: PictureRefs) -> str:
        """Returns the picture's name, or its id if the annotation file does not name it."""
        picture = self.coco.pictures.get(item.image_id)
        return str(picture.file_name if picture else item.image_id)

    def records(self, split: str, item: PictureRefs) -> Iterator[dict]:
        """Makes the record of a picture: every ref with a target is a mask, every sentence a phrase."""
        entry = self.coco.pictures.get(item.image_id)
        if not entry:
            raise UserError("the picture is not in the annotation file")
        file_name = raw_files.plain_name(entry.file_name, "picture")
        picture = raw_files.read_picture(self._folder / file_name, (entry.height, entry.width))
        found = Annotations(picture.height, picture.width)
        for ref in item.refs:
            ids = {"image_id": item.image_id, "ref_id": ref.ref_id, "ann_id": list(ref.targets)}
            try:
                for fault in self._add(found, ref, picture.height, picture.width):
                    self.conversion.skip(split, file_name, fault, **ids)
            except UserError as error:
                self.conversion.skip(split, file_name, str(error), **ids)
        if found.phrases:
            yield self.record(
                picture,
                image_id=Path(file_name).stem,
                coco_id=item.image_id,
                masks=found.masks,
                phrases=found.phrases,
                task="referring",
            )

    def _add(self, found: Annotations, ref: Ref, height: int, width: int) -> list[str]:
        """Adds a ref to what was found in its picture, and returns what of it had to be left out."""
        texts, faults = _texts(ref.sentences)
        if not texts:
            raise UserError("the ref has no sentence that says anything")
        mask_index = triplet.NOTHING
        if ref.targets:
            mask_index, left_out = self._add_mask(found, ref, height, width)
            faults += left_out
        kind = "referring" if ref.targets else "nothing"
        found.phrases += [
            triplet.RecordPhrase(text=text, mask_index=mask_index, kind=kind, source_id=key) for text, key in texts
        ]
        return faults

    def _add_mask(self, found: Annotations, ref: Ref, height: int, width: int) -> tuple[int, list[str]]:
        """Adds the union of a ref's objects, and returns its number and what of it had to be left out."""
        faults = []
        union, categories = np.zeros((height, width), np.uint8), set()
        for key in ref.targets:
            annotation = self._annotation(key, ref.image_id)
            mask, left_out = object_mask(annotation, height, width)
            union |= mask
            category = annotation["category_id"]
            categories.add(self.coco.categories.get(category, "") if isinstance(category, int) else "")
            faults += left_out
        number = found.add(
            union,
            [],
            kind="instance",
            category=categories.pop() if len(categories) == 1 else "",
            source_id=ref.targets[0] if len(ref.targets) == 1 else -1,
        )
        return number, faults

    def _annotation(self, key: int, image_id: int) -> dict:
        annotation = self.annotations.get(key)
        if annotation is None:
            raise UserError(f"the annotation {key} is not in the annotation file")
        if annotation["image_id"] != image_id:
            raise UserError(f"the annotation {key} is of picture {annotation['image_id']}")
        return annotation


def _texts(sentences: Sequence) -> tuple[list[tuple[str, str]], list[str]]:
    """Returns the sentences that say something with their ids, and the faults of the others."""
    texts, faults, seen = [], [], set()
    for sentence in sentences:
        fields = sentence if isinstance(sentence, dict) else {}
        text, key = fields.get("sent"), fields.get("sent_id")
        key = str(key) if isinstance(key, int | str) and str(key).isascii() else ""
        if not triplet.has_words(text):
            faults.append(f"the sentence {text!r} says nothing")
        elif key and key in seen:
            faults.append(f"the sent_id {key} of the sentence {text!r} occurs twice; the first one is kept")
        else:
            seen.add(key)
            texts.append((text, key))
    return texts, faults
