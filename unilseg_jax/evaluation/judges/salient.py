"""The most salient object: a grey map, and the mask that it is cut into (paper Table 6).

Differs: what the paper calls F_mean is not known, so every F is given, of the grey map and of the mask.
"""

import numpy as np
from jaxtyping import Float32, UInt8

from unilseg_jax.evaluation.judged import Judged
from unilseg_jax.evaluation.judges.base import Judge, UnitResult, Variant, samples_of
from unilseg_jax.evaluation.protocols import Protocol
from unilseg_jax.input_pipeline.triplet import Triplet
from unilseg_jax.metrics.saliency import SaliencyMetric
from unilseg_jax.text.prompts import SALIENT

PREDICTIONS = ("soft map", "mask")


class SalientJudge(Judge):
    """MAE, F, S and E of every picture; each is asked for "the most salient object"."""

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every protocol, the grey map first."""
        return tuple(
            Variant(
                rows=f"{protocol.name}/{prediction}",
                metric=SaliencyMetric,
                family="saliency",
                headline="f_mean",
                protocol=protocol,
                prediction=prediction,
                threshold=protocol.threshold if prediction == "mask" else None,
            )
            for prediction in PREDICTIONS
            for protocol in self.protocols
        )

    def judge(self, unit: int) -> UnitResult:
        """Judges a picture; what is called its score is the IoU of the mask."""
        triplet = self.source[unit]
        target = _target(triplet)
        rows, score = {}, 0.0
        for protocol in self.protocols:
            probs = self._probabilities(triplet, protocol)
            mask = probs > protocol.threshold
            for prediction, grey in zip(PREDICTIONS, (_levels(probs), mask.astype(np.uint8) * 255), strict=True):
                metric = SaliencyMetric()
                metric.update(grey, target)
                rows[f"{protocol.name}/{prediction}"] = metric.rows()
            if protocol == self.protocols[0]:
                score = _iou(mask, target > 0)
        return UnitResult(samples_of(triplet.image_id, [SALIENT], ["salient"], [score]), rows)

    def _probabilities(self, triplet: Triplet, protocol: Protocol) -> Float32[np.ndarray, "h w"]:
        return self.predictor.probabilities(self.predictor.encode(triplet.image, protocol.resize), [SALIENT])[0]

    def draw(self, unit: int, number: int) -> Judged:
        """Judges a picture again."""
        triplet, protocol = self.source[unit], self.protocols[0]
        prediction = self._probabilities(triplet, protocol) > protocol.threshold
        target = _target(triplet) > 0
        return Judged(
            image_id=triplet.image_id,
            phrase=SALIENT,
            kind="salient",
            image=triplet.image,
            prediction=prediction,
            target=target,
            score=_iou(prediction, target),
        )


def _target(triplet: Triplet) -> UInt8[np.ndarray, "h w"]:
    """Returns everything that is salient, 0 and 255: a data set may draw several masks."""
    found = triplet.masks.any(0) if len(triplet.masks) else np.zeros(triplet.image.shape[:2], bool)
    return found.astype(np.uint8) * 255


def _levels(probs: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Returns grey levels, rounded as the peers save them."""
    return np.rint(probs * 255).astype(np.uint8)


def _iou(prediction: np.ndarray, target: np.ndarray) -> float:
    union = np.count_nonzero(prediction | target)
    return np.count_nonzero(prediction & target) / union if union else 0.0
