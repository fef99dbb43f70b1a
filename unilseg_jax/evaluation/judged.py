"""One judged phrase, kept to be looked at, and the choice of those that are worth a look."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

HALF = 127  # of 255; a soft map is cut above it, at a probability of one half


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """What a model made of one phrase, with the truth.

    Attributes:
        image_id: names the picture within its benchmark.
        phrase: as it was asked.
        kind: what the phrase speaks of, or the name of the class; "" if nothing is known.
        image: RGB, 0 to 255.
        prediction: a mask, or a soft map (0 to 255 for probabilities 0 to 1), at the picture's size.
        target: the true mask, at the picture's size.
        score: IoU, or whatever the task gives a single sample; NaN where it is not defined.

    Raises:
        ValueError: the three differ in size.
    """

    image_id: str
    phrase: str
    kind: str
    image: UInt8[np.ndarray, "h w 3"]
    prediction: Bool[np.ndarray, "h2 w2"] | UInt8[np.ndarray, "h2 w2"]
    target: Bool[np.ndarray, "h3 w3"]
    score: float

    def __post_init__(self):
        sizes = [array.shape[:2] for array in (self.image, self.prediction, self.target)]
        if len(set(sizes)) > 1:
            raise ValueError(f"picture, prediction and target have the sizes {sizes}, one size is wanted")

    @property
    def is_soft(self) -> bool:
        """Whether the prediction is a soft map."""
        return self.prediction.dtype != np.bool_

    @property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """The prediction as a mask; a soft map is cut at one half."""
        return self.prediction > HALF if self.is_soft else self.prediction


def choose(scores: Iterable[tuple[float, Any]], k: int) -> dict[str, list]:
    """Chooses the samples with the highest, the middle and the lowest scores.

    Needs no pictures: an evaluation keeps scores and keys, and reads the chosen samples again at its end. What is
    chosen does not depend on the order, so lists of several processes may be put together in any way. Samples of one
    score are ordered by their keys; those without a score (NaN) are left out.

    Args:
        scores: a score and a key per sample; keys can be compared with each other, and none occurs twice.
        k: samples per group, at least 1. Of less than 3 k samples each group gets its third; none is in two groups.

    Returns:
        Keys: "best" from the highest score downwards, "median" likewise, "worst" from the lowest upwards.

    Raises:
        ValueError: `k` is below 1, or a key occurs twice.
    """
    if k < 1:
        raise ValueError(f"k is {k}, at least 1 is wanted")
    scores = list(scores)
    if len({key for _, key in scores}) < len(scores):
        raise ValueError("a key occurs twice among the scores, each sample is wanted once")
    rising = [key for _, key in sorted(pair for pair in scores if not math.isnan(pair[0]))]
    share = min(k, max(1, round(len(rising) / 3)))
    falling = rising[::-1]
    best, rest = falling[:share], falling[share:]
    kept = max(0, len(rest) - share)
    middle, worst = rest[:kept], rest[kept:][::-1]
    first = max(0, len(middle) - k) // 2
    return {"best": best, "median": middle[first : first + k], "worst": worst}
