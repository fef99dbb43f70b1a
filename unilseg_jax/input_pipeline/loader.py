"""Batches for training: an index-addressable pipeline, so that the data position is the step."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import grain
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.scenes import SceneSource
from unilseg_jax.input_pipeline.sources import open_source
from unilseg_jax.input_pipeline.triplet import Triplet
from unilseg_jax.ops.geometry import RESIZES
from unilseg_jax.text.tokenizer import tokenize


@runtime_checkable
class Source(Protocol):
    """A random access collection of pictures with masks and phrases."""

    def __len__(self) -> int:
        """Returns the number of pictures."""

    def __getitem__(self, index: int) -> Triplet:
        """Returns a picture; the same one for the same index."""


def make_source(description: Mapping | ConfigDict) -> Source:
    """Opens what a config describes.

    Args:
        description: `name` and, for `scenes`, the fields of `SceneSource`; else `data_dir` and `split`.

    Raises:
        UserError: the data set is not there, or a key does not belong.
    """
    options = dict(description)
    name = options.pop("name", "")
    try:
        if name == "scenes":
            return SceneSource(**options)
        return open_source(name, **options)
    except TypeError as error:
        raise UserError(f"source {name!r} with {options}: {error}") from error


def draw_phrases(triplet: Triplet, prompts: int, rng: np.random.Generator) -> tuple[list[int], np.ndarray]:
    """Draws phrases of a picture, each kind as often as the others as long as there are any.

    Args:
        triplet: the picture.
        prompts: how many to draw.
        rng: decides.

    Returns:
        The phrases' numbers, filled up with repeats; and which of them are no repeats.
    """
    piles: dict[str, list[int]] = {}
    for number in rng.permutation(len(triplet.phrases)).tolist():
        piles.setdefault(triplet.kinds[number], []).append(number)
    order = [str(kind) for kind in rng.permutation(sorted(piles))]
    rounds = max(len(pile) for pile in piles.values())
    drawn = [piles[kind][turn] for turn in range(rounds) for kind in order if turn < len(piles[kind])]
    drawn = drawn[:prompts]
    valid = np.arange(prompts) < len(drawn)
    return [drawn[i % len(drawn)] for i in range(prompts)], valid


@dataclasses.dataclass(frozen=True, kw_only=True)
class MakeExample(grain.transforms.RandomMap):
    """Picture to network input with a fixed number of prompts.

    Attributes:
        size: side of the network's square in pixels.
        prompts: phrases per picture.
        word_len: tokens per phrase.
        resize: a key of `geometry.RESIZES`.
    """

    size: int
    prompts: int
    word_len: int
    resize: str

    def random_map(self, element: Triplet, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Returns `image` (s, s, 3) uint8, `tokens` (p, l) int32, `mask` (p, s, s) uint8, `valid` (p,) bool."""
        drawn, valid = draw_phrases(element, self.prompts, rng)
        resize = RESIZES[self.resize]
        return {
            "image": resize.to_square(element.image, self.size),
            "tokens": tokenize([element.phrases[number] for number in drawn], self.word_len, warn=False),
            "mask": np.stack([resize.mask_to_square(element.mask(number), self.size) for number in drawn]),
            "valid": valid,
        }


def training_batches(
    source: Source,
    example: MakeExample,
    *,
    batch_size: int,
    seed: int,
    start: int,
    threads: int,
    workers: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches without end, from step `start` on; the same batch for the same step.

    Every picture comes once per epoch, in another order each time; a batch may span two epochs, so none
    is lost at the end of one.

    Args:
        source: where pictures come from.
        example: makes network input of them.
        batch_size: pictures per batch.
        seed: of the order and of the draws.
        start: step of the first batch.
        threads: that read ahead, per worker.
        workers: processes; 0 reads in this one.

    Raises:
        UserError: the source is empty.
    """
    if not len(source):
        raise UserError("the training data holds no picture; check input.source")
    # The length is finite but out of reach: grain's endless datasets cannot be sliced.
    epochs = 2**40 // len(source)
    dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat(epochs).random_map(example)
    dataset = dataset.batch(batch_size, drop_remainder=True)[start:]
    iterable = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * max(threads, 1)))
    if workers:
        # grain's worker processes read absl's flags, which only absl's own main would have parsed.
        flags.FLAGS.mark_as_parsed()
        iterable = iterable.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(iterable)
