"""One sample of every data set: a picture, its masks, and phrases that each name one mask or nothing.

`Triplet` is the decoded sample; the record is how it lies on disk. The record is flat (numbers, strings and
lists of them), so that reading and writing it needs no TensorFlow. Its fields, schema version 1:

| field | type | meaning |
|---|---|---|
| `schema_version` | int | `SCHEMA_VERSION`; a record of another version is refused |
| `image` | bytes | the encoded picture as it came, never re-encoded |
| `image_id` | text | names the picture within its source |
| `coco_id` | int | id of the picture in COCO, -1 if it is no COCO picture |
| `height`, `width` | int | of the picture, in pixels |
| `masks` | texts, m | compressed COCO run lengths, each of height × width pixels |
| `mask_categories` | texts, m | name of the class, "" if unknown |
| `mask_kinds` | texts, m | one of `MASK_KINDS` |
| `mask_boxes` | floats, m × 4 | x, y, width, height in pixels |
| `mask_scores` | floats, m | 0 to 1; 1 where a human drew the mask |
| `mask_ids` | ints, m | id of the annotation within its source, -1 if it has none |
| `phrases` | texts, p | raw texts |
| `phrase_masks` | ints, p | index of the phrase's mask, `NOTHING` (-1) or `UNKNOWN` (-2) |
| `phrase_ids` | texts, p | id of the phrase within its source, "" if it has none |
| `phrase_objects` | ints, p | label of the object that is meant, among the picture's phrases; -1 if not said |
| `phrase_kinds` | texts, p | what the phrase speaks of; results are reported per kind |
| `task` | text | one of `TASKS` |
| `source`, `licence` | text | data set with its configuration; whose terms hold |
| `video`, `frame` | text | "" if the picture is no frame of a video |

A phrase that means several objects has the union of their masks as one mask of its own. `NOTHING` says that the
phrase matches nothing in the picture; several such phrases with one `phrase_objects` mean one absent object (older
records lack this field). `UNKNOWN` says that nobody published what it matches (frames of a
benchmark that is scored elsewhere): such a phrase can be predicted, but neither learnt from nor scored.
A mask of kind "box" fills the box of an object that nobody outlined, one of kind "ignored" covers the pixels that an
evaluation leaves out: no phrase may name them, so none learns them.
"""

import dataclasses
import io
import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.stored_pictures import decode_image
from unilseg_jax.ops.masks import rle_runs, rle_to_mask

