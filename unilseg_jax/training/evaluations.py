"""The evaluations of a run: its processes judge a share of the pictures each and add up what they counted."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation.evaluator import Counts, Evaluator, Example, ShuffledPhrases, summarise
from unilseg_jax.input_pipeline.loader import make_source
from unilseg_jax.input_pipeline.sources import Source
from unilseg_jax.input_pipeline.triplet import Triplet
from unilseg_jax.metrics.referring import ReferringMetric
from unilseg_jax.models.unilseg import UniLSeg
from unilseg_jax.training import distributed, sharding
from unilseg_jax.training.step import make_predict_step

_KIND_BYTES = 64
"""Longest name of a kind of phrase, in UTF-8, as processes tell it to one another."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """Every so many-th picture of a source.

    Attributes:
        source: all pictures.
        numbers: of those that are taken.
    """

    source: Source
    numbers: range

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Triplet:
        return self.source[self.numbers[index]]


def make_evaluators(evals: ConfigDict, *, size: int, word_len: int) -> dict[str, Evaluator]:
    """Opens the table `config.evals`.

    Args:
        evals: entries by name, see `config.evaluation`.
        size: side of the network's square in pixels.
        word_len: tokens per phrase.

    Returns:
        By name; with several processes the batch size of each is this process's share of the entry's.

    Raises:
        UserError: a source is not there, or a batch does not divide among the devices of all processes.
    """
    evaluators = {
        name: Evaluator(
            source=make_source(entry.source),
            size=size,
            word_len=word_len,
            batch_size=_own_pictures(name, entry.batch_size),
            prompts=entry.prompts,
            resize=entry.resize,
            threshold=entry.threshold,
            max_images=entry.max_images,
        )
        for name, entry in evals.items()
    }
    for name, entry in evals.items():
        if entry.shuffled and len(evaluators[name].source) < 2:
            raise UserError(f"evals.{name}.shuffled wants 2 pictures that swap phrases, 1 is there; turn it off")
    return evaluators


def _own_pictures(name: str, batch_size: int) -> int:
    """Returns how many pictures of an evaluation's batch are this process's."""
    processes, devices = jax.process_count(), jax.local_device_count()
    if batch_size % (processes * devices):
        among = f"{processes} processes of {devices} device(s) each" if processes > 1 else f"{devices} devices"
        raise UserError(
            f"evals.{name}.batch_size {batch_size} does not divide among {among}; "
            f"set it to a multiple of {processes * devices}"
        )
    return batch_size // processes


class Evaluations:
    """Judges a model as it is; every process calls this, and each has the same results.

    Args:
        evaluators: by name.
        model: the network.
        mesh: of the run. With several processes each predicts on its own devices, each of which then holds a whole
            copy of the weights.
        seed: of the shuffled phrases.
        keep: pictures to return for drawing.
        timeout: seconds that a process that is done waits for the others.
    """

    def __init__(
        self, evaluators: dict[str, Evaluator], model: UniLSeg, mesh: Mesh, *, seed: int, keep: int, timeout: float
    ):
        self._evaluators, self._seed, self._keep, self._timeout = evaluators, seed, keep, timeout
        self._several = jax.process_count() > 1
        self._own = Mesh(np.array(jax.local_devices())[:, None], sharding.AXES) if self._several else mesh
        self._predict = make_predict_step(model, self._own)
        self._whole = jax.jit(lambda tree: tree, out_shardings=sharding.replicated(mesh))

    def run(
        self, name: str, variables: dict, *, shuffled: bool = False, before_each: Callable[[], None] = lambda: None
    ) -> tuple[dict, list[Example]]:
        """Judges every phrase of an evaluation.

        Args:
            name: of the evaluation.
            variables: `params` and `batch_stats`.
            shuffled: ask every picture with another picture's phrases.
            before_each: called before each call of the model; what it raises ends the evaluation.

        Returns:
            See `evaluator.summarise`; and the examples to be drawn, of this process's pictures.
        """
        evaluator = self._evaluators[name]
        if shuffled:
            evaluator = evaluator.with_source(ShuffledPhrases(source=evaluator.source, seed=self._seed))
        if self._several:
            evaluator, variables = _own_share(evaluator), self._copied(variables)

        rows = sharding.split_batch(self._own)

        def predict(images, tokens):
            before_each()
            # With several processes, `jit` itself takes no NumPy array that is to be divided.
            images, tokens = jax.device_put((images, tokens), rows)
            return jax.device_get(self._predict(variables, images, tokens))

        counts, examples = evaluator.count(predict, keep=0 if shuffled else self._keep)
        if self._several:
            distributed.wait_for_all(f"the evaluation {name}", self._timeout)
            counts = gather(counts)
        return summarise(counts), examples

    def _copied(self, variables: Any) -> Any:
        """Returns arrays of all devices as arrays of this process's own, whole on each of them."""
        own = sharding.replicated(self._own)
        return jax.tree.map(lambda leaf: jax.device_put(leaf.addressable_data(0), own), self._whole(variables))


def _own_share(evaluator: Evaluator) -> Evaluator:
    """Returns the evaluation of the pictures that are this process's to judge."""
    pictures = len(evaluator.source)
    if evaluator.max_images:
        pictures = min(pictures, evaluator.max_images)
    numbers = range(jax.process_index(), pictures, jax.process_count())
    return dataclasses.replace(evaluator, source=Share(source=evaluator.source, numbers=numbers), max_images=0)


def gather(counts: Counts) -> Counts:
    """Returns what all processes counted; whole numbers, so nothing is rounded."""
    rows = [
        (*_words_of(kind), intersection, union, nothing)
        for kind, (metric, empty) in counts.items()
        for intersection, union, nothing in zip(*_pixels(metric), empty, strict=True)
    ]
    samples: dict[str, list[np.ndarray]] = {}
    for row in distributed.gather_rows(np.array(rows, np.int32).reshape(len(rows), _KIND_BYTES // 4 + 3)):
        samples.setdefault(row[:-3].tobytes().rstrip(b"\0").decode(), []).append(row[-3:])
    everything: Counts = {}
    for kind, numbers in samples.items():
        intersection, union, nothing = np.array(numbers, np.int64).T
        metric = ReferringMetric().with_rows({"intersection": intersection, "union": union})
        everything[kind] = metric, nothing.astype(bool).tolist()
    return everything


def _pixels(metric: ReferringMetric) -> tuple[list[int], list[int]]:
    """Returns the intersections and the unions."""
    rows = metric.rows()
    return rows["intersection"].tolist(), rows["union"].tolist()


def _words_of(kind: str) -> list[int]:
    """Returns a name as int32 numbers, always as many."""
    encoded = kind.encode()
    if len(encoded) > _KIND_BYTES:
        raise UserError(f"the kind of phrase {kind!r} is longer than {_KIND_BYTES} bytes; give it a shorter name")
    return np.frombuffer(encoded.ljust(_KIND_BYTES, b"\0"), np.int32).tolist()
