"""Ref-DAVIS17: every annotator names all objects of a video, and what they name shares one label map.

Scored as ReferFormer does, by DAVIS's evaluation of the unsupervised task: predicted objects are matched with the true
ones. In none of the paper's tables. Differs: none.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from scipy.optimize import linear_sum_assignment

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation.judges.base import Rows, UnitResult, Variant, samples_of
from unilseg_jax.evaluation.judges.video import Frame, Shown, VideoJudge
from unilseg_jax.evaluation.protocols import Protocol
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


class _Followed(NamedTuple):
    """A video that was asked for all of its objects.

    Attributes:
        count: of objects: the highest label in the first frame.
        phrases: by annotator the expression of each label.
        truths: label maps of the frames.
        found: by protocol and annotator the predicted label maps of the frames, 1 and up in the order of
            `_annotators`.
    """

    count: int
    phrases: dict[str, dict[int, str]]
    truths: list[UInt8[np.ndarray, "_h _w"]]
    found: dict[tuple[str, str], list[UInt8[np.ndarray, "_h _w"]]]


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
        video, followed = self.videos[unit][0], self._follow(unit, self.protocols)
        count, rows = followed.count, {}
        for protocol in self.protocols:
            parts: list[Rows] = []
            for annotator in followed.phrases:
                j, f, _ = _matched(followed.found[protocol.name, annotator], followed.truths, count)
                names = [f"{video}/{label}/{annotator}" for label in range(1, count + 1)]
                frames = np.full(count, len(followed.truths), np.int64)
                parts.append({"expression_id": np.array(names, np.str_), "j": j, "f": f, "frames": frames})
            rows[protocol.name] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        first = rows[self.protocols[0].name]
        texts = [texts[label] for texts in followed.phrases.values() for label in range(1, count + 1)]
        samples = samples_of(video, texts, ["referring"] * len(texts), (first["j"] + first["f"]) / 2)
        return UnitResult(samples, rows)

    def view(self, unit: int, number: int) -> Shown:
        """Returns all frames of a video with an object and what an annotator's expressions found of it."""
        followed, protocol = self._follow(unit, self.protocols[:1]), self.protocols[0]
        place, index = divmod(number, followed.count)
        annotator, label = list(followed.phrases)[place], index + 1
        found = followed.found[protocol.name, annotator]
        _, _, matched = _matched(found, followed.truths, followed.count)
        return Shown(
            images=[frame.triplet.image for frame in self.frames(unit)],
            predictions=[labels == matched[index] for labels in found],
            targets=[labels == label for labels in followed.truths],
            known=[True] * len(found),
            phrase=followed.phrases[annotator][label],
        )

    def _follow(self, unit: int, protocols: Sequence[Protocol]) -> _Followed:
        """Asks for all expressions in every frame; of each frame label maps alone are kept."""
        followed = None
        for frame in self.frames(unit):
            if followed is None:
                followed = self._start(self.videos[unit][0], frame)
                annotators = _annotators(frame)
            followed.truths.append(_label_map(frame, followed.count))
            void = np.zeros(frame.triplet.image.shape[:2], bool) if frame.void is None else frame.void
            places = {expression: place for place, expression in enumerate(frame.ids)}
            for protocol in protocols:
                probs = self._probabilities(frame.triplet, protocol)
                for annotator, expressions in annotators.items():
                    chosen = probs[[places[expression] for expression in expressions]]
                    labels = np.where(void, np.uint8(0), _fused(chosen, protocol.threshold))
                    followed.found.setdefault((protocol.name, annotator), []).append(labels)
        assert followed is not None
        return followed

    def _start(self, video: str, frame: Frame) -> _Followed:
        """Returns what the first frame says of a video: how many objects count, and what each is called.

        Raises:
            UserError: it shows none.
        """
        count = max(_labels(frame), default=0)
        if not count:
            raise UserError(f"the first frame of {video!r} shows no object; leave the video out")
        texts = dict(zip(frame.ids, frame.triplet.phrases, strict=True))
        phrases = {
            annotator: {label: texts.get(f"{annotator}-{label}", "(no expression)") for label in range(1, count + 1)}
            for annotator in _annotators(frame)
        }
        return _Followed(count, phrases, [], {})


def _annotators(frame: Frame) -> dict[str, list[str]]:
    """Returns by annotator the ids of the expressions, in the order of their objects."""
    found: dict[str, list[tuple[int, str]]] = {}
    for label, expression in zip(frame.objects, frame.ids, strict=True):
        found.setdefault(expression.rsplit("-", 1)[0], []).append((label, expression))
    return {name: [expression for _, expression in sorted(pairs)] for name, pairs in found.items()}


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


def _fused(probs: Float32[np.ndarray, "p h w"], threshold: float) -> UInt8[np.ndarray, "h w"]:
    """Returns the most probable object of each pixel, 1 and up, 0 where none reaches the threshold."""
    candidates = np.where(probs >= threshold, probs, 0)
    return np.where(candidates.max(0) > BACKGROUND, candidates.argmax(0) + 1, 0).astype(np.uint8)


def _matched(
    predictions: Sequence[UInt8[np.ndarray, "_h _w"]], truths: Sequence[UInt8[np.ndarray, "_h _w"]], count: int
) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """Returns J and F of each true object, means over the frames, and the predicted label that it is matched with.

    As in DAVIS's evaluation, objects that were predicted up to the highest label that occurs are matched one-to-one
    with the true ones, so that (J + F) / 2 is greatest; if they are fewer, empty ones make up for them.
    """
    candidates = max(count, *(int(labels.max()) for labels in predictions))
    scores = np.zeros((2, candidates, count))
    for prediction, truth in zip(predictions, truths, strict=True):
        for one in range(candidates):
            mask = prediction == one + 1
            for other in range(count):
                target = truth == other + 1
                scores[:, one, other] += region_similarity(mask, target), contour_accuracy(mask, target)
    scores /= len(truths)
    rows, columns = linear_sum_assignment(-scores.mean(0))
    matched = np.empty(count, np.int64)
    matched[columns] = rows
    return scores[0, matched, np.arange(count)], scores[1, matched, np.arange(count)], matched + 1
