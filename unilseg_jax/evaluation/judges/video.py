"""Expressions about objects in videos: J, F and their mean (paper Table 3), frame by frame in order.

Differs: none. Ref-DAVIS17 is in none of the paper's tables; it is scored as ReferFormer does: the objects of an annotator
share a label map, which DAVIS's evaluation of the unsupervised task matches with the truth.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from scipy.optimize import linear_sum_assignment

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation.judged import Judged
from unilseg_jax.evaluation.judges.base import Judge, Rows, UnitResult, Variant, samples_of
from unilseg_jax.evaluation.protocols import Protocol
from unilseg_jax.evaluation.submission import Submission
from unilseg_jax.input_pipeline.sources import RecordSource
from unilseg_jax.input_pipeline.triplet import UNKNOWN, Triplet, decode_record
from unilseg_jax.input_pipeline.visits import text_of
from unilseg_jax.metrics.video import VideoMetric, contour_accuracy, region_similarity

BACKGROUND = 0.1
"""ReferFormer's probability of the background, where no object is at least as probable as the threshold."""


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
        name: of the frame.
        triplet: its picture, masks and phrases.
        ids: of the expressions, one per phrase.
        objects: label of the object of each phrase, -1 if it is not known.
    """

    name: str
    triplet: Triplet
    ids: tuple[str, ...]
    objects: tuple[int, ...]


class VideoJudge(Judge):
    """J and F of every expression, over all frames whose truth is published.

    Args:
        submissions: by protocol's name, where all predicted masks go; None keeps none.
        **more: of `Judge`.
    """

    def __init__(self, *args, submissions: Mapping[str, Submission] | None = None, **more):
        super().__init__(*args, **more)
        self.submissions = submissions or {}

    def __len__(self) -> int:
        return len(self.videos)

    @functools.cached_property
    def videos(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names of the videos, each with the numbers of its records in the order of its frames."""
        assert isinstance(self.source, RecordSource)
        found: dict[str, list[tuple[str, int]]] = {}
        for number in range(len(self.source)):
            record = self.source.record(number)
            found.setdefault(text_of(record["video"]), []).append((text_of(record["frame"]), number))
        return tuple((video, tuple(number for _, number in sorted(frames))) for video, frames in found.items())

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every protocol."""
        return tuple(
            Variant(
                rows=protocol.name,
                metric=VideoMetric,
                family="video",
                headline="j_and_f",
                protocol=protocol,
                prediction="mask",
                threshold=protocol.threshold,
                sentences="all",
            )
            for protocol in self.protocols
        )

    def frames(self, unit: int) -> Iterator[Frame]:
        """Yields the frames of a video in order."""
        assert isinstance(self.source, RecordSource)
        for number in self.videos[unit][1]:
            record = self.source.record(number)
            yield Frame(
                text_of(record["frame"]),
                decode_record(record),
                tuple(text_of(one) for one in record["phrase_ids"]),
                tuple(int(one) for one in record["phrase_objects"]),
            )

    def judge(self, unit: int) -> UnitResult:
        """Judges the expressions of a video."""
        video = self.videos[unit][0]
        phrases: dict[str, tuple[str, str]] = {}
        found: dict[str, dict[str, list[tuple[float, float]]]] = {one.name: {} for one in self.protocols}
        for frame in self.frames(unit):
            phrases |= dict(zip(frame.ids, zip(frame.triplet.phrases, frame.triplet.kinds, strict=True), strict=True))
            for protocol in self.protocols:
                masks = self._probabilities(frame.triplet, protocol) > protocol.threshold
                self._hand_in(protocol, video, frame, masks)
                for number, (expression, mask) in enumerate(zip(frame.ids, masks, strict=True)):
                    if frame.triplet.mask_index[number] == UNKNOWN:
                        continue
                    target = frame.triplet.mask(number) > 0
                    scores = region_similarity(mask, target), contour_accuracy(mask, target)
                    found[protocol.name].setdefault(expression, []).append(scores)
        judged = list(found[self.protocols[0].name])
        rows = {name: _video_rows(video, scores) for name, scores in found.items()}
        first = rows[self.protocols[0].name]
        texts, kinds = ([phrases[one][at] for one in judged] for at in (0, 1))
        return UnitResult(samples_of(video, texts, kinds, (first["j"] + first["f"]) / 2), rows)

    def _probabilities(self, triplet: Triplet, protocol: Protocol) -> Float32[np.ndarray, "p h w"]:
        return self.predictor.probabilities(self.predictor.encode(triplet.image, protocol.resize), triplet.phrases)

    def _hand_in(self, protocol: Protocol, video: str, frame: Frame, masks: Bool[np.ndarray, "p h w"]) -> None:
        if submission := self.submissions.get(protocol.name):
            for expression, mask in zip(frame.ids, masks, strict=True):
                submission.add(video, expression, frame.name, mask)

    def view(self, unit: int, number: int) -> tuple[list, list, list, str]:
        """Returns an expression's frames, predictions and truths, and its text, to be shown.

        Args:
            unit: number of the video.
            number: of the expression among those that are scored.
        """
        protocol, shown = self.protocols[0], []
        scored = self._scored(unit)
        text = ""
        for frame in self.frames(unit):
            at = frame.ids.index(scored[number])
            text = frame.triplet.phrases[at]
            prediction = self._probabilities(frame.triplet, protocol)[at] > protocol.threshold
            known = frame.triplet.mask_index[at] != UNKNOWN
            shown.append((frame.triplet.image, prediction, frame.triplet.mask(at) > 0 if known else prediction & False))
        images, predictions, targets = (list(column) for column in zip(*shown, strict=True))
        return images, predictions, targets, text

    def _scored(self, unit: int) -> list[str]:
        """Returns the ids of the expressions that have a truth in a frame, in the order of the samples."""
        found: dict[str, None] = {}
        for frame in self.frames(unit):
            for expression, mask in zip(frame.ids, frame.triplet.mask_index, strict=True):
                if mask != UNKNOWN:
                    found.setdefault(expression)
        return list(found)

    def draw(self, unit: int, number: int) -> Judged:
        """Judges an expression again, to be drawn in the middle one of its frames."""
        images, predictions, targets, text = self.view(unit, number)
        scores = [
            (region_similarity(*pair) + contour_accuracy(*pair)) / 2
            for pair in zip(predictions, targets, strict=True)
        ]
        middle = len(images) // 2
        return Judged(
            image_id=self.videos[unit][0],
            phrase=text,
            kind="referring",
            image=images[middle],
            prediction=predictions[middle],
            target=targets[middle],
            score=float(np.mean(scores)),
        )


def _video_rows(video: str, scores: Mapping[str, list[tuple[float, float]]]) -> Rows:
    """Returns rows of `VideoMetric`: means over the frames of each expression."""
    means = np.array([np.mean(frames, axis=0) for frames in scores.values()], np.float64).reshape(-1, 2)
    return {
        "expression_id": np.array([f"{video}/{expression}" for expression in scores], np.str_),
        "j": means[:, 0],
        "f": means[:, 1],
        "frames": np.array([len(frames) for frames in scores.values()], np.int64),
    }


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

