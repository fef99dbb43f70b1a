"""Referring expressions: a mask for each, beside the truth (paper Table 2); with or without a target (gRefCOCO).

Differs: none. Each expression of a picture is a sample.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64

from unilseg_jax.evaluation.judged import Judged
from unilseg_jax.evaluation.judges.base import Judge, UnitResult, Variant, samples_of
from unilseg_jax.evaluation.presence import FEATURES, PresenceModel, features_of
from unilseg_jax.evaluation.protocols import Protocol
from unilseg_jax.input_pipeline.triplet import UNKNOWN, Triplet
from unilseg_jax.metrics.referring import GeneralizedReferringMetric, ReferringMetric

LEAST_PIXELS = 50
"""GRES (Liu et al., CVPR 2023) takes a mask of fewer pixels for none."""


class ReferringJudge(Judge):
    """Overall IoU, mean IoU and precision of every expression."""

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every protocol with all expressions, and with the first one of each object."""
        return tuple(
            Variant(
                rows=protocol.name,
                metric=ReferringMetric,
                family="referring",
                headline="oiou",
                protocol=protocol,
                prediction="mask",
                threshold=protocol.threshold,
                sentences=sentences,
                only=only,
                kinds=not only,
            )
            for sentences, only in (("all", ""), ("first", "first"))
            for protocol in self.protocols
        )

    def judge(self, unit: int) -> UnitResult:
        """Judges the expressions of a picture; those whose truth is not published are left out."""
        triplet = self.source[unit]
        numbers = scored(triplet)
        rows, scores = {}, np.zeros(0)
        for protocol in self.protocols:
            metric = ReferringMetric()
            probs = self._probabilities(triplet, numbers, protocol)
            ious = [
                metric.update(maps > protocol.threshold, triplet.mask(number) > 0)
                for maps, number in zip(probs, numbers, strict=True)
            ]
            rows[protocol.name] = metric.rows()
            if protocol == self.protocols[0]:
                scores = _shown_scores(ious, rows[protocol.name]["union"])
        return UnitResult(_samples(triplet, numbers, scores), rows)

    def _probabilities(
        self, triplet: Triplet, numbers: Sequence[int], protocol: Protocol
    ) -> Float32[np.ndarray, "p h w"]:
        if not numbers:
            return np.zeros((0, *triplet.image.shape[:2]), np.float32)
        encoded = self.predictor.encode(triplet.image, protocol.resize)
        return self.predictor.probabilities(encoded, [triplet.phrases[number] for number in numbers])

    def draw(self, unit: int, number: int) -> Judged:
        """Judges an expression again."""
        triplet, protocol = self.source[unit], self.protocols[0]
        numbers = scored(triplet)
        prediction = self._probabilities(triplet, numbers, protocol)[number] > protocol.threshold
        target, phrase = triplet.mask(numbers[number]) > 0, numbers[number]
        return Judged(
            image_id=triplet.image_id,
            phrase=triplet.phrases[phrase],
            kind=triplet.kinds[phrase],
            image=triplet.image,
            prediction=prediction,
            target=target,
            score=ReferringMetric().update(prediction, target),
        )


