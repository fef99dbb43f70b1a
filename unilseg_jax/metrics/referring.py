"""Referring segmentation, one phrase per sample: as LAVT counts it, and with phrases that name nothing as ReLA does.

Paper: Table 2 (overall IoU). *Differs:* mean IoU and precision are given too; the paper has no results on
gRefCOCO, whose numbers are the second metric's.
"""

from typing import Any

import numpy as np

from unilseg_jax.metrics.base import Metric, mean, ratio
from unilseg_jax.metrics.inputs import check_masks

THRESHOLDS = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
GENERALIZED_THRESHOLDS = np.array([0.7, 0.8, 0.9])


class ReferringMetric(Metric):
    """Adds up samples, one for each (image, phrase).

    Rows: `intersection` and `union`, the pixels shared by prediction and ground truth, and those in either.
    """

    def __init__(self):
        super().__init__(intersection=np.empty(0, np.int64), union=np.empty(0, np.int64))

    def update(self, prediction: np.ndarray, target: np.ndarray) -> float:
        """Adds one sample and returns its IoU, 0 if both masks are empty.

        Args:
            prediction: bool (h, w).
            target: bool (h, w), the ground truth.

        Raises:
            ValueError: the shapes differ, or a mask is not bool or has other axes.
        """
        intersection, union = _overlap(prediction, target)
        self._append(intersection=intersection, union=union)
        return intersection / union if union else 0.0

    def compute(self) -> dict[str, float | int]:
        """Returns `oiou`, `miou`, `pr_at_50` to `pr_at_90` (0 to 1, NaN where undefined) and `count`.

        Precision counts IoU >= threshold; a sample with an empty union has IoU 0.
        """
        table = self._table()
        ious = _ious(table["intersection"], table["union"])
        return {
            "oiou": ratio(table["intersection"].sum(), table["union"].sum()),
            "miou": mean(ious),
            **_precisions(ious, THRESHOLDS),
            "count": len(ious),
        }


class GeneralizedReferringMetric(Metric):
    """Adds up samples of which some have no target, as gRefCOCO's.

    Whether a prediction is "no target" is a decision of its own and is given, not read off the mask.

    Rows: `intersection` and `union` of the masks as they are, `no_target` (the ground truth has no pixel) and
    `predicted_empty`.
    """

    def __init__(self):
        counts = {name: np.empty(0, np.int64) for name in ("intersection", "union")}
        super().__init__(**counts, **{name: np.empty(0, np.bool_) for name in ("no_target", "predicted_empty")})

    def update(self, prediction: np.ndarray, target: np.ndarray, predicted_empty: Any) -> float:
        """Adds one sample and returns what it adds to the sum of gIoU.

        Args:
            prediction: bool (h, w), as it came out of the model. It need not be empty where `predicted_empty` is
                true: its pixels stay in the union of a sample that has a target, as in the reference.
            target: bool (h, w), the ground truth; one without a pixel is a no-target sample.
            predicted_empty: whether the model says that there is no target.

        Raises:
            ValueError: the shapes differ, a mask is not bool or has other axes, or the flag is no truth value.
        """
        if not isinstance(predicted_empty, bool | np.bool_):
            raise ValueError(f"predicted_empty must be a bool, not {predicted_empty!r}; say `count < 50` or so")
        intersection, union = _overlap(prediction, target)
        no_target = not target.any()
        self._append(intersection=intersection, union=union, no_target=no_target, predicted_empty=predicted_empty)
        if no_target or predicted_empty:
            return float(no_target and predicted_empty)
        return intersection / union

    def compute(self) -> dict[str, float | int]:
        """Returns `giou`, `ciou`, `n_acc`, `t_acc`, `pr_at_70` to `pr_at_90` (0 to 1) and `count`.

        A sample without target has IoU 1 and no pixels if the model says so, else IoU 0 and the predicted pixels as
        its union. A sample with a target that the model denies has IoU 0, and the union of the raw mask and the
        target. `n_acc` is the share of no-target samples that are found, `t_acc` the share of the others that are
        not denied; both are 0 if there is no no-target sample. Precision is over the samples with a target alone.
        What is a division by zero in the reference is NaN.
        """
        table = self._table()
        none, denied = table["no_target"], table["predicted_empty"]
        intersections = np.where(none | denied, 0, table["intersection"])
        unions = np.where(none & denied, 0, table["union"])
        ious = np.where(none & denied, 1.0, _ious(intersections, unions))
        n_acc = t_acc = 0.0 if len(none) else float("nan")
        if none.any():
            n_acc, t_acc = ratio((none & denied).sum(), none.sum()), ratio((~none & ~denied).sum(), (~none).sum())
        return {
            "giou": mean(ious),
            "ciou": ratio(intersections.sum(), unions.sum()),
            "n_acc": n_acc,
            "t_acc": t_acc,
            **_precisions(ious[~none], GENERALIZED_THRESHOLDS),
            "count": len(ious),
        }


def _overlap(prediction: np.ndarray, target: np.ndarray) -> tuple[int, int]:
    """Returns the pixels of intersection and union of two masks."""
    check_masks(2, prediction=prediction, target=target)
    return int(np.count_nonzero(prediction & target)), int(np.count_nonzero(prediction | target))


def _ious(intersections: np.ndarray, unions: np.ndarray) -> np.ndarray:
    """Returns each sample's IoU, 0 where the union is empty."""
    return np.divide(intersections, unions, out=np.zeros(len(unions)), where=unions > 0)


def _precisions(ious: np.ndarray, thresholds: np.ndarray) -> dict[str, float]:
    """Returns the share of samples at or above each threshold as `pr_at_50` and so on."""
    hits = {f"pr_at_{round(threshold * 100)}": (ious >= threshold).sum() for threshold in thresholds}
    return {name: ratio(hit, len(ious)) for name, hit in hits.items()}
