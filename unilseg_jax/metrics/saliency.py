"""Salient object detection: MAE, F, weighted F, S and E, as PySODMetrics counts them.

Paper: Table 6 ("F_mean" and MAE). *Differs:* the paper does not say which F-measure it means, so all are given;
S has a number where PySODMetrics has NaN.
"""

import numpy as np

from unilseg_jax.metrics.base import Metric, mean, mean_curve
from unilseg_jax.metrics.inputs import check_shapes, describe

LEVELS = 256
_NUMBERS = ("mae", "f_adaptive", "f_weighted", "s_measure", "e_adaptive")
_CURVES = ("precision", "recall", "f_measure", "e_measure")


class SaliencyMetric(Metric):
    """Adds up samples, one for each image.

    Rows: `mae`, `f_adaptive`, `f_weighted`, `s_measure` and `e_adaptive` of each image, and over the thresholds
    (256,) its `precision`, `recall`, `f_measure` and `e_measure`.
    """

    def __init__(self):
        numbers = {name: np.empty(0, np.float64) for name in _NUMBERS}
        super().__init__(**numbers, **{name: np.empty((0, LEVELS), np.float64) for name in _CURVES})

    def update(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Adds one image.

        Args:
            prediction: uint8 (h, w), 255 times the probability, rounded. It is stretched from 0 to 255 unless it is
                constant.
            target: uint8 (h, w), the ground truth; above 128 is salient.

        Raises:
            ValueError: the shapes differ, a map is not uint8, has other axes or less than two pixels, or the target
                is 0 and 1 instead of 0 and 255.
        """
        check_shapes(2, prediction=prediction, target=target)
        if prediction.dtype != np.uint8 or target.dtype != np.uint8 or target.size < 2:
            raise ValueError(
                f"{describe(prediction=prediction, target=target)} must be uint8 from 0 to 255 with at least 2 "
                "pixels; give `np.round(255 * probs).astype(np.uint8)`"
            )
        if target.max() == 1:
            raise ValueError(
                f"{describe(prediction=prediction, target=target)}: the target's highest value is 1, and salient is "
                "what is above 128; give `255 * mask`"
            )
        self._append(**_measure(prediction, target))

    def compute(self) -> dict[str, float | int]:
        """Returns the numbers over all images, NaN without any.

        Returns:
            `mae`, `f_mean` and `f_max` (mean and maximum of the curve that is the mean of all images' curves),
            `f_adaptive` (at twice the mean of each prediction), `f_weighted`, `s_measure`, `e_mean`, `e_max` and
            `e_adaptive` (like F), and `count`.
        """
        table = self._table()
        numbers = {name: mean(table[name]) for name in _NUMBERS}
        f_curve, e_curve = (mean_curve(table[name]) for name in ("f_measure", "e_measure"))
        return {
            "mae": numbers["mae"],
            "f_mean": float(f_curve.mean()),
            "f_max": float(f_curve.max()),
            "f_adaptive": numbers["f_adaptive"],
            "f_weighted": numbers["f_weighted"],
            "s_measure": numbers["s_measure"],
            "e_mean": float(e_curve.mean()),
            "e_max": float(e_curve.max()),
            "e_adaptive": numbers["e_adaptive"],
            "count": len(table["mae"]),
        }

    def curves(self) -> dict[str, np.ndarray]:
        """Returns the means over all images at each threshold, to be plotted.

        Returns:
            `precision`, `recall`, `f_measure` and `e_measure`, float64 (256,) each; entry `i` is of the threshold
            `255 - i`, NaN without images.
        """
        table = self._table()
        return {name: mean_curve(table[name]) for name in _CURVES}


def _measure(prediction: np.ndarray, target: np.ndarray) -> dict[str, float | np.ndarray]:
    """Returns the row of one image."""
    # Takes 2 s to import, for scikit-image and scikit-learn; only those wait who evaluate salient objects.
    import py_sod_metrics as sod

    handlers = {
        "f": sod.FmeasureHandler(with_dynamic=True, with_adaptive=True, beta=0.3),
        "precision": sod.PrecisionHandler(with_dynamic=True, with_adaptive=False),
        "recall": sod.RecallHandler(with_dynamic=True, with_adaptive=False),
    }
    by_threshold, mae, weighted, e_measure = sod.FmeasureV2(handlers), sod.MAE(), sod.WeightedFmeasure(), sod.Emeasure()
    for measure in (by_threshold, mae, weighted, e_measure):
        measure.step(prediction, target)
    f_results, e_results = by_threshold.get_results(), e_measure.get_results()["em"]
    return {
        "mae": mae.get_results()["mae"],
        "f_adaptive": f_results["f"]["adaptive"],
        "f_weighted": weighted.get_results()["wfm"],
        "s_measure": _s_measure(prediction, target),
        "e_adaptive": e_results["adp"],
        "precision": f_results["precision"]["dynamic"],
        "recall": f_results["recall"]["dynamic"],
        "f_measure": f_results["f"]["dynamic"],
        "e_measure": e_results["curve"],
    }


def _s_measure(prediction: np.ndarray, target: np.ndarray) -> float:
    """Returns S, also where the centroid of the ground truth lies in the last row or column.

    S compares four quadrants about the centroid, weighted by their areas. There, two or three have no pixel and thus
    no weight, but PySODMetrics multiplies that 0 with the NaN of an empty mean.
    """
    import py_sod_metrics as sod

    class GuardedSmeasure(sod.Smeasure):
        """S to which quadrants without pixels add nothing."""

        def ssim(self, pred: np.ndarray, gt: np.ndarray) -> float:
            """Returns the similarity of a quadrant, 0 without pixels."""
            return float(super().ssim(pred, gt)) if gt.size else 0.0

    measure = GuardedSmeasure()
    measure.step(prediction, target)
    return measure.get_results()["sm"]
