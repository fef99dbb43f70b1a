"""Referring segmentation: overall IoU, mean IoU and precision, as LAVT counts them."""

import dataclasses

import numpy as np
from jaxtyping import Bool

THRESHOLDS = np.array([0.5, 0.6, 0.7, 0.8, 0.9])


@dataclasses.dataclass
class ReferringMetric:
    """Adds up samples, one for each (image, phrase).

    Attributes:
        intersections: pixels shared by prediction and ground truth, per sample.
        unions: pixels in either, per sample.
    """

    intersections: list[int] = dataclasses.field(default_factory=list)
    unions: list[int] = dataclasses.field(default_factory=list)

    def update(self, prediction: Bool[np.ndarray, "h w"], target: Bool[np.ndarray, "h2 w2"]) -> float:
        """Adds one sample and returns its IoU, 0 if both masks are empty.

        Raises:
            ValueError: the shapes differ.
        """
        if prediction.shape != target.shape:
            raise ValueError(f"prediction {prediction.shape} and target {target.shape} must have one shape")
        intersection = int(np.count_nonzero(prediction & target))
        union = int(np.count_nonzero(prediction | target))
        self.intersections.append(intersection)
        self.unions.append(union)
        return intersection / union if union else 0.0

    def merge(self, other: "ReferringMetric") -> "ReferringMetric":
        """Returns the metric over both sets of samples."""
        return ReferringMetric(self.intersections + other.intersections, self.unions + other.unions)

    def compute(self) -> dict[str, float | int]:
        """Returns `oiou`, `miou`, `pr_at_50` to `pr_at_90` (0 to 1, NaN where undefined) and `count`.

        Precision counts IoU >= threshold; a sample with an empty union has IoU 0.
        """
        intersections = np.array(self.intersections, np.int64)
        unions = np.array(self.unions, np.int64)
        count, total = len(unions), int(unions.sum())
        ious = np.divide(intersections, unions, out=np.zeros(count), where=unions > 0)
        result = {
            "oiou": float(intersections.sum() / total) if total else float("nan"),
            "miou": float(ious.mean()) if count else float("nan"),
        }
        for threshold in THRESHOLDS:
            hit = float((ious >= threshold).mean()) if count else float("nan")
            result[f"pr_at_{round(threshold * 100)}"] = hit
        return {**result, "count": count}
