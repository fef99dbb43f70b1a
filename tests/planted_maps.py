"""A model whose maps are written down, sources of records in memory, and the numbers that a judge makes of both."""

import dataclasses
import io
from unittest import mock

import numpy as np
from PIL import Image

from unilseg_jax.evaluation import passport
from unilseg_jax.evaluation.journal import merged
from unilseg_jax.evaluation.passport import Facts
from unilseg_jax.evaluation.predictor import Predictor
from unilseg_jax.input_pipeline import triplet
from unilseg_jax.ops.masks import mask_to_rle

FACTS = Facts(
    benchmark="planted",
    split="val",
    images=2,
    complete=False,
    weights_sha256="0" * 64,
    input_size=32,
    dtype="float32",
    leakage={"status": "unknown"},
    more={},
)


class Planted(Predictor):
    """Gives the map that is planted for a picture's number, a way of resizing and a phrase.

    Args:
        maps: by (number, resize, phrase); for label maps by (number, resize).
    """

    def __init__(self, maps):
        self.maps, self.asked = maps, []

    def encode(self, image, resize):
        return int(image[0, 0, 0]), resize

    def probabilities(self, encoded, phrases):
        self.asked += [(*encoded, phrase) for phrase in phrases]
        return np.stack([self.maps[(*encoded, phrase)] for phrase in phrases]).astype(np.float32)

    def label_map(self, encoded, phrases):
        self.asked.append((*encoded, tuple(phrases)))
        labels, probs = self.maps[encoded]
        return labels.astype(np.int32), probs.astype(np.float32)


@dataclasses.dataclass
class Records:
    """A source of records in memory."""

    records: list

    samples = np.zeros(0, np.uint16)
    task = "referring"

    def __len__(self):
        return len(self.records)

    def record(self, index):
        return self.records[index]

    def __getitem__(self, index):
        return triplet.decode_record(self.records[index])


def record(number, shape, masks, phrases, *, video="", frame=""):
    """Returns a record whose picture is of one colour, the number.

    Args:
        number: of the picture.
        shape: height and width.
        masks: bool arrays, or pairs of id and array; 255 is the id of pixels that are not judged.
        phrases: texts with mask, id and object; what is left out is "" and -1.
        video: its name.
        frame: its name.
    """
    buffer = io.BytesIO()
    Image.fromarray(np.full((*shape, 3), number, np.uint8)).save(buffer, "PNG")
    pairs = [mask if isinstance(mask, tuple) else (-1, mask) for mask in masks]
    filled = [(*phrase, *("", -1)[len(phrase) - 2 :]) for phrase in phrases]
    return triplet.encode_record(
        image=buffer.getvalue(),
        image_id=f"picture {number}",
        height=shape[0],
        width=shape[1],
        masks=[
            triplet.RecordMask(
                counts=mask_to_rle(mask.astype(np.uint8)),
                box=(0.0, 0.0, 1.0, 1.0),
                kind="ignored" if label == 255 else "instance",
                source_id=label,
            )
            for label, mask in pairs
        ],
        phrases=[
            triplet.RecordPhrase(text=text, mask_index=mask, kind="referring", source_id=name, object_id=label)
            for text, mask, name, label in filled
        ],
        task="video" if video else "referring",
        source="planted",
        licence="none",
        video=video,
        frame=frame,
    )


def box(shape, top, bottom, left, right):
    """Returns a mask that is true in a rectangle."""
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def found_by(judge):
    """Returns the samples and rows of all units."""
    return merged([(unit, judge.judge(unit)) for unit in range(len(judge))])


def numbers_of(judge):
    """Returns what the judge's variants compute, by protocol, prediction and sentences."""
    with mock.patch.object(passport, "RESAMPLES", 2), mock.patch.object(passport, "CURVES_RESAMPLES", 2):
        entries = passport.entries(judge, found_by(judge), FACTS)
    names = ("protocol", "prediction", "sentences")
    return {tuple(entry["passport"][name] for name in names): entry for entry in entries}
