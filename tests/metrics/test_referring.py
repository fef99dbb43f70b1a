"""Referring metrics as LAVT counts them: overall IoU, mean IoU, precision."""

import math

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from unilseg_jax.metrics.referring import ReferringMetric


def masks(intersection, prediction_only, target_only, rest=3):
    """Returns a prediction and a target in one row with these numbers of pixels."""
    groups = (intersection, prediction_only, target_only, rest)
    prediction = np.repeat([True, True, False, False], groups)
    target = np.repeat([True, False, True, False], groups)
    return prediction[None], target[None]


def metric_of(*samples):
    metric = ReferringMetric()
    for sample in samples:
        metric.update(*masks(*sample))
    return metric


PRECISIONS = ("pr_at_50", "pr_at_60", "pr_at_70", "pr_at_80", "pr_at_90")


def test_by_hand():
    metric = ReferringMetric()
    # 3 of 4 and 1 of 10.
    assert metric.update(*masks(3, 1, 0)) == 0.75
    assert metric.update(*masks(1, 4, 5)) == 0.1
    result = metric.compute()
    assert result["oiou"] == pytest.approx(4 / 14, abs=1e-12)
    assert result["miou"] == pytest.approx((0.75 + 0.1) / 2, abs=1e-12)
    assert [result[name] for name in PRECISIONS] == [0.5, 0.5, 0.5, 0.0, 0.0]
    assert result["count"] == 2
    assert list(result) == ["oiou", "miou", *PRECISIONS, "count"]


@pytest.mark.parametrize("tenths", [5, 6, 7, 8, 9])
@pytest.mark.parametrize("times", [1, 3, 1000])
def test_an_iou_of_exactly_the_threshold_counts(tenths, times):
    result = metric_of((tenths * times, 0, (10 - tenths) * times)).compute()
    assert [result[name] for name in PRECISIONS] == [float(tenths >= t) for t in (5, 6, 7, 8, 9)]


def test_one_pixel_below_the_threshold_does_not_count():
    assert metric_of((699_999, 0, 300_001)).compute()["pr_at_70"] == 0.0


def test_empty_on_both_sides_is_an_iou_of_zero_that_counts():
    metric = ReferringMetric()
    empty = np.zeros((4, 5), bool)
    assert metric.update(empty, empty) == 0.0
    assert metric.update(~empty, ~empty) == 1.0
    result = metric.compute()
    assert (result["oiou"], result["miou"], result["pr_at_50"], result["count"]) == (1.0, 0.5, 0.5, 2)


def test_only_empty_pairs_leave_the_overall_iou_undefined():
    result = metric_of((0, 0, 0)).compute()
    assert math.isnan(result["oiou"])
    assert (result["miou"], result["pr_at_50"], result["count"]) == (0.0, 0.0, 1)


@pytest.mark.parametrize("sample", [(0, 0, 6), (0, 6, 0)], ids=["empty prediction", "empty target"])
def test_one_empty_side_adds_its_pixels_to_the_union(sample):
    result = metric_of((6, 0, 0), sample).compute()
    assert (result["oiou"], result["miou"]) == (0.5, 0.5)


def test_no_sample_is_undefined():
    result = ReferringMetric().compute()
    assert result.pop("count") == 0
    assert len(result) == 7
    assert all(math.isnan(value) for value in result.values())


def test_sums_do_not_overflow():
    # 3 × 2e9 exceeds int32; 2**24 + 1 is no float32.
    rows = {"intersection": np.full(3, 2_000_000_000), "union": np.full(3, 2_000_000_001)}
    metric = ReferringMetric().with_rows(rows)
    assert metric.compute()["oiou"] == 6_000_000_000 / 6_000_000_003
    assert metric.compute()["oiou"] < 1.0


def test_merging_equals_counting_all_at_once():
    samples = [(3, 1, 0), (1, 4, 5), (0, 0, 0), (7, 0, 3), (2, 2, 2)]
    joint = metric_of(*samples)
    first, second = metric_of(*samples[:2]), metric_of(*samples[2:])
    assert first.merge(second).compute() == joint.compute()
    assert second.merge(first).compute() == joint.compute()
    assert first.merge(ReferringMetric()).compute() == first.compute()
    assert first.compute()["count"] == 2, "merging must leave its parts as they were"


def test_metrics_share_no_samples():
    metric_of((1, 0, 0))
    assert ReferringMetric().compute()["count"] == 0


def test_masks_of_different_shapes_are_refused():
    # Of equal pixel count, and of shapes that NumPy would broadcast.
    for shape in ((5, 4), (1, 5)):
        metric = ReferringMetric()
        with pytest.raises(ValueError, match=rf"\(4, 5\).*\({shape[0]}, {shape[1]}\)"):
            metric.update(np.ones((4, 5), bool), np.ones(shape, bool))
        assert metric.compute()["count"] == 0


def test_masks_of_other_types_are_refused():
    metric = ReferringMetric()
    mask = np.ones((4, 5), bool)
    for other in (mask.astype(np.uint8), mask.astype(np.float32)):
        for pair in ((mask, other), (other, mask), (other, other)):
            with pytest.raises(ValueError, match=rf"prediction {pair[0].dtype} .*target {pair[1].dtype} .* be bool;"):
                metric.update(*pair)
    assert len(metric) == 0


@pytest.mark.parametrize("shape", [(20,), (1, 4, 5), ()])
def test_masks_with_other_axes_are_refused(shape):
    mask = np.ones(shape, bool)
    with pytest.raises(ValueError, match=r"target bool .* must have the shape \(h, w\)"):
        ReferringMetric().update(mask, mask)


def test_agrees_with_pycocotools():
    generator = np.random.default_rng(0)
    metric, ious = ReferringMetric(), []
    for density in (0.0, 0.1, 0.5, 0.9, 1.0):
        for shape in ((7, 9), (16, 5)):
            target = generator.random(shape) < density
            prediction = target ^ (generator.random(shape) < 0.2)
            encoded = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in (prediction, target)]
            ious.append(coco_mask.iou(encoded[:1], encoded[1:], [0])[0, 0])
            assert metric.update(prediction, target) == pytest.approx(ious[-1], abs=1e-9)
    result = metric.compute()
    assert result["miou"] == pytest.approx(np.mean(ious), abs=1e-9)
    assert result["pr_at_70"] == np.mean([iou >= 0.7 for iou in ious])
    assert 0.2 < result["pr_at_70"] < 0.8, "the thresholds must matter"
