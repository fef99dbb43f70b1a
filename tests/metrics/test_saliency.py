"""Salient object detection as PySODMetrics counts it, with a number where its S-measure has none."""

import math
import subprocess
import sys
import warnings

import numpy as np
import py_sod_metrics as sod
import pytest

from unilseg_jax.metrics.saliency import SaliencyMetric

NAMES = ("mae", "f_mean", "f_max", "f_adaptive", "f_weighted", "s_measure", "e_mean", "e_max", "e_adaptive")
CURVES = ("precision", "recall", "f_measure", "e_measure")


def pair(generator, shape=(14, 17), narrow=False):
    """Returns a grey prediction and a target of one box."""
    target = np.zeros(shape, np.uint8)
    top, left = generator.integers(1, 5, 2)
    target[top : top + 6, left : left + 7] = 255
    prediction = 0.6 * target + generator.uniform(0, 102, shape)
    if narrow:
        prediction = 90 + prediction / 10
    return np.round(prediction).astype(np.uint8), target


def samples():
    """Returns pairs with all quirks but that of the S-measure."""
    generator = np.random.default_rng(0)
    found = [pair(generator), pair(generator, (9, 21)), pair(generator, narrow=True)]
    prediction, target = found[0]
    grey = np.where(target > 0, 129, 128).astype(np.uint8)
    binary = np.where(prediction > 100, 255, 0).astype(np.uint8)
    empty, full = np.zeros_like(target), np.full_like(target, 255)
    targets = [(binary, target), (empty, target), (full, target), (prediction, grey)]
    return [*found, *targets, (prediction, empty), (prediction, full), (empty, empty), (full // 2, target)]


def metric_of(pairs):
    metric = SaliencyMetric()
    for prediction, target in pairs:
        metric.update(prediction, target)
    return metric


def by_the_package(pairs):
    """Returns the numbers and curves of the package's own classes over all pairs, with its older F-measure."""
    with warnings.catch_warnings(action="ignore"):
        judges = sod.MAE(), sod.Fmeasure(), sod.WeightedFmeasure(), sod.Smeasure(), sod.Emeasure()
    for prediction, target in pairs:
        for judge in judges:
            judge.step(prediction, target)
    mae, f, weighted, s, e = (judge.get_results() for judge in judges)
    f_curve, e_curve = f["fm"]["curve"], e["em"]["curve"]
    numbers = {
        "mae": mae["mae"],
        "f_mean": f_curve.mean(),
        "f_max": f_curve.max(),
        "f_adaptive": f["fm"]["adp"],
        "f_weighted": weighted["wfm"],
        "s_measure": s["sm"],
        "e_mean": e_curve.mean(),
        "e_max": e_curve.max(),
        "e_adaptive": e["em"]["adp"],
    }
    curves = {"precision": f["pr"]["p"], "recall": f["pr"]["r"], "f_measure": f_curve, "e_measure": e_curve}
    return numbers, curves


def test_agrees_with_the_package():
    pairs = samples()
    numbers, curves = by_the_package(pairs)
    metric = metric_of(pairs)
    result = metric.compute()
    assert list(result) == [*NAMES, "count"]
    assert result.pop("count") == len(pairs)
    assert result == pytest.approx(numbers, abs=1e-9)
    found = metric.curves()
    assert tuple(found) == CURVES
    for name, curve in curves.items():
        assert (found[name].shape, found[name].dtype) == ((256,), np.float64)
        np.testing.assert_allclose(found[name], curve, rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("number", range(len(samples())))
def test_no_value_of_the_package_is_changed(number):
    pairs = samples()[number : number + 1]
    result = metric_of(pairs).compute()
    numbers, _ = by_the_package(pairs)
    assert {name: result[name] for name in NAMES} == numbers


def f_and_mae(prediction, target):
    """Returns MAE, the adaptive F and the curve of F of one pair, threshold by threshold."""
    wanted = target > 128
    soft = prediction / 255
    if soft.max() > soft.min():
        soft = (soft - soft.min()) / (soft.max() - soft.min())

    def f(found):
        right = (found & wanted).sum()
        if not right:
            return 0.0
        precision, recall = right / found.sum(), right / wanted.sum()
        return 1.3 * precision * recall / (0.3 * precision + recall)

    levels = np.trunc(255 * soft)
    curve = [f(levels >= threshold) for threshold in range(255, -1, -1)]
    return np.abs(soft - wanted).mean(), f(soft >= min(2 * soft.mean(), 1)), curve


def test_agrees_with_f_threshold_by_threshold():
    pairs = samples()
    maes, adaptive, curves = zip(*(f_and_mae(*pair) for pair in pairs), strict=True)
    metric = metric_of(pairs)
    result, curve = metric.compute(), np.mean(curves, axis=0)
    assert result["mae"] == pytest.approx(np.mean(maes), abs=1e-9)
    assert result["f_adaptive"] == pytest.approx(np.mean(adaptive), abs=1e-9)
    assert result["f_mean"] == pytest.approx(curve.mean(), abs=1e-9)
    assert result["f_max"] == pytest.approx(curve.max(), abs=1e-9)
    np.testing.assert_allclose(metric.curves()["f_measure"], curve, rtol=0, atol=1e-9)


def test_the_highest_f_is_that_of_the_mean_curve():
    generator = np.random.default_rng(2)
    pairs = [pair(generator), pair(generator, narrow=True), (255 - pair(generator)[0], pair(generator)[1])]
    highest = [metric_of([one]).compute()["f_max"] for one in pairs]
    assert metric_of(pairs).compute()["f_max"] < np.mean(highest) - 1e-3


def test_a_perfect_prediction_by_hand():
    target = np.zeros((10, 10), np.uint8)
    target[:5, :4] = 255
    metric = metric_of([(target, target)])
    result = metric.compute()
    assert (result["mae"], result["f_max"], result["f_adaptive"]) == (0.0, 1.0, 1.0)
    # At threshold 0 all is salient: precision .2, recall 1.
    assert metric.curves()["precision"][[0, 254, 255]].tolist() == [1.0, 1.0, 0.2]
    assert result["f_mean"] == pytest.approx((255 + 1.3 * 0.2 / (0.3 * 0.2 + 1)) / 256, abs=1e-12)


# The S-measure where the package has none.


def s_measure(prediction, target):
    """Returns S by its paper's formulas, summing over the quadrants that there are."""
    soft = (prediction - prediction.min()) / float(prediction.max() - prediction.min())
    wanted = target > 128

    def similarity(x):
        return 2 * x.mean() / (x.mean() ** 2 + 1 + (x.std(ddof=1) if x.size > 1 else 0.0))

    share = wanted.mean()
    objects = share * similarity(soft[wanted]) + (1 - share) * similarity(1 - soft[~wanted])
    y, x = (int(np.rint(places.mean())) + 1 for places in np.nonzero(wanted))
    regions = 0.0
    for rows in (slice(0, y), slice(y, None)):
        for columns in (slice(0, x), slice(x, None)):
            p, t = soft[rows, columns], wanted[rows, columns].astype(float)
            if p.size:
                regions += p.size / soft.size * structural_similarity(p, t)
    return max(0.0, 0.5 * objects + 0.5 * regions)


def structural_similarity(p, t):
    freedom = max(p.size - 1, 1)
    covariance = ((p - p.mean()) * (t - t.mean())).sum() / freedom
    variances = (((p - p.mean()) ** 2).sum() + ((t - t.mean()) ** 2).sum()) / freedom
    above, below = 4 * p.mean() * t.mean() * covariance, (p.mean() ** 2 + t.mean() ** 2) * variances
    return above / below if above else float(below == 0)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [((11, 12), (2, 5)), ((3, 6), (9, 10)), ((11, 12), (9, 10))],
    ids=["last row", "last column", "corner"],
)
def test_s_is_a_number_where_quadrants_are_empty(rows, columns):
    target = np.zeros((12, 10), np.uint8)
    target[slice(*rows), slice(*columns)] = 255
    prediction = np.random.default_rng(3).integers(0, 200, (12, 10)).astype(np.uint8)
    prediction[target > 0] = 255
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        numbers, _ = by_the_package([(prediction, target)])
    assert math.isnan(numbers["s_measure"]), "the package has mended it: drop the guard"
    with warnings.catch_warnings(action="error"):
        result = metric_of([(prediction, target)]).compute()
    assert result["s_measure"] == pytest.approx(s_measure(prediction, target), abs=1e-9)
    assert 0 < result["s_measure"] < 1
    for name in set(NAMES) - {"s_measure"}:
        assert result[name] == numbers[name]


def test_the_formulas_of_s_are_those_of_the_package_where_it_has_a_number():
    for prediction, target in samples()[:3]:
        numbers, _ = by_the_package([(prediction, target)])
        assert numbers["s_measure"] == pytest.approx(s_measure(prediction, target), abs=1e-9)


# Refusals and costs.


def test_no_image_is_undefined():
    metric = SaliencyMetric()
    result = metric.compute()
    assert result.pop("count") == 0
    assert all(math.isnan(value) for value in result.values())
    assert all(np.isnan(curve).all() and curve.shape == (256,) for curve in metric.curves().values())


def test_other_maps_are_refused():
    prediction, target = samples()[0]
    metric = SaliencyMetric()
    with pytest.raises(ValueError, match=r"\(14, 17\).*\(17, 14\)"):
        metric.update(prediction, target.T)
    for other in (prediction / 255, (target > 0), prediction.astype(np.int64)):
        with pytest.raises(ValueError, match=rf"{other.dtype} .* must be uint8"):
            metric.update(other, target)
        with pytest.raises(ValueError, match=rf"target {other.dtype} .* must be uint8"):
            metric.update(prediction, other)
    with pytest.raises(ValueError, match=r"shape \(h, w\)"):
        metric.update(prediction[None], target[None])
    with pytest.raises(ValueError, match=r"\(1, 1\).*at least 2 pixels"):
        metric.update(prediction[:1, :1], target[:1, :1])
    with pytest.raises(ValueError, match=r"highest value is 1.*255 \* mask"):
        metric.update(prediction, target // 255)
    assert len(metric) == 0


def test_importing_the_metric_does_not_import_the_package():
    code = "import sys, unilseg_jax.metrics.saliency; print('py_sod_metrics' in sys.modules, 'jax' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]
