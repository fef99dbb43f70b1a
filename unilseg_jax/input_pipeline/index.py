"""The index of a prepared split: what the mixture and the leakage firewall need of every record.

It lies beside the records as `index-SPLIT.npz`, one entry per record in their order:

| array | type | meaning |
|---|---|---|
| `samples` | uint16 | objects to be learnt (`samples_of_phrases`) |
| `coco_id` | int64 | the picture's id in COCO, -1 if it is no COCO picture |
| `fingerprint` | uint64 | perceptual hash of the picture (`fingerprint`) |
"""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
from jaxtyping import Int64, UInt16, UInt64
from PIL import Image

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.images import to_8_bits, white_of
from unilseg_jax.input_pipeline.prepared import fault
from unilseg_jax.input_pipeline.triplet import NOTHING

_Numbers = np.ndarray | Sequence[int]
_DTYPES = {"samples": np.uint16, "coco_id": np.int64, "fingerprint": np.uint64}


class Index(NamedTuple):
    """The arrays of the module's table; n is the number of records."""

    samples: UInt16[np.ndarray, " n"]
    coco_id: Int64[np.ndarray, " n"]
    fingerprint: UInt64[np.ndarray, " n"]


def fingerprint(encoded: bytes) -> int:
    """Returns a picture's perceptual hash (DCT, 64 bits): alike for copies of other size or compression.

    Args:
        encoded: a picture that decodes.
    """
    with Image.open(io.BytesIO(encoded)) as picture:
        # A JPEG is decoded at a fraction of its size, which the hash does not notice.
        picture.draft("L", (128, 128))
        grey = to_8_bits(picture, white_of(picture), "the picture")
        return int(str(imagehash.phash(grey)), 16)


def samples_of_phrases(phrase_masks: _Numbers, phrase_objects: _Numbers = ()) -> list[int]:
    """Returns for each phrase of a record the number of its sample, -1 where its truth is unknown.

    A sample is an object to be learnt: a mask that phrases name, or an object that is not in the picture. Phrases that
    match nothing mean one object if the record gives them one label, else each is a sample of its own. Masks come
    first, in their order, then what is absent, in the order of the phrases.

    Args:
        phrase_masks: the record's field.
        phrase_objects: the record's field; empty for records that were made before it was there.
    """
    named = {mask: number for number, mask in enumerate(sorted({int(mask) for mask in phrase_masks if mask >= 0}))}
    absent: dict[tuple[int, int], int] = {}
    samples = []
    for phrase, mask in enumerate(phrase_masks):
        label = int(phrase_objects[phrase]) if len(phrase_objects) else -1
        if mask == NOTHING:
            key = (label, -1) if label >= 0 else (-1, phrase)
            samples.append(absent.setdefault(key, len(named) + len(absent)))
        else:
            samples.append(named.get(int(mask), -1))
    return samples


def sample_count(phrase_masks: _Numbers, phrase_objects: _Numbers = ()) -> int:
    """Returns how many objects a record offers to a learner; the arguments are those of `samples_of_phrases`."""
    return max(samples_of_phrases(phrase_masks, phrase_objects), default=-1) + 1


class IndexWriter:
    """Gathers an index while records are written."""

    def __init__(self):
        self._rows: list[tuple[int, int, int]] = []

    def add(self, record: Mapping) -> None:
        """Adds a record, as `triplet.encode_record` made it or as it was read."""
        image = record["image"]
        encoded = image.getvalue() if isinstance(image, io.BytesIO) else bytes(image)
        count = sample_count(record["phrase_masks"], record.get("phrase_objects", ()))
        self._rows.append((min(count, np.iinfo(np.uint16).max), int(record["coco_id"]), fingerprint(encoded)))

    def index(self) -> Index:
        """Returns what was gathered."""
        columns = zip(*self._rows, strict=True) if self._rows else ((), (), ())
        return Index(*(np.array(column, dtype) for column, dtype in zip(columns, _DTYPES.values(), strict=True)))

    def write(self, directory: Path, split: str) -> None:
        """Writes the index beside the records."""
        write_index(directory, split, self.index())


def write_index(directory: Path, split: str, index: Index) -> None:
    """Writes an index under a temporary name first."""
    path = _file(directory, split)
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.savez(file, **index._asdict())
    os.replace(partial, path)


def read_index(directory: Path, split: str) -> Index | None:
    """Returns the index of a split, None if it was prepared without one.

    Raises:
        UserError: the file is damaged or may not be read.
    """
    path = _file(directory, split)
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Index(*(arrays[name].astype(dtype, copy=False) for name, dtype in _DTYPES.items()))
    # NumPy and zipfile raise many kinds.
    except Exception as error:
        raise UserError(f"the index {str(path)!r} {fault(error)}") from None


def _file(directory: Path, split: str) -> Path:
    return Path(directory) / f"index-{split}.npz"
