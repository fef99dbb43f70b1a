"""What all metrics share: a table with one row per sample, from which every number is computed.

So a result does not depend on how the samples were split among batches, processes or runs, finished samples can be
saved and loaded, and a bootstrap draws rows. Not in the paper. *Differs:* none.
"""

import abc
import math
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float64

Rows = dict[str, np.ndarray]
"""Columns by name; the first axis of each counts samples. Only int64, float64, bool and str: `np.savez` keeps them."""

# Not `typing.Self`, which the shape checks under pytest cannot read in methods.
MetricT = TypeVar("MetricT", bound="Metric")


class Metric(abc.ABC):
    """Collects samples, one row each.

    Args:
        columns: the table's columns without a row; they fix the names, the kinds and the shapes of a row's values.
    """

    def __init__(self, **columns: np.ndarray):
        self._parts: list[Rows] = [columns]

    @abc.abstractmethod
    def compute(self) -> dict[str, Any]:
        """Returns the numbers over all samples, NaN where one is undefined."""

    def settings(self) -> dict[str, Any]:
        """Returns the arguments with which this metric was made; metrics that differ in them cannot be merged."""
        return {}

    def rows(self) -> Rows:
        """Returns a copy of the samples: arrays of int64, float64, bool or str, one row per sample."""
        return {name: column.copy() for name, column in self._table().items()}

    def with_rows(self: MetricT, rows: Rows) -> MetricT:
        """Returns a metric of this kind and these settings over other samples.

        Args:
            rows: columns like those of `rows()`, of any number of samples. A row may occur several times.

        Raises:
            ValueError: the names, a type or a shape differ from those of `rows()`.
        """
        metric = type(self)(**self.settings())
        wanted = metric._parts[0]
        if rows.keys() != wanted.keys():
            raise ValueError(f"{type(self).__name__} has the columns {sorted(wanted)}, not {sorted(rows)}")
        lengths = {len(column) if column.ndim else None for column in rows.values()}
        for name, column in rows.items():
            kind = wanted[name].dtype
            fits = column.dtype.kind == "U" if kind.kind == "U" else column.dtype == kind
            if not fits or column.shape[1:] != wanted[name].shape[1:] or None in lengths or len(lengths) > 1:
                shape = ("samples", *wanted[name].shape[1:])
                raise ValueError(
                    f"column {name} is {column.dtype} {column.shape}; {'str' if kind.kind == 'U' else kind} {shape} is "
                    "wanted, with as many samples as every other column"
                )
        metric._parts = [{name: rows[name].copy() for name in wanted}]
        return metric

    def merge(self: MetricT, other: MetricT) -> MetricT:
        """Returns the metric over both sets of samples; both stay as they were.

        Raises:
            ValueError: the metrics are of different kinds or settings.
        """
        if type(self) is not type(other) or self.settings() != other.settings():
            raise ValueError(f"{self!r} and {other!r} cannot be merged; both must be made alike")
        own, others = self._table(), other._table()
        return self.with_rows({name: np.concatenate([own[name], others[name]]) for name in own})

    def __len__(self) -> int:
        return sum(len(next(iter(part.values()))) for part in self._parts)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({settings}) of {len(self)} samples"

    def _append(self, **values: Any) -> None:
        """Adds one row."""
        columns = self._parts[0]
        # A column of strings grows with its longest; NumPy would cut the new one to the old width.
        kinds = {name: None if column.dtype.kind == "U" else column.dtype for name, column in columns.items()}
        self._parts.append({name: np.asarray(values[name], kinds[name])[None] for name in columns})

    def _table(self) -> Rows:
        """Returns the samples themselves, not to be written to."""
        if len(self._parts) > 1:
            self._parts = [{name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}]
        return self._parts[0]


def mean(values: Float64[np.ndarray, " n"]) -> float:
    """Returns the mean, NaN of nothing.

    The sum is rounded once, at its end, so the order of the samples cannot be seen in the result.
    """
    return math.fsum(values.tolist()) / len(values) if len(values) else math.nan


def mean_curve(values: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, " k"]:
    """Returns the mean over the first axis, each as `mean` does."""
    return np.array([mean(column) for column in values.T])


def ratio(numerator: int | np.integer, denominator: int | np.integer) -> float:
    """Returns the quotient of two counts, NaN for 0/0."""
    return int(numerator) / int(denominator) if denominator else math.nan
