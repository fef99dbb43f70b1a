"""Video object segmentation: region similarity J and contour accuracy F, as DAVIS 2017 counts them.

Paper: Table 3 (J&F). *Differs:* none.
"""

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from unilseg_jax.metrics.base import Metric, Rows, mean
from unilseg_jax.metrics.inputs import check_masks

TOLERANCE = 0.008
"""How far apart two contours may lie and still agree, as a share of the image's diagonal."""


def region_similarity(prediction: np.ndarray, target: np.ndarray, void: np.ndarray | None = None) -> float:
    """Returns J, the IoU of two masks; 1 if both are empty.

    Args:
        prediction: bool (h, w).
        target: bool (h, w), the ground truth.
        void: bool (h, w), pixels that do not count.

    Raises:
        ValueError: the shapes differ, or a mask is not bool or has other axes.
    """
    prediction, target = _judged(prediction, target, void)
    union = np.count_nonzero(prediction | target)
    return np.count_nonzero(prediction & target) / union if union else 1.0


def contour_accuracy(prediction: np.ndarray, target: np.ndarray, void: np.ndarray | None = None) -> float:
    """Returns F, the F-measure of two masks' contours; 1 if neither has one, 0 if only one has.

    A contour pixel is right if the other contour comes as near as 0.8 % of the diagonal, rounded up to whole pixels.
    The image's frame is no contour: a mask of the whole image has none.

    Args:
        prediction: bool (h, w).
        target: bool (h, w), the ground truth.
        void: bool (h, w), pixels that belong to neither mask.

    Raises:
        ValueError: the shapes differ, or a mask is not bool or has other axes.
    """
    prediction, target = _judged(prediction, target, void)
    radius = np.ceil(TOLERANCE * np.linalg.norm(target.shape))
    found, wanted = _contour(prediction), _contour(target)
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    box = _bounding_box(found | wanted)
    found, wanted = found[box], wanted[box]
    precision, recall = _share_near(found, wanted, radius), _share_near(wanted, found, radius)
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


class VideoMetric(Metric):
    """Adds up samples, one for each expression and its video.

    Rows: `expression_id`; `j` and `f`, the means over its frames; `frames`, their number.
    """

    def __init__(self):
        means = {name: np.empty(0, np.float64) for name in ("j", "f")}
        super().__init__(expression_id=np.empty(0, np.str_), **means, frames=np.empty(0, np.int64))
        self._known: set[str] = set()

    def update(
        self, expression_id: str, predictions: np.ndarray, targets: np.ndarray, void: np.ndarray | None = None
    ) -> tuple[float, float]:
        """Adds an expression with all its annotated frames and returns its J and F.

        Args:
            expression_id: unique among all expressions of all videos, such as `video/0`.
            predictions: bool (t, h, w), at the annotation's size.
            targets: bool (t, h, w), the ground truth.
            void: bool (t, h, w), pixels that do not count.

        Raises:
            ValueError: the expression is there already, there is no frame, the shapes differ, or masks are not bool.
        """
        if not expression_id or expression_id.endswith("\0"):
            raise ValueError(f"expression_id {expression_id!r} would not survive in an array; give it a name")
        if expression_id in self._known:
            raise ValueError(f"expression_id {expression_id!r} was given twice; name it with its video")
        voids = {} if void is None else {"void": void}
        check_masks(3, predictions=predictions, targets=targets, **voids)
        if not len(targets):
            raise ValueError(f"expression_id {expression_id!r} has no frame, shape {targets.shape}; leave it out")
        frames = list(zip(predictions, targets, [None] * len(targets) if void is None else void, strict=True))
        j = mean(np.array([region_similarity(*frame) for frame in frames]))
        f = mean(np.array([contour_accuracy(*frame) for frame in frames]))
        self._append(expression_id=expression_id, j=j, f=f, frames=len(frames))
        self._known.add(expression_id)
        return j, f

    def with_rows(self, rows: Rows) -> "VideoMetric":
        """Returns a metric over other samples, among which an expression may occur several times; see `Metric`."""
        metric = super().with_rows(rows)
        metric._known = set(rows["expression_id"].tolist())
        return metric

    def merge(self, other: "VideoMetric") -> "VideoMetric":
        """Returns the metric over both sets of samples; both stay as they were.

        Raises:
            ValueError: an expression is in both, or the metrics are of different kinds.
        """
        if twice := sorted(self._known & other._known):
            raise ValueError(f"expression_id {twice[0]!r} (of {len(twice)}) is in both metrics; count each once")
        return super().merge(other)

    def compute(self) -> dict[str, float | int]:
        """Returns `j`, `f`, `j_and_f` (0 to 1, means over expressions, NaN without any) and `count`."""
        table = self._table()
        j, f = mean(table["j"]), mean(table["f"])
        return {"j": j, "f": f, "j_and_f": (j + f) / 2, "count": len(table["j"])}


def _judged(prediction: np.ndarray, target: np.ndarray, void: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the two masks without the void pixels."""
    voids = {} if void is None else {"void": void}
    check_masks(2, prediction=prediction, target=target, **voids)
    return (prediction, target) if void is None else (prediction & ~void, target & ~void)


def _contour(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Returns the pixels that differ from their neighbour to the east, the south or the south-east.

    Beyond the last row and column the mask goes on as it ends, so the frame is no contour.
    """
    beyond = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != beyond[:-1, 1:]) | (mask != beyond[1:, :-1]) | (mask != beyond[1:, 1:])


def _bounding_box(mask: Bool[np.ndarray, "h w"]) -> tuple[slice, slice]:
    """Returns the rows and columns between the first and the last pixel of a mask that has one."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _share_near(contour: Bool[np.ndarray, "h w"], other: Bool[np.ndarray, "h w"], radius: float) -> float:
    """Returns the share of a contour's pixels that have a pixel of the other within the radius; both have some."""
    distance = ndimage.distance_transform_edt(~other)
    return np.count_nonzero(distance[contour] <= radius) / np.count_nonzero(contour)
