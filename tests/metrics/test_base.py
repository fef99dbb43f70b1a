"""What all metrics share: rows that can be saved, drawn from and merged, with the same numbers for any split."""

import io
import zlib

import numpy as np
import pytest

from unilseg_jax.metrics.referring import GeneralizedReferringMetric, ReferringMetric
from unilseg_jax.metrics.saliency import SaliencyMetric
from unilseg_jax.metrics.semantic import SemanticMetric
from unilseg_jax.metrics.video import VideoMetric

METRICS = {
    "referring": ReferringMetric,
    "generalized": GeneralizedReferringMetric,
    "video": VideoMetric,
    "semantic": lambda: SemanticMetric(5, ignore_label=7),
    "saliency": SaliencyMetric,
}
COUNT = 12


@pytest.fixture(params=METRICS)
def name(request):
    return request.param


def fill(name, numbers):
    """Returns the metric over these of the samples."""
    metric = METRICS[name]()
    for number in numbers:
        generator = np.random.default_rng((zlib.crc32(name.encode()), number))
        shape = (2, 8, 9) if name == "video" else (8, 9)
        target = generator.random(shape) < 0.5
        prediction = target ^ (generator.random(shape) < generator.choice([0.05, 0.2, 0.5]))
        if name == "referring":
            metric.update(prediction, target)
        elif name == "generalized":
            metric.update(prediction, target & (number % 3 > 0), number % 4 == 0)
        elif name == "video":
            metric.update(f"v/{10**number}", prediction, target)
        elif name == "semantic":
            metric.update(generator.integers(0, 5, shape), generator.choice([0, 1, 2, 3, 7], shape))
        else:
            metric.update(generator.integers(0, 256, shape).astype(np.uint8), np.where(target, 255, 0).astype(np.uint8))
    return metric


def numbers_of(metric):
    return {**metric.compute(), **(metric.curves() if isinstance(metric, SaliencyMetric) else {})}


def test_any_split_in_any_order_has_exactly_the_same_numbers(name):
    whole = fill(name, range(COUNT))
    assert len(whole) == COUNT
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(COUNT).tolist()
        first, second, third = (fill(name, part) for part in (order[:2], order[2:7], order[7:]))
        merged = third.merge(first).merge(METRICS[name]()).merge(second)
        assert len(merged) == COUNT
        np.testing.assert_equal(numbers_of(merged), numbers_of(whole))


def test_merging_leaves_its_parts_as_they_were(name):
    first, second = fill(name, [0, 1]), fill(name, [2])
    before = numbers_of(first)
    merged = first.merge(second)
    assert (len(first), len(second), len(merged)) == (2, 1, 3)
    np.testing.assert_equal(numbers_of(first), before)
    np.testing.assert_equal(numbers_of(merged), numbers_of(fill(name, [0, 1, 2])))


def test_rows_survive_a_file_exactly(name):
    for metric in (fill(name, range(COUNT)), METRICS[name]()):
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **metric.rows())
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            rows = dict(archive)
        restored = METRICS[name]().with_rows(rows)
        assert len(restored) == len(metric)
        assert type(restored) is type(metric)
        np.testing.assert_equal(numbers_of(restored), numbers_of(metric))
        for key, column in metric.rows().items():
            np.testing.assert_array_equal(restored.rows()[key], column, strict=True)


def test_rows_are_one_per_sample_of_plain_types(name):
    metric = fill(name, range(COUNT))
    empty = METRICS[name]().rows()
    for key, column in metric.rows().items():
        assert len(column) == COUNT
        assert column.dtype in (np.int64, np.float64, np.bool_) or column.dtype.kind == "U"
        assert (column.dtype.kind, column.shape[1:]) == (empty[key].dtype.kind, empty[key].shape[1:])
        assert column.dtype.kind != "U" or len(set(column.tolist())) == COUNT, "names must not be cut"


def test_rows_are_the_samples_in_their_order(name):
    metric, rows = METRICS[name](), []
    for number in range(4):
        metric = metric.merge(fill(name, [number]))
        rows.append(fill(name, [number]).rows())
    for key, column in metric.rows().items():
        np.testing.assert_array_equal(column, np.concatenate([row[key] for row in rows]))


def test_a_resample_counts_rows_as_often_as_they_were_drawn(name):
    metric = fill(name, range(4))
    rows = metric.rows()
    resample = metric.with_rows({key: column[[1, 1, 3]] for key, column in rows.items()})
    parts = [METRICS[name]().with_rows({key: column[[i]] for key, column in rows.items()}) for i in (1, 3)]
    assert len(resample) == 3
    once = parts[0].merge(parts[1])
    assert len(once) == 2
    if name != "semantic":
        key = {"referring": "miou", "generalized": "giou", "video": "j", "saliency": "mae"}[name]
        values = [part.compute()[key] for part in parts]
        assert resample.compute()[key] == pytest.approx((2 * values[0] + values[1]) / 3, abs=1e-12)
        assert values[0] != values[1]


def test_rows_are_copies(name):
    metric = fill(name, range(3))
    before = numbers_of(metric)
    rows = metric.rows()
    other = metric.with_rows(rows)
    for column in rows.values():
        column[:] = column[::-1].copy() if column.dtype.kind == "U" else 0
    np.testing.assert_equal(numbers_of(metric), before)
    np.testing.assert_equal(numbers_of(other), before)


def test_samples_can_be_added_after_the_numbers_were_asked_for(name):
    metric = fill(name, range(2))
    metric.compute()
    joint = metric.with_rows(metric.rows()).merge(fill(name, [2]))
    assert len(joint) == 3
    np.testing.assert_equal(numbers_of(joint), numbers_of(fill(name, range(3))))


def test_other_rows_are_refused(name):
    metric = fill(name, range(3))
    rows = metric.rows()
    key = next(iter(rows))
    with pytest.raises(ValueError, match="has the columns"):
        metric.with_rows({**rows, "more": rows[key]})
    with pytest.raises(ValueError, match="has the columns"):
        metric.with_rows({other: column for other, column in rows.items() if other != key})
    for wrong in (rows[key].astype(object), rows[key][..., None], np.array(0)):
        with pytest.raises(ValueError, match=f"column .* is {wrong.dtype}|column .* wanted"):
            metric.with_rows({**rows, key: wrong})
    if len(rows) > 1:
        with pytest.raises(ValueError, match="as many samples as every other column"):
            metric.with_rows({**rows, key: rows[key][:2]})
    if rows[key].dtype == np.int64:
        with pytest.raises(ValueError, match="is int32"):
            metric.with_rows({**rows, key: rows[key].astype(np.int32)})


def test_metrics_of_other_kinds_are_not_merged():
    with pytest.raises(ValueError, match=r"ReferringMetric.* of 0 samples and VideoMetric.* of 0 samples"):
        ReferringMetric().merge(VideoMetric())
    for other in (SemanticMetric(4, ignore_label=7), SemanticMetric(5)):
        with pytest.raises(ValueError, match="cannot be merged"):
            METRICS["semantic"]().merge(other)


def test_settings_are_kept():
    metric = fill("semantic", range(3))
    for other in (metric.with_rows(metric.rows()), metric.merge(fill("semantic", [3]))):
        assert (other.num_classes, other.ignore_label) == (5, 7)
