"""Intervals over pictures: against known answers, and the same whatever the order of the rows."""

import dataclasses
import math

import numpy as np
import pytest

from unilseg_jax.evaluation.bootstrap import intervals
from unilseg_jax.metrics.referring import ReferringMetric


@dataclasses.dataclass
class Share:
    """The mean of its rows, with what else a metric may return."""

    values: np.ndarray

    def rows(self):
        return {"values": self.values}

    def with_rows(self, rows):
        return Share(rows["values"])

    def compute(self):
        count = len(self.values)
        mean = float(self.values.mean()) if count else math.nan
        # NaN in some draws: those that hold no hit. In all draws: a number that is undefined.
        some = mean if self.values.any() else math.nan
        return {"share": mean, "some": some, "never": math.nan, "count": count, "array": self.values}


def ones(hits, count):
    return (np.arange(count) < hits).astype(np.float64)


def test_a_share_has_the_interval_of_the_normal_approximation():
    low, high = intervals(Share(ones(300, 1000)), np.arange(1000))["share"]
    half = 1.959964 * math.sqrt(0.3 * 0.7 / 1000)
    # 1000 draws estimate a 2.5 % quantile to about 0.1 of the half width.
    assert low == pytest.approx(0.3 - half, abs=0.15 * half)
    assert high == pytest.approx(0.3 + half, abs=0.15 * half)


def test_a_narrower_level_has_a_narrower_interval():
    wide = intervals(Share(ones(300, 1000)), np.arange(1000))["share"]
    low, high = intervals(Share(ones(300, 1000)), np.arange(1000), level=0.5)["share"]
    assert wide[0] < low < 0.3 < high < wide[1]
    assert high - low == pytest.approx(2 * 0.67449 * math.sqrt(0.3 * 0.7 / 1000), rel=0.15)


def test_a_single_picture_tells_of_no_spread():
    assert intervals(Share(ones(1, 4)), np.zeros(4, int)) == {}
    assert "share" in intervals(Share(ones(1, 4)), np.array([0, 0, 0, 1]))


def test_rows_of_one_picture_stand_or_fall_together():
    """Two equal rows per picture: they say no more than one."""
    once = intervals(Share(ones(150, 500)), np.arange(500))["share"]
    twice = intervals(Share(np.repeat(ones(150, 500), 2)), np.repeat(np.arange(500), 2))["share"]
    assert twice == pytest.approx(once, abs=1e-12)
    as_if_independent = intervals(Share(np.repeat(ones(150, 500), 2)), np.arange(1000))["share"]
    width, narrower = twice[1] - twice[0], as_if_independent[1] - as_if_independent[0]
    assert width / narrower == pytest.approx(math.sqrt(2), rel=0.1)


def test_pictures_of_unequal_size_are_drawn_whole():
    """Of two pictures both, the first twice, or the second twice are drawn: 2/3, 1 or 0 of the rows."""
    seen = []

    class Spy(Share):
        def with_rows(self, rows):
            seen.append(rows["values"].tolist())
            return Share(rows["values"])

    intervals(Spy(np.array([0.0, 1.0, 1.0])), np.array([7, 3, 3]), resamples=100)
    assert {tuple(sorted(values)) for values in seen} == {(0, 0), (0, 1, 1), (1, 1, 1, 1)}


def test_only_floats_that_are_numbers_have_intervals():
    found = intervals(Share(ones(1, 3)), np.arange(3))
    assert set(found) == {"share", "some"}
    assert found["share"][0] == 0
    assert found["some"][0] == pytest.approx(1 / 3), "draws without a hit are left out"


def test_nothing_without_rows():
    assert intervals(Share(np.zeros(0)), np.zeros(0, int)) == {}


def test_the_same_seed_gives_the_same_numbers_in_any_order_of_the_rows():
    generator = np.random.default_rng(1)
    values, groups = generator.normal(size=200), generator.integers(40, size=200)
    found = intervals(Share(values), groups, resamples=50)
    assert intervals(Share(values), groups, resamples=50) == found
    assert intervals(Share(values), groups, resamples=50, seed=1) != found
    order = generator.permutation(200)
    assert intervals(Share(values[order]), groups[order], resamples=50) == found


@pytest.mark.parametrize(
    ("groups", "options", "text"),
    [
        (np.arange(3), {}, r"groups int64 \(3,\) must be an integer for each row of \{'values': 4\}"),
        (np.zeros(4), {}, "float64"),
        (np.zeros((4, 1), int), {}, r"\(4, 1\)"),
        (np.arange(4), {"resamples": 0}, "resamples 0"),
        (np.arange(4), {"level": 1.0}, "level 1.0"),
    ],
)
def test_wrong_arguments_are_refused(groups, options, text):
    with pytest.raises(ValueError, match=text):
        intervals(Share(ones(1, 4)), groups, **options)


def test_intervals_of_the_metric_of_referring_expressions():
    generator = np.random.default_rng(0)
    union = generator.integers(1, 1000, 3000)
    intersection = (union * generator.random(3000)).astype(np.int64)
    metric = ReferringMetric().with_rows({"intersection": intersection, "union": union})
    found, numbers = intervals(metric, np.arange(3000) // 3, resamples=200), metric.compute()
    assert set(found) == set(numbers) - {"count"}
    assert all(low < numbers[name] < high for name, (low, high) in found.items())
    # The mean of 3,000 uniform draws has a standard error of sqrt(1/12 / 3000).
    low, high = found["miou"]
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(1 / 12 / 3000), rel=0.15)
