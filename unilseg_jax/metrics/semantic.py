"""Semantic segmentation: mean IoU over classes from the counts of a whole data set, and the label map from logits.

Paper: Tables 4, 5 and 7 (mIoU). *Differs:* the paper does not say how the masks of single classes become one label
map; we do as the methods that it compares with, see `fuse_label_map`.
"""

from typing import Any

import cv2
import numpy as np

from unilseg_jax.metrics.base import Metric, mean, ratio
from unilseg_jax.metrics.inputs import check_shapes, describe


class SemanticMetric(Metric):
    """Adds up samples, one for each image.

    Rows: `pixels` (3, num_classes), the pixels per class of intersection, ground truth and prediction.

    Args:
        num_classes: labels are 0 to `num_classes - 1`.
        ignore_label: of pixels of the ground truth that do not count; no class.

    Raises:
        ValueError: there is no class, or the ignored label is one.
    """

    def __init__(self, num_classes: int, ignore_label: int = 255):
        if num_classes < 1 or 0 <= ignore_label < num_classes:
            raise ValueError(
                f"num_classes {num_classes} and ignore_label {ignore_label}: at least one class is wanted, and an "
                "ignore_label that is none of them"
            )
        super().__init__(pixels=np.empty((0, 3, num_classes), np.int64))
        self.num_classes, self.ignore_label = num_classes, ignore_label

    def settings(self) -> dict[str, Any]:
        """Returns the classes and the ignored label."""
        return {"num_classes": self.num_classes, "ignore_label": self.ignore_label}

    def update(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Adds one image.

        Args:
            prediction: integers (h, w), classes. Where the target is ignored it is not looked at.
            target: integers (h, w), classes or `ignore_label`.

        Raises:
            ValueError: the shapes differ, a map is not of integers or has other axes, or a label is out of range.
        """
        check_shapes(2, prediction=prediction, target=target)
        if not all(np.issubdtype(array.dtype, np.integer) for array in (prediction, target)):
            raise ValueError(f"{describe(prediction=prediction, target=target)} must be integers, a class per pixel")
        kept = target != self.ignore_label
        labels = {"prediction": prediction[kept], "target": target[kept]}
        for name, values in labels.items():
            if values.size and (values.min() < 0 or values.max() >= self.num_classes):
                raise ValueError(
                    f"{describe(prediction=prediction, target=target)}: {name} has labels from {values.min()} to "
                    f"{values.max()} where the target is not {self.ignore_label}; 0 to {self.num_classes - 1} are "
                    "wanted, map the others"
                )
        predicted, wanted = (values.astype(np.int64) for values in labels.values())
        counted = (predicted[predicted == wanted], wanted, predicted)
        self._append(pixels=np.stack([np.bincount(values, minlength=self.num_classes) for values in counted]))

    def compute(self) -> dict[str, Any]:
        """Returns the numbers over all images, 0 to 1 and NaN where undefined.

        Returns:
            `miou`, the mean IoU of the classes that occur in prediction or ground truth; `macc`, the mean share of
            pixels found of the classes that occur in the ground truth; `aacc`, the share of all pixels that are
            right; `iou`, float64 (num_classes,), NaN for a class that does not occur; `counted_classes`, the number
            of classes in `miou`. A class that was only predicted has IoU 0 and counts.
        """
        intersection, target, prediction = self._table()["pixels"].sum(axis=0)
        union = target + prediction - intersection
        iou = np.divide(intersection, union, out=np.full(self.num_classes, np.nan), where=union > 0)
        occurs = target > 0
        return {
            "miou": mean(iou[union > 0]),
            "macc": mean(intersection[occurs] / target[occurs]),
            "aacc": ratio(intersection.sum(), target.sum()),
            "iou": iou,
            "counted_classes": int(np.count_nonzero(union)),
        }


def fuse_label_map(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the class with the highest logit of every pixel, after the logits were brought to the size.

    Bilinear with half-pixel centres (`align_corners=False`) and without anti-aliasing: OpenCV's `INTER_LINEAR`, one
    class after the other, so no array of all classes at full size is made. There is no background and no threshold.

    Args:
        logits: floats (n, h, w), one map per class; not probabilities, which would give other labels.
        size: rows and columns of the label map.

    Returns:
        int64 (rows, columns), 0 to n - 1; the lowest of equal ones.

    Raises:
        ValueError: logits are no finite floats, have other axes or none to choose from, or the size is none.
    """
    if logits.ndim != 3 or not logits.size or min(size) < 1:
        raise ValueError(f"{describe(logits=logits)} and size {size} must be (n, h, w) and (rows, columns), all >= 1")
    # `kind` would refuse bfloat16, whose is "V".
    if logits.dtype.kind in "biuc" or not np.isfinite(maps := logits.astype(np.float32, order="C")).all():
        raise ValueError(f"{describe(logits=logits)} must be finite floats; labels or masks cannot be interpolated")
    labels = np.zeros(size, np.int64)
    highest = np.full(size, -np.inf, np.float32)
    for number, logit in enumerate(maps):
        resized = cv2.resize(logit, size[::-1], interpolation=cv2.INTER_LINEAR)
        higher = resized > highest
        labels[higher] = number
        np.copyto(highest, resized, where=higher)
    return labels
