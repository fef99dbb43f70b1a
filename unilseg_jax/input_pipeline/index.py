"""The index of a prepared split: what the mixture and the leakage firewall need of every record.

It lies beside the records as `index-SPLIT.npz`, one entry per record in their order:

| array | type | meaning |
|---|---|---|
| `samples` | uint16 | objects to be learnt: masks that a phrase names, plus phrases that match nothing |
| `coco_id` | int64 | the picture's id in COCO, -1 if it is no COCO picture |
| `fingerprint` | uint64 | perceptual hash of the picture (`fingerprint`) |
"""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
from jaxtyping import Int64, UInt16, UInt64
from PIL import Image

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.prepared import AGAIN
from unilseg_jax.input_pipeline.triplet import NOTHING

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
        return int(str(imagehash.phash(picture)), 16)


def sample_count(phrase_masks: np.ndarray) -> int:
    """Returns how many objects a record offers to a learner, given its `phrase_masks`."""
    phrase_masks = np.asarray(phrase_masks)
    return len(np.unique(phrase_masks[phrase_masks >= 0])) + int((phrase_masks == NOTHING).sum())


class IndexWriter:
    """Gathers an index while records are written."""

    def __init__(self):
        self._rows: list[tuple[int, int, int]] = []

    def add(self, record: Mapping) -> None:
        """Adds a record, as `triplet.encode_record` made it or as it was read."""
        image = record["image"]
        encoded = image.getvalue() if isinstance(image, io.BytesIO) else bytes(image)
        count = min(sample_count(record["phrase_masks"]), np.iinfo(np.uint16).max)
        self._rows.append((count, int(record["coco_id"]), fingerprint(encoded)))

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
        UserError: the file is damaged.
    """
    path = _file(directory, split)
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Index(*(arrays[name].astype(dtype, copy=False) for name, dtype in _DTYPES.items()))
    # NumPy and zipfile raise many kinds.
    except Exception as error:
        raise UserError(f"the index {str(path)!r} is damaged ({error}); {AGAIN}") from None


def _file(directory: Path, split: str) -> Path:
    return Path(directory) / f"index-{split}.npz"