SCHEMA_VERSION = 1
MASK_KINDS = ("instance", "category", "part", "salient", "box", "ignored")
TASKS = ("referring", "semantic", "part", "salient", "video", "none")
NOTHING = -1
UNKNOWN = -2
_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can name one half alone; it could not be written as UTF-8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Triplet:
    """A decoded picture with everything that is said about it.

    Attributes:
        image_id: names the picture within its source.
        image: RGB, 0 to 255.
        masks: {0, 1}, at the picture's own size; masks may overlap (a part lies inside its object).
        phrases: raw texts, at least one.
        mask_index: for each phrase the index of its mask, `NOTHING` or `UNKNOWN`.
        kinds: for each phrase what it speaks of ("attribute", "category", "part", ...); results are given per kind.
        phrase_ids: for each phrase its id within the source, "" if it has none; empty if no phrase has one.
    """

    image_id: str
    image: UInt8[np.ndarray, "h w 3"]
    masks: UInt8[np.ndarray, "m h w"]
    phrases: tuple[str, ...]
    mask_index: tuple[int, ...]
    kinds: tuple[str, ...]
    phrase_ids: tuple[str, ...] = ()

    def mask(self, phrase: int) -> UInt8[np.ndarray, "h w"]:
        """Returns the mask that the phrase number `phrase` names; all zeros if it matches nothing.

        Raises:
            UserError: what the phrase matches is unknown.
        """
        if (index := self.mask_index[phrase]) == UNKNOWN:
            where = f"{self.phrases[phrase]!r} in {self.image_id!r}"
            raise UserError(f"no ground truth for {where}: it can be predicted, but neither learnt from nor scored")
        return self.masks[index] if index >= 0 else np.zeros(self.image.shape[:2], np.uint8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordMask:
    """One mask of a record; the fields are those of the module's table.

    Attributes:
        counts: compressed COCO run lengths.
        box: x, y, width, height in pixels.
        category: name of the class, "" if unknown.
        kind: one of `MASK_KINDS`.
        score: 0 to 1; 1 where a human drew the mask.
        source_id: id of the annotation within its source, -1 if it has none.
    """

    counts: bytes
    box: tuple[float, float, float, float]
    category: str = ""
    kind: str = "instance"
    score: float = 1.0
    source_id: int = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordPhrase:
    """One phrase of a record.

    Attributes:
        text: the raw text.
        mask_index: index of its mask, `NOTHING` or `UNKNOWN`.
        kind: what it speaks of.
        source_id: id of the phrase within its source, "" if it has none.
        object_id: label of the object that it means, -1 if the source does not say.
    """

    text: str
    mask_index: int
    kind: str
    source_id: str = ""
    object_id: int = -1


def features():
    """Returns the record's fields as a `tfds.features.FeaturesDict`."""
    import tensorflow_datasets as tfds

    text, texts = tfds.features.Text(), tfds.features.Sequence(tfds.features.Text())
    return tfds.features.FeaturesDict(
        {
            "schema_version": np.int32,
            "image": tfds.features.Image(),
            "image_id": text,
            "coco_id": np.int64,
            "height": np.int32,
            "width": np.int32,
            "masks": texts,
            "mask_categories": texts,
            "mask_kinds": texts,
            "mask_boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
            "mask_scores": tfds.features.Sequence(np.float32),
            "mask_ids": tfds.features.Sequence(np.int64),
            "phrases": texts,
            "phrase_masks": tfds.features.Sequence(np.int32),
            "phrase_ids": texts,
            "phrase_objects": tfds.features.Sequence(np.int32),
            "phrase_kinds": texts,
            "task": text,
            "source": text,
            "licence": text,
            "video": text,
            "frame": text,
        }
    )


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8: it has no half of a surrogate pair, as which bytes that are not come."""
    return not _SURROGATE.search(text)


def has_words(text: object) -> bool:
    """Whether a phrase says anything: a text with at least one letter or digit that can be written as UTF-8."""
    return isinstance(text, str) and any(letter.isalnum() for letter in text) and is_utf8(text)


def encode_record(
    *,
    image: bytes,
    image_id: str,
    height: int,
    width: int,
    masks: Sequence[RecordMask],
    phrases: Sequence[RecordPhrase],
    task: str,
    source: str,
    licence: str,
    coco_id: int = -1,
    video: str = "",
    frame: str = "",
) -> dict[str, object]:
    """Puts together one record, in the form that tfds writes without TensorFlow.

    The arguments are the fields of the module's table; a picture that waits for annotation has no masks and phrases.

    Raises:
        UserError: the task, a mask's size or kind, a phrase or the mask it names is wrong, or a name is not UTF-8.
    """
    if task not in TASKS:
        raise UserError(f"the task is {task!r}, one of {', '.join(TASKS)} is wanted")
    for name in (image_id, video, frame, *(mask.category for mask in masks)):
        if not is_utf8(name):
            raise UserError(f"the name {name!r} cannot be written as UTF-8")
    for number, mask in enumerate(masks):
        if mask.kind not in MASK_KINDS:
            raise UserError(f"mask {number} is of kind {mask.kind!r}, one of {', '.join(MASK_KINDS)} is wanted")
        pixels = int(rle_runs(mask.counts).sum())
        if pixels != height * width:
            raise UserError(f"mask {number} has {pixels} pixels, {height * width} ({height} × {width}) are wanted")
    _check_phrases(phrases, masks)
    return {
        "schema_version": SCHEMA_VERSION,
        "image": io.BytesIO(image),
        "image_id": image_id,
        "coco_id": coco_id,
        "height": height,
        "width": width,
        "masks": [mask.counts.decode("ascii") for mask in masks],
        "mask_categories": [mask.category for mask in masks],
        "mask_kinds": [mask.kind for mask in masks],
        "mask_boxes": np.asarray([mask.box for mask in masks], np.float32).reshape(len(masks), 4),
        "mask_scores": np.asarray([mask.score for mask in masks], np.float32),
        "mask_ids": np.asarray([mask.source_id for mask in masks], np.int64),
        "phrases": [phrase.text for phrase in phrases],
        "phrase_masks": np.asarray([phrase.mask_index for phrase in phrases], np.int32),
        "phrase_ids": [phrase.source_id for phrase in phrases],
        "phrase_objects": np.asarray([phrase.object_id for phrase in phrases], np.int32),
        "phrase_kinds": [phrase.kind for phrase in phrases],
        "task": task,
        "source": source,
        "licence": licence,
        "video": video,
        "frame": frame,
    }


def _check_phrases(phrases: Sequence[RecordPhrase], masks: Sequence[RecordMask]) -> None:
    for phrase in phrases:
        if not has_words(phrase.text):
            raise UserError(f"the phrase {phrase.text!r} says nothing, a text with letters is wanted")
        if not UNKNOWN <= phrase.mask_index < len(masks):
            raise UserError(f"the phrase {phrase.text!r} names mask {phrase.mask_index} of {len(masks)}")
        if phrase.mask_index >= 0 and (kind := masks[phrase.mask_index].kind) in ("box", "ignored"):
            raise UserError(f"the phrase {phrase.text!r} names a mask of kind {kind!r}, one of an object is wanted")


def check_version(record: Mapping) -> None:
    """Refuses a record of another schema version, with a `UserError`."""
    if (version := record.get("schema_version")) != SCHEMA_VERSION:
        wanted = f"this code reads version {SCHEMA_VERSION}; prepare the data set again with its unilseg_jax.prepare"
        raise UserError(f"the record is of schema version {version}, {wanted}")


def decode_record(record: Mapping) -> Triplet:
    """Decodes a record's picture and masks.

    Args:
        record: what `encode_record` gave or a reader returns; `image` is still encoded.

    Raises:
        UserError: the record is of another schema version, or its picture or a mask is broken.
    """
    check_version(record)
    image = decode_image(_bytes(record["image"]))
    height, width = int(record["height"]), int(record["width"])
    if image.shape[:2] != (height, width):
        raise UserError(f"the picture is {image.shape[0]} × {image.shape[1]}, its record says {height} × {width}")
    masks = np.zeros((len(record["masks"]), height, width), np.uint8)
    for number, counts in enumerate(record["masks"]):
        masks[number] = rle_to_mask(_bytes(counts), height, width)
    return Triplet(
        image_id=_bytes(record["image_id"]).decode(),
        image=image,
        masks=masks,
        phrases=tuple(_bytes(text).decode() for text in record["phrases"]),
        mask_index=tuple(int(index) for index in record["phrase_masks"]),
        kinds=tuple(_bytes(kind).decode() for kind in record["phrase_kinds"]),
        # Records written before the field was there lack it.
        phrase_ids=tuple(_bytes(source_id).decode() for source_id in record.get("phrase_ids", ())),
    )


def _bytes(value: object) -> bytes:
    if isinstance(value, io.BytesIO):
        return value.getvalue()
    return value.encode() if isinstance(value, str) else bytes(value)