class GeneralizedJudge(ReferringJudge):
    """Expressions that mean one object, several or none, as ReLA counts them.

    UniLSeg has no output that says that nothing matches, so the mask decides: none if it is empty, none if it has fewer
    than 50 pixels, or none if a calibrated score of its statistics says so.

    Args:
        presence: the calibrated score; None leaves it out.
        **more: of `Judge`.
    """

    def __init__(self, *args, presence: PresenceModel | None = None, **more):
        super().__init__(*args, **more)
        self.presence = presence

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every protocol with each rule of what counts as nothing."""
        rules = {
            "50px": f"mask, empty under {LEAST_PIXELS} px",
            "empty": "mask",
            **({"presence": "mask, presence score"} if self.presence else {}),
        }
        return tuple(
            Variant(
                rows=f"{protocol.name}/{rule}",
                metric=GeneralizedReferringMetric,
                family="generalized referring",
                headline="giou",
                protocol=protocol,
                prediction=prediction,
                threshold=protocol.threshold,
                sentences="all",
            )
            for rule, prediction in rules.items()
            for protocol in self.protocols
        )

    def judge(self, unit: int) -> UnitResult:
        """Judges the expressions of a picture by every rule."""
        triplet = self.source[unit]
        numbers = scored(triplet)
        targets = [triplet.mask(number) > 0 for number in numbers]
        rows, statistics, scores = {}, {}, np.zeros(0)
        for protocol in self.protocols:
            probs = self._probabilities(triplet, numbers, protocol)
            masks = probs > protocol.threshold
            found = np.array([features_of(maps, protocol.threshold) for maps in probs]).reshape(-1, len(FEATURES))
            statistics |= {f"{protocol.name}/{name}": found[:, at] for at, name in enumerate(FEATURES)}
            for rule, nothing in self._rules(masks, found, protocol).items():
                metric = GeneralizedReferringMetric()
                kept = _cleared(masks, nothing) if rule == "50px" else masks
                shares = [
                    metric.update(mask, target, bool(empty))
                    for mask, target, empty in zip(kept, targets, nothing, strict=True)
                ]
                rows[key := f"{protocol.name}/{rule}"] = metric.rows()
                if key == self.variants[0].rows:
                    scores = np.array(shares, np.float64)
        present = np.array([bool(target.any()) for target in targets], bool)
        return UnitResult(_samples(triplet, numbers, scores, present=present, **statistics), rows)

    def draw(self, unit: int, number: int) -> Judged:
        """Judges an expression again, by the first rule."""
        judged = super().draw(unit, number)
        nothing = np.array([np.count_nonzero(judged.prediction) < LEAST_PIXELS])
        (prediction,) = _cleared(judged.prediction[None], nothing)
        score = GeneralizedReferringMetric().update(prediction, judged.target, bool(nothing[0]))
        return dataclasses.replace(judged, prediction=prediction, score=score)

    def _rules(
        self, masks: Bool[np.ndarray, "p h w"], statistics: np.ndarray, protocol: Protocol
    ) -> dict[str, Bool[np.ndarray, " p"]]:
        """Returns by rule whether each mask is taken for nothing."""
        pixels = masks.sum((1, 2))
        rules = {"50px": pixels < LEAST_PIXELS, "empty": pixels == 0}
        if self.presence:
            rules["presence"] = (pixels == 0) | (self.presence.score(statistics, protocol.name) < 0.5)
        return rules


def _cleared(masks: Bool[np.ndarray, "p h w"], nothing: Bool[np.ndarray, " p"]) -> Bool[np.ndarray, "p h w"]:
    """Returns masks of which those that are taken for nothing are empty.

    For a rule on pixels alone: where something else says that nothing is there, ReLA counts the mask's pixels.
    """
    return masks & ~nothing[:, None, None]


def scored(triplet: Triplet) -> list[int]:
    """Returns the numbers of the phrases whose truth is known."""
    return [number for number, mask in enumerate(triplet.mask_index) if mask != UNKNOWN]


def _shown_scores(ious: Sequence[float], unions: np.ndarray) -> Float64[np.ndarray, " p"]:
    """Returns the IoUs by which samples are chosen to be shown; NaN where nothing is there and nothing was found."""
    return np.where(unions > 0, np.array(ious, np.float64), np.nan)


def _samples(triplet: Triplet, numbers: Sequence[int], scores: Sequence[float] | np.ndarray, **more: np.ndarray):
    """Returns the samples of a picture's phrases, with which of them comes first for its object."""
    masks = [triplet.mask_index[number] for number in numbers]
    first = [mask < 0 or mask not in masks[:at] for at, mask in enumerate(masks)]
    return samples_of(
        triplet.image_id,
        [triplet.phrases[number] for number in numbers],
        [triplet.kinds[number] for number in numbers],
        list(scores),
        first=np.array(first, bool),
        **more,
    )
