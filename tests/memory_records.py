"""Prepared data sets in memory: every picture, object and phrase says by itself which one it is."""

import functools
import io

import numpy as np
from PIL import Image

from unilseg_jax.input_pipeline import triplet
from unilseg_jax.ops.masks import mask_to_rle

SIDE = 8  # px; an object is one pixel


def class_name(number: int) -> str:
    return f"class {'abcdefghijklmnopqrstuvwxyz'[number]}"


@functools.cache
def _png(red: int, green: int, blue: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((SIDE, SIDE, 3), (red, green, blue), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


class MemoryRecords:
    """A source of records.

    Picture n is of one colour, (number of the source, n % 256, n // 256). Its object k is the pixel number k, is of
    class k and has two phrases. Phrases for nothing come after them.

    Args:
        number: of the source.
        objects: per picture its number of objects, or the numbers of their classes.
        nothing: phrases for nothing per picture.
        unknown: phrases without ground truth per picture.
        task: of all records.
        score: of all masks.
    """

    def __init__(self, number, objects, *, nothing=0, unknown=0, task="semantic", score=1.0):
        self.number = number
        self.classes = [list(range(entry)) if isinstance(entry, int) else list(entry) for entry in objects]
        self.nothing, self.unknown, self.task, self.score = nothing, unknown, task, score
        self.reads = 0
        self.samples = np.array([len(classes) + nothing for classes in self.classes], np.uint16)
        self._made = {}

    def __len__(self):
        return len(self.classes)

    def record(self, index):
        self.reads += 1
        if index not in self._made:
            self._made[index] = self._make(index)
        return self._made[index]

    def _make(self, index):
        masks, phrases = [], []
        for place, number in enumerate(self.classes[index]):
            mask = np.zeros(SIDE * SIDE, np.uint8)
            mask[number] = 1
            counts = mask_to_rle(mask.reshape(SIDE, SIDE))
            masks.append(
                triplet.RecordMask(
                    counts=counts,
                    box=(0.0, 0.0, 1.0, 1.0),
                    category=class_name(number),
                    kind="category",
                    score=self.score,
                )
            )
            for text in (f"all {class_name(number)}", f"every {class_name(number)}"):
                phrases.append(triplet.RecordPhrase(text=text, mask_index=place, kind="category"))
        for kind, count in ((triplet.NOTHING, self.nothing), (triplet.UNKNOWN, self.unknown)):
            phrases += [triplet.RecordPhrase(text=f"no {k}", mask_index=kind, kind="nothing") for k in range(count)]
        return triplet.encode_record(
            image=_png(self.number, index % 256, index // 256),
            image_id=str(index),
            height=SIDE,
            width=SIDE,
            masks=masks,
            phrases=phrases,
            task=self.task,
            source=f"memory/{self.number}",
            licence="none",
        )

    def all_samples(self):
        """Returns what `shown` gives for every sample."""
        found = []
        for index, classes in enumerate(self.classes):
            found += [(self.number, index, number) for number in classes]
            found += [(self.number, index, f"no {k}") for k in range(self.nothing)]
        return found


def shown(element, phrase_of):
    """Returns (source, picture, object's class or text of the phrase for nothing) for each valid prompt of an element.

    Args:
        element: arrays of one picture at `SIDE` pixels.
        phrase_of: the text of a row of tokens, as bytes.
    """
    red, green, blue = element["image"][0, 0].tolist()
    found = []
    for mask, tokens, valid in zip(element["mask"], element["tokens"], element["valid"], strict=True):
        if valid:
            pixels = np.flatnonzero(mask)
            assert len(pixels) <= 1
            found.append((red, green + 256 * blue, int(pixels[0]) if len(pixels) else phrase_of[tokens.tobytes()]))
    return found
