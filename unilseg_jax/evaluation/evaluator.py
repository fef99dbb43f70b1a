"""Referring evaluation of every phrase of a source, at the pictures' own size.

The model comes in as a function, so that this works for a run in progress, a checkpoint and anything else.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import grain
import numpy as np

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.loader import Source
from unilseg_jax.input_pipeline.triplet import Triplet
from unilseg_jax.metrics.referring import ReferringMetric
from unilseg_jax.ops.geometry import RESIZES
from unilseg_jax.text.tokenizer import tokenize

PredictFn = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Images uint8 (b, s, s, 3) and tokens int32 (b, p, l) → probabilities (b, p, s, s)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffledPhrases:
    """A source whose pictures are asked with the phrases of other pictures; masks and kinds stay.

    A model that listens must fall on it.

    Attributes:
        source: the honest source.
        seed: decides which phrase goes where.
    """

    source: Source
    seed: int = 0

    def __post_init__(self):
        """Checks that there is somebody to swap with.

        Raises:
            UserError: there are less than two pictures.
        """
        if len(self.source) < 2:
            raise UserError(f"phrases cannot be shuffled among {len(self.source)} picture(s); 2 are wanted")

    def __len__(self) -> int:
        return len(self.source)

    @functools.cached_property
    def _order(self) -> np.ndarray:
        """A cyclic permutation of the pictures, so none keeps its own phrases."""
        order = np.random.default_rng(self.seed).permutation(len(self.source))
        partner = np.empty_like(order)
        partner[order] = np.roll(order, 1)
        return partner

    def __getitem__(self, index: int) -> Triplet:
        """Returns picture `index` with phrases drawn from its partner's, each used as seldom as possible."""
        own, other = self.source[index], self.source[int(self._order[index])]
        order = np.random.default_rng((self.seed, index)).permutation(len(other.phrases))
        phrases = tuple(other.phrases[order[i % len(order)]] for i in range(len(own.phrases)))
        return dataclasses.replace(own, phrases=phrases)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One judged phrase, kept to be drawn.

    Attributes:
        triplet: the picture.
        phrase: the phrase's number.
        prediction: bool, at the picture's size.
        iou: of prediction and ground truth.
    """

    triplet: Triplet
    phrase: int
    prediction: np.ndarray
    iou: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
    """How a source is evaluated.

    Attributes:
        source: pictures with masks and phrases.
        size: side of the network's square in pixels.
        word_len: tokens per phrase.
        batch_size: pictures per call of the model.
        prompts: phrases per picture and call.
        resize: a key of `geometry.RESIZES`: "letterbox" (as released) or "stretch" (paper).
        threshold: of the probability, at the picture's own size.
        max_images: pictures to judge; 0 for all.
    """

    source: Source
    size: int
    word_len: int
    batch_size: int
    prompts: int
    resize: str
    threshold: float
    max_images: int = 0

    def with_source(self, source: Source) -> "Evaluator":
        """Returns the same evaluation of another source."""
        return dataclasses.replace(self, source=source)

    def _chunks(self) -> Iterator[tuple[Triplet, np.ndarray, list[int], np.ndarray]]:
        """Yields (picture, network input, phrases' numbers, tokens) with at most `prompts` phrases each."""
        dataset = grain.MapDataset.source(self.source)
        if self.max_images:
            dataset = dataset[: self.max_images]
        for triplet in dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)):
            image = RESIZES[self.resize].to_square(triplet.image, self.size)
            for first in range(0, len(triplet.phrases), self.prompts):
                numbers = list(range(first, min(first + self.prompts, len(triplet.phrases))))
                filled = numbers + [numbers[-1]] * (self.prompts - len(numbers))
                tokens = tokenize([triplet.phrases[number] for number in filled], self.word_len, warn=False)
                yield triplet, image, numbers, tokens

    def _judge(self, predict: PredictFn, chunks: Sequence) -> Iterator[tuple[Triplet, int, np.ndarray]]:
        """Predicts a batch of chunks and yields (picture, phrase's number, predicted mask)."""
        filled = [*chunks] + [chunks[-1]] * (self.batch_size - len(chunks))
        images = np.stack([chunk[1] for chunk in filled])
        tokens = np.stack([chunk[3] for chunk in filled])
        probs = predict(images, tokens)
        restore = RESIZES[self.resize].from_square
        for (triplet, _, numbers, _), maps in zip(chunks, probs, strict=False):
            predictions = restore(maps[: len(numbers)], triplet.image.shape[:2]) > self.threshold
            for number, prediction in zip(numbers, predictions, strict=True):
                yield triplet, number, prediction

    def run(self, predict: PredictFn, keep: int = 0) -> tuple[dict, list[Example]]:
        """Judges every phrase; see `count` and `summarise`."""
        counts, examples = self.count(predict, keep)
        return summarise(counts), examples

    def count(self, predict: PredictFn, keep: int = 0) -> tuple["Counts", list[Example]]:
        """Judges every phrase.

        Args:
            predict: the model.
            keep: how many pictures' phrases to return for drawing.

        Returns:
            What was counted, and the examples of the first `keep` pictures.
        """
        counts: Counts = {}
        examples: list[Example] = []
        kept: set[str] = set()
        batch: list = []

        def flush():
            for triplet, number, prediction in self._judge(predict, batch):
                metric, empty = counts.setdefault(triplet.kinds[number], (ReferringMetric(), []))
                iou = metric.update(prediction, triplet.mask(number) > 0)
                empty.append(not prediction.any())
                if len(kept) < keep or triplet.image_id in kept:
                    kept.add(triplet.image_id)
                    examples.append(Example(triplet=triplet, phrase=number, prediction=prediction, iou=iou))
            batch.clear()

        for chunk in self._chunks():
            batch.append(chunk)
            if len(batch) == self.batch_size:
                flush()
        if batch:
            flush()
        return counts, examples


Counts = dict[str, tuple[ReferringMetric, list[bool]]]
"""For each kind of phrase its samples, and for each of them whether nothing was found. Those of several processes are
added up by appending."""


def summarise(counts: Counts) -> dict:
    """Returns `{"all": …, "kinds": {kind: …}}` with the numbers of `ReferringMetric.compute` and `nothing_found`.

    `nothing_found` is the share of empty predictions.
    """

    def numbers(metric: ReferringMetric, empty: list[bool]) -> dict:
        return {**metric.compute(), "nothing_found": float(np.mean(empty))}

    everything = functools.reduce(ReferringMetric.merge, (metric for metric, _ in counts.values()), ReferringMetric())
    return {
        "all": numbers(everything, [flag for _, empty in counts.values() for flag in empty]),
        "kinds": {kind: numbers(*count) for kind, count in sorted(counts.items())},
    }
