"""Intervals of confidence: how far a number would move with other pictures of the same kind.

Pictures are drawn with replacement, and with a picture all of its rows: the phrases of one picture stand or fall
together, so that drawing phrases would feign more knowledge than there is. Not in the paper. *Differs:* none.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Resampled(Protocol):
    """What a metric must have: one row per sample in arrays, and a metric over other rows (`metrics.base.Metric`)."""

    def rows(self) -> dict[str, np.ndarray]:
        """Returns the samples, a row each in every array."""
        ...

    def with_rows(self, rows: dict[str, np.ndarray]) -> "Resampled":
        """Returns the same metric of other samples."""
        ...

    def compute(self) -> dict[str, Any]:
        """Returns the numbers; only floats get an interval."""
        ...


def intervals(
    metric: Resampled, groups: np.ndarray, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Returns the percentile interval of every float that the metric computes.

    The same samples give the same intervals in whatever order their rows stand, as long as each picture keeps its
    number in `groups`.

    Args:
        metric: over all samples.
        groups: integers (n,), the number of the picture that each row belongs to; any numbers do.
        resamples: how often as many pictures are drawn as there are.
        seed: of the draws.
        level: share of the draws within the interval, above 0 and below 1.

    Returns:
        (low, high) by the key of `metric.compute()`. Left out: whole numbers (counts), arrays, and what is NaN in every
        draw; draws in which it is NaN do not count. Nothing with fewer than two pictures, which tell of no spread.

    Raises:
        ValueError: `groups` is not an integer per row, or an argument is out of its range.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples {resamples} and level {level}; wanted are at least 1, and between 0 and 1")
    rows, groups = metric.rows(), np.asarray(groups)
    lengths = {name: len(column) for name, column in rows.items()}
    if groups.ndim != 1 or set(lengths.values()) != {len(groups)} or groups.dtype.kind not in "iu":
        raise ValueError(f"groups {groups.dtype} {groups.shape} must be an integer for each row of {lengths}")
    if len(np.unique(groups)) < 2:
        return {}
    order = _order(rows, groups)
    rows = {name: column[order] for name, column in rows.items()}
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)

    draws: dict[str, list[float]] = {}
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = generator.integers(len(starts), size=len(starts))
        chosen = _rows_of(starts[drawn], sizes[drawn])
        found = metric.with_rows({name: column[chosen] for name, column in rows.items()}).compute()
        for name, value in found.items():
            if isinstance(value, float | np.floating) and not np.isnan(value):
                draws.setdefault(name, []).append(float(value))
    tails = ((1 - level) / 2, (1 + level) / 2)
    return {name: _interval(values, tails) for name, values in draws.items()}


def _interval(values: list[float], tails: tuple[float, float]) -> tuple[float, float]:
    low, high = np.quantile(values, tails)
    return float(low), float(high)


def _rows_of(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Returns the numbers of the rows of runs that begin at `starts` and are `sizes` long, one run after the other."""
    ends = np.cumsum(sizes)
    return np.repeat(starts - (ends - sizes), sizes) + np.arange(ends[-1])


def _order(rows: dict[str, np.ndarray], groups: np.ndarray) -> np.ndarray:
    """Returns an order of the rows by picture that does not depend on the order in which they came.

    Rows of one picture are ordered by their bytes: sums of floats depend on the order of their terms.
    """
    columns = [np.ascontiguousarray(column).reshape(len(column), -1) for _, column in sorted(rows.items())]
    contents = [b"".join(column[row].tobytes() for column in columns) for row in range(len(groups))]
    return np.array(sorted(range(len(groups)), key=lambda row: (groups[row], contents[row])), np.intp)
