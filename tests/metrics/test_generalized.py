"""Referring metrics with phrases that name nothing, as ReLA counts them."""

import math

import numpy as np
import pytest

from unilseg_jax.metrics.referring import GeneralizedReferringMetric, ReferringMetric

PRECISIONS = ("pr_at_70", "pr_at_80", "pr_at_90")
EMPTY = np.zeros((1, 10), bool)


def first(count):
    """Returns a mask of the first pixels of ten."""
    return np.arange(10)[None] < count


def metric_of(*samples):
    """Returns the metric over (predicted pixels, target's pixels, said to be empty)."""
    metric = GeneralizedReferringMetric()
    for predicted, wanted, flag in samples:
        metric.update(first(predicted), first(wanted), flag)
    return metric


def test_by_hand():
    metric = GeneralizedReferringMetric()
    # Found 8 of 10; denied 6 with a raw mask of 4; a false alarm of 5; nothing, and said so over a raw mask of 3.
    assert metric.update(first(8), first(10), False) == 0.8
    assert metric.update(first(4), first(6), True) == 0.0
    assert metric.update(first(5), EMPTY, False) == 0.0
    assert metric.update(first(3), EMPTY, True) == 1.0
    result = metric.compute()
    assert result["giou"] == pytest.approx((0.8 + 0 + 0 + 1) / 4, abs=1e-12)
    assert result["ciou"] == pytest.approx(8 / (10 + 6 + 5 + 0), abs=1e-12)
    assert (result["n_acc"], result["t_acc"]) == (0.5, 0.5)
    assert [result[name] for name in PRECISIONS] == [0.5, 0.5, 0.0]
    assert list(result) == ["giou", "ciou", "n_acc", "t_acc", *PRECISIONS, "count"]
    assert result["count"] == 4


def test_a_denied_target_keeps_the_pixels_of_the_raw_mask_in_its_union():
    result = metric_of((9, 6, True), (5, 5, False)).compute()
    assert result["ciou"] == 5 / (9 + 5)
    assert result["giou"] == 0.5


def test_the_flag_decides_and_not_the_mask():
    # An empty mask that is not flagged misses a no-target sample, but adds no pixel.
    result = metric_of((0, 0, False), (10, 10, False)).compute()
    assert (result["n_acc"], result["t_acc"], result["giou"], result["ciou"]) == (0.0, 1.0, 0.5, 1.0)


def test_precision_is_over_samples_with_a_target():
    result = metric_of((9, 10, False), (0, 0, True), (5, 0, False)).compute()
    assert [result[name] for name in PRECISIONS] == [1.0, 1.0, 1.0]


def test_without_a_no_target_sample_both_accuracies_are_zero():
    result = metric_of((9, 10, False), (5, 10, False)).compute()
    assert (result["n_acc"], result["t_acc"]) == (0.0, 0.0)


def test_with_targets_alone_and_no_denial_it_is_the_referring_metric():
    generator = np.random.default_rng(1)
    generalized, referring = GeneralizedReferringMetric(), ReferringMetric()
    for _ in range(20):
        target = generator.random((6, 7)) < 0.5
        prediction = target ^ (generator.random((6, 7)) < 0.2)
        generalized.update(prediction, target, np.False_)
        referring.update(prediction, target)
    found, wanted = generalized.compute(), referring.compute()
    assert (found["ciou"], found["giou"]) == (wanted["oiou"], wanted["miou"])
    assert [found[name] for name in PRECISIONS] == [wanted[name] for name in PRECISIONS]


def test_without_a_target_at_all_divisions_by_zero_are_nan():
    result = metric_of((3, 0, True), (0, 0, True)).compute()
    assert (result["giou"], result["n_acc"], result["count"]) == (1.0, 1.0, 2)
    assert all(math.isnan(result[name]) for name in ("ciou", "t_acc", *PRECISIONS))


def test_no_sample_is_undefined():
    result = GeneralizedReferringMetric().compute()
    assert result.pop("count") == 0
    assert len(result) == 7
    assert all(math.isnan(value) for value in result.values())


def counted_one_by_one(samples):
    """Counts (prediction, target, flag) with plain sums and the four cases by their names."""
    share, shared, either = 0.0, 0, 0
    cases = {"TP": 0, "FN": 0, "FP": 0, "TN": 0}
    hits = dict.fromkeys(PRECISIONS, 0)
    for prediction, target, flag in samples:
        pairs = list(zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True))
        overlap, union = sum(p and t for p, t in pairs), sum(p or t for p, t in pairs)
        case = ("TP" if flag else "FN") if not any(t for _, t in pairs) else ("FP" if flag else "TN")
        cases[case] += 1
        overlap = overlap if case == "TN" else 0
        union = 0 if case == "TP" else union
        iou = 1.0 if case == "TP" else overlap / union if union else 0.0
        share, shared, either = share + iou, shared + overlap, either + union
        if case in ("FP", "TN"):
            for name in PRECISIONS:
                hits[name] += 100 * iou >= int(name[-2:])
    targets = cases["FP"] + cases["TN"]
    return {
        "giou": share / len(samples),
        "ciou": shared / either,
        "n_acc": cases["TP"] / (cases["TP"] + cases["FN"]),
        "t_acc": cases["TN"] / targets,
        **{name: hit / targets for name, hit in hits.items()},
        "count": len(samples),
    }


def test_agrees_with_counting_one_by_one():
    generator = np.random.default_rng(2)
    metric, samples = GeneralizedReferringMetric(), []
    for _ in range(60):
        target = (generator.random((5, 6)) < 0.4) & (generator.random() < 0.6)
        prediction = target ^ (generator.random((5, 6)) < generator.choice([0.0, 0.1, 0.3]))
        samples.append((prediction, target, bool(generator.random() < 0.4)))
        metric.update(*samples[-1])
    assert metric.compute() == pytest.approx(counted_one_by_one(samples), abs=1e-9)


@pytest.mark.parametrize("flag", [0, 1, None, 0.0, "no"])
def test_a_flag_that_is_no_truth_value_is_refused(flag):
    metric = GeneralizedReferringMetric()
    with pytest.raises(ValueError, match=f"predicted_empty must be a bool, not {flag!r}"):
        metric.update(EMPTY, EMPTY, flag)
    assert len(metric) == 0


def test_masks_of_other_shapes_and_types_are_refused():
    metric = GeneralizedReferringMetric()
    with pytest.raises(ValueError, match=r"\(1, 10\).*\(10, 1\)"):
        metric.update(EMPTY, EMPTY.T, False)
    with pytest.raises(ValueError, match=r"uint8 \(1, 10\).*must be bool"):
        metric.update(EMPTY, EMPTY.astype(np.uint8), False)
    assert len(metric) == 0
