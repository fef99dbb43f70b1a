"""Ref-DAVIS17: every annotator names all objects of a video, and what they name shares one label map.

Scored as ReferFormer does, by DAVIS's evaluation of the unsupervised task: predicted objects are matched with the true
ones. In none of the paper's tables. Differs: none.
"""

from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from scipy.optimize import linear_sum_assignment

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation.judges.base import Rows, UnitResult, Variant, samples_of
from unilseg_jax.evaluation.judges.video import Frame, VideoJudge
from unilseg_jax.metrics.video import VideoMetric, contour_accuracy, region_similarity

BACKGROUND = 0.1
"""ReferFormer's probability of the background, where no object is at least as probable as the threshold."""


class VideoObjectsMetric(VideoMetric):
    """J and F over the objects of each annotator's label maps, then over the annotators."""

    def compute(self) -> dict[str, float | int]:
        """Returns `j`, `f`, `j_and_f` (0 to 1), the same of each annotator, and `count` of objects."""
        rows = self.rows()
        names = np.array([one.rsplit("/", 1)[-1] for one in rows["expression_id"].tolist()], np.str_)
        numbers: dict[str, float | int] = {}
        found = []
        for annotator in np.unique(names).tolist():
            one = VideoMetric().with_rows({name: rows[name][names == annotator] for name in rows}).compute()
            found.append(one)
            numbers |= {f"{key}_{annotator}": one[key] for key in ("j", "f", "j_and_f")}
        means = {key: float(np.mean([one[key] for one in found])) if found else float("nan") for key in ("j", "f")}
        return {**means, "j_and_f": (means["j"] + means["f"]) / 2, **numbers, "count": len(names)}


class VideoObjectsJudge(VideoJudge):
    """Ref-DAVIS17: every annotator names all objects of a video; what they name is matched with the truth."""

    writes_submissions = False

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every protocol."""
        return tuple(
            Variant(
                rows=protocol.name,
                metric=VideoObjectsMetric,
                family="video objects",
                headline="j_and_f",
                protocol=protocol,
                prediction="label map",
                threshold=protocol.threshold,
                sentences="all",
            )
            for protocol in self.protocols
        )

    def judge(self, unit: int) -> UnitResult:
        """Judges a video: all objects, by each annotator's expressions."""
        video, frames = self.videos[unit][0], list(self.frames(unit))
        rows, texts, annotators = {}, [], _annotators(frames[0])
        count = max(_labels(frames[0]), default=0)
        if not count:
            raise UserError(f"the first frame of {video!r} shows no object; leave the video out")
        truths = [_label_map(frame, count) for frame in frames]
        for protocol in self.protocols:
            maps = [self._probabilities(frame.triplet, protocol) for frame in frames]
            parts: list[Rows] = []
            for annotator, chosen in annotators.items():
                predictions = [_fused(probs[chosen], protocol.threshold) for probs in maps]
                j, f = _matched(predictions, truths, len(chosen), count)
                names = [f"{video}/{label}/{annotator}" for label in range(1, count + 1)]
                parts.append(
                    {
                        "expression_id": np.array(names, np.str_),
                        "j": j,
                        "f": f,
                        "frames": np.full(count, len(frames), np.int64),
                    }
                )
            rows[protocol.name] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        first = rows[self.protocols[0].name]
        phrases = dict(zip(frames[0].ids, frames[0].triplet.phrases, strict=True))
        ids = [f"{name.rsplit('/', 1)[-1]}-{name.rsplit('/', 2)[-2]}" for name in first["expression_id"].tolist()]
        texts = [phrases.get(one, "(no expression)") for one in ids]
        samples = samples_of(video, texts, ["referring"] * len(ids), (first["j"] + first["f"]) / 2)
        return UnitResult(samples, rows)

    def _scored(self, unit: int) -> list[str]:
        frame = next(self.frames(unit))
        labels = range(1, max(_labels(frame), default=0) + 1)
        return [f"{annotator}-{label}" for annotator in _annotators(frame) for label in labels]


def _annotators(frame: Frame) -> dict[str, list[int]]:
    """Returns by annotator the numbers of the phrases, in the order of their objects."""
    found: dict[str, list[int]] = {}
    for number, expression in enumerate(frame.ids):
        found.setdefault(expression.rsplit("-", 1)[0], []).append(number)
    return {name: sorted(numbers, key=lambda number: frame.objects[number]) for name, numbers in found.items()}


def _labels(frame: Frame) -> list[int]:
    """Returns the labels of the objects that a frame shows."""
    pairs = zip(frame.objects, frame.triplet.mask_index, strict=True)
    return [label for label, mask in pairs if mask >= 0]


def _label_map(frame: Frame, count: int) -> UInt8[np.ndarray, "h w"]:
    """Returns the truth, 0 for the background; objects that the first frame does not count are background."""
    labels = np.zeros(frame.triplet.image.shape[:2], np.uint8)
    for label, mask in zip(frame.objects, frame.triplet.mask_index, strict=True):
        if mask >= 0 and label <= count:
            labels[frame.triplet.masks[mask] > 0] = label
    return labels


def _fused(probs: Float32[np.ndarray, "p h w"], threshold: float) -> Int64[np.ndarray, "h w"]:
    """Returns the most probable object of each pixel, 1 and up, 0 where none reaches the threshold."""
    candidates = np.where(probs >= threshold, probs, 0)
    return np.where(candidates.max(0) > BACKGROUND, candidates.argmax(0) + 1, 0)


def _matched(
    predictions: list[Any], truths: list[Any], found: int, count: int
) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Returns J and F of each true object, means over the frames, under the best one-to-one match."""
    scores = np.zeros((2, max(found, count), count))
    for prediction, truth in zip(predictions, truths, strict=True):
        for one in range(max(found, count)):
            mask = prediction == one + 1
            for other in range(count):
                target = truth == other + 1
                scores[:, one, other] += region_similarity(mask, target), contour_accuracy(mask, target)
    scores /= len(truths)
    rows, columns = linear_sum_assignment(-scores.mean(0))
    matched = np.empty(count, np.int64)
    matched[columns] = rows
    return scores[0, matched, np.arange(count)], scores[1, matched, np.arange(count)]
