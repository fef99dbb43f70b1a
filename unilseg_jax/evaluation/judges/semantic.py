"""Label maps: every picture is asked for every class, and each pixel goes to one (paper Tables 4, 5 and 7).

Differs: the paper does not say how its masks become label maps; see `metrics.semantic.fuse_label_map`. Of parts, a
pixel whose best part is not above the threshold is background (in no source).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int64

from unilseg_jax.evaluation.judged import Judged
from unilseg_jax.evaluation.judges.base import Judge, UnitResult, Variant, samples_of
from unilseg_jax.evaluation.protocols import Protocol
from unilseg_jax.input_pipeline.sources import RecordSource
from unilseg_jax.input_pipeline.triplet import Triplet, decode_record
from unilseg_jax.metrics.semantic import SemanticMetric
from unilseg_jax.text.prompts import all_of, class_names

IGNORED = 255


class SemanticJudge(Judge):
    """Mean IoU over the classes of a data set; pixels without a class do not count."""

    family = "semantic"

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        names = class_names(self.vocabulary)
        self._names = [name.phrase for name in names]
        self._phrases = [all_of(name) for name in self._names]
        self._index = {name.label: number for number, name in enumerate(names)}

    @property
    def classes(self) -> int:
        """How many classes every picture is asked for."""
        return len(self._names)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every protocol."""
        return tuple(
            Variant(
                rows=protocol.name,
                metric=self._metric,
                family=self.family,
                headline="miou",
                protocol=protocol,
                prediction="label map",
                threshold=self._cut(protocol),
            )
            for protocol in self.protocols
        )

    def _cut(self, protocol: Protocol) -> float | None:
        """Returns the threshold of a protocol; None, for the largest class takes the pixel however small it is."""
        return None

    def _metric(self) -> SemanticMetric:
        return SemanticMetric(self.classes, IGNORED)

    def judge(self, unit: int) -> UnitResult:
        """Judges a picture; what is called its score is the IoU of its largest class."""
        triplet, target = self._truth(unit)
        rows, shown = {}, self._largest(target)
        score = 0.0
        for protocol in self.protocols:
            prediction = self._label_map(triplet, protocol)
            metric = self._metric()
            metric.update(prediction, target)
            rows[protocol.name] = metric.rows()
            if protocol == self.protocols[0]:
                score = _iou(prediction, target, shown)
        samples = samples_of(triplet.image_id, [self._phrases[shown]], [self._names[shown]], [score])
        return UnitResult(samples, rows)

    def _truth(self, unit: int) -> tuple[Triplet, Int64[np.ndarray, "h w"]]:
        """Returns a picture and its label map of class numbers."""
        assert isinstance(self.source, RecordSource)
        record = self.source.record(unit)
        triplet = decode_record(record)
        target = np.full(triplet.image.shape[:2], self._outside, np.int64)
        for mask, label in zip(triplet.masks, record["mask_ids"], strict=True):
            target[mask > 0] = self._index.get(int(label), IGNORED)
        return triplet, target

    @property
    def _outside(self) -> int:
        """What a pixel in no mask is."""
        return IGNORED

    def _largest(self, target: Int64[np.ndarray, "h w"]) -> int:
        """Returns the class with the most pixels, 0 in a picture without one."""
        counted = target[target < self.classes]
        return int(np.bincount(counted, minlength=self.classes).argmax()) if counted.size else 0

    def _label_map(self, triplet: Triplet, protocol: Protocol) -> Int64[np.ndarray, "h w"]:
        encoded = self.predictor.encode(triplet.image, protocol.resize)
        labels, _ = self.predictor.label_map(encoded, self._phrases)
        return np.asarray(labels, np.int64)

    def draw(self, unit: int, number: int) -> Judged:
        """Judges a picture again, to be drawn as the mask of its largest class."""
        triplet, target = self._truth(unit)
        shown, prediction = self._largest(target), self._label_map(triplet, self.protocols[0])
        counts = target != IGNORED
        return Judged(
            image_id=triplet.image_id,
            phrase=self._phrases[shown],
            kind=self._names[shown],
            image=triplet.image,
            prediction=(prediction == shown) & counts,
            target=target == shown,
            score=_iou(prediction, target, shown),
        )

    def groups(self, variant: Variant, numbers: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Returns the IoU of every class."""
        return {name: {"iou": float(iou)} for name, iou in zip(self._names, numbers["iou"], strict=False)}


class PartMetric(SemanticMetric):
    """Mean IoU over parts and background, as the authors of PartImageNet count, and over the parts alone."""

    def compute(self) -> dict[str, Any]:
        """Returns the numbers of `SemanticMetric` and `miou_without_background`; the last class is the background."""
        numbers = super().compute()
        parts = numbers["iou"][:-1]
        alone = float(np.nanmean(parts)) if not np.isnan(parts).all() else float("nan")
        return {"miou": numbers["miou"], "miou_without_background": alone, **numbers}


class PartJudge(SemanticJudge):
    """Mean IoU over the parts of a data set and the background, which is what no part is above the threshold."""

    family = "parts"

    def _cut(self, protocol: Protocol) -> float:
        return protocol.threshold

    def _metric(self) -> PartMetric:
        return PartMetric(self.classes + 1, IGNORED)

    @property
    def _outside(self) -> int:
        return self.classes

    def _label_map(self, triplet: Triplet, protocol: Protocol) -> Int64[np.ndarray, "h w"]:
        encoded = self.predictor.encode(triplet.image, protocol.resize)
        labels, probs = self.predictor.label_map(encoded, self._phrases)
        return np.where(np.asarray(probs) > protocol.threshold, np.asarray(labels, np.int64), self.classes)

    def groups(self, variant: Variant, numbers: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Returns the IoU of every part and of the background."""
        return super().groups(variant, numbers) | {"background": {"iou": float(numbers["iou"][-1])}}


def _iou(prediction: np.ndarray, target: np.ndarray, label: int) -> float:
    counts = target != IGNORED
    found, wanted = (prediction == label) & counts, target == label
    union = np.count_nonzero(found | wanted)
    return np.count_nonzero(found & wanted) / union if union else 0.0
