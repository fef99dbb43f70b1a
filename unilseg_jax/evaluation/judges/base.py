"""What judges of all tasks share: units of work, samples with their rows, and the numbers that are made of them.

A unit is judged on its own: what comes out does not depend on other units, nor on which process judges it. So the
numbers are the same for any number of processes and after any interruption.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from unilseg_jax.evaluation.judged import Judged
from unilseg_jax.evaluation.predictor import Predictor
from unilseg_jax.evaluation.protocols import Protocol
from unilseg_jax.input_pipeline.sources import Source

Rows = dict[str, np.ndarray]
"""Columns by name, all of one length: a row per sample."""


class UnitResult(NamedTuple):
    """What was found in a unit, or in many.

    Attributes:
        samples: what was judged: `image` (name of the picture or video), `phrase`, `kind`, `number` (of the sample in
            its unit), `score` (0 to 1, NaN for none: to find good and bad ones); a judge may add columns.
        rows: of the metrics, by the name of the table; each has a row per sample.
    """

    samples: Rows
    rows: dict[str, Rows]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A way of counting, which makes one entry of the results.

    Attributes:
        rows: the table that it is computed from.
        metric: makes the empty metric.
        family: name of the metric as it stands in the passport.
        headline: the number that papers print.
        protocol: how the masks are made.
        prediction: what is judged, in words: "mask", "soft map", "label map".
        threshold: of the cut; None where nothing is cut.
        sentences: "all" or "first" of each object; None where there is one phrase only.
        only: column of the samples that says which count; "" for all.
        kinds: whether numbers are also given for each kind of phrase.
    """

    rows: str
    metric: Callable[[], Any]
    family: str
    headline: str
    protocol: Protocol
    prediction: str
    threshold: float | None
    sentences: str | None = None
    only: str = ""
    kinds: bool = False

    def described(self) -> dict[str, Any]:
        """Returns all of it in words, the same in every process."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"metric": repr(self.metric()), "protocol": dataclasses.asdict(self.protocol)}


class Judge(abc.ABC):
    """Judges a model on a split of a benchmark.

    Args:
        source: the split.
        predictor: the model.
        protocols: how masks are made.
        vocabulary: table of class names, where the task has one.
    """

    def __init__(self, source: Source, predictor: Predictor, protocols: Sequence[Protocol], vocabulary: str = ""):
        self.source, self.predictor, self.protocols = source, predictor, tuple(protocols)
        self.vocabulary = vocabulary

    def __len__(self) -> int:
        """Returns the number of units."""
        return len(self.source)

    @property
    def classes(self) -> int | None:
        """How many classes every picture is asked for; None where it has phrases of its own."""
        return None

    @property
    @abc.abstractmethod
    def variants(self) -> tuple[Variant, ...]:
        """What is counted; the first decides which predictions are called good and bad."""

    @abc.abstractmethod
    def judge(self, unit: int) -> UnitResult:
        """Judges a unit."""

    @abc.abstractmethod
    def draw(self, unit: int, number: int) -> Judged:
        """Judges a sample again, to be drawn.

        Args:
            unit: that it is in.
            number: of the sample in the unit.
        """

    def groups(self, variant: Variant, numbers: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Returns further numbers by class, of what a metric computed; none unless a task has some."""
        return {}


def samples_of(
    image: str,
    phrases: Sequence[str],
    kinds: Sequence[str],
    scores: Sequence[float] | np.ndarray,
    **more: Sequence | np.ndarray,
) -> Rows:
    """Returns the samples of a unit.

    Args:
        image: name of its picture or video.
        phrases: one per sample.
        kinds: one per sample.
        scores: one per sample, 0 to 1.
        **more: further columns.
    """
    count = len(phrases)
    return {
        "image": np.array([image] * count, np.str_),
        "phrase": np.array(phrases, np.str_),
        "kind": np.array(kinds, np.str_),
        "number": np.arange(count, dtype=np.int64),
        "score": np.array(scores, np.float64),
        **{name: np.array(column) for name, column in more.items()},
    }
