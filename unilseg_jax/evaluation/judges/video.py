"""Expressions about objects in videos: J, F and their mean (paper Table 3), frame by frame in order.

Differs: none.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation.judged import Judged
from unilseg_jax.evaluation.judges.base import Judge, Rows, UnitResult, Variant, samples_of
from unilseg_jax.evaluation.protocols import Protocol
from unilseg_jax.evaluation.submission import Submission, Wanted
from unilseg_jax.input_pipeline.sources import RecordSource
from unilseg_jax.input_pipeline.triplet import UNKNOWN, Triplet, decode_record
from unilseg_jax.input_pipeline.visits import text_of
from unilseg_jax.metrics.video import VideoMetric, contour_accuracy, region_similarity


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
        name: of the frame.
        triplet: its picture, masks and phrases.
        ids: of the expressions, one per phrase.
        objects: label of the object of each phrase, -1 if it is not known.
        void: pixels that do not count; None for none.
    """

    name: str
    triplet: Triplet
    ids: tuple[str, ...]
    objects: tuple[int, ...]
    void: Bool[np.ndarray, "h w"] | None = None


class Shown(NamedTuple):
    """An expression's frames, to be looked at.

    Attributes:
        images: RGB.
        predictions: masks.
        targets: true masks; empty ones where they are not known.
        known: whether the truth of each frame is known.
        phrase: the expression.
    """

    images: list[UInt8[np.ndarray, "_h _w 3"]]
    predictions: list[Bool[np.ndarray, "_h _w"]]
    targets: list[Bool[np.ndarray, "_h _w"]]
    known: list[bool]
    phrase: str


class VideoJudge(Judge):
    """J and F of every expression, over all frames whose truth is published.

    Attributes:
        masks_folder: where the masks of each video go, from which the submissions are put together; None keeps none.
    """

    masks_folder: Path | None = None
    writes_submissions = True

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
            triplet = decode_record(record)
            ignored = [at for at, kind in enumerate(record["mask_kinds"]) if text_of(kind) == "ignored"]
            yield Frame(
                text_of(record["frame"]),
                triplet,
                tuple(text_of(one) for one in record["phrase_ids"]),
                tuple(int(one) for one in record["phrase_objects"]),
                triplet.masks[ignored].any(0) if ignored else None,
            )

    def judge(self, unit: int) -> UnitResult:
        """Judges the expressions of a video."""
        video = self.videos[unit][0]
        phrases: dict[str, tuple[str, str]] = {}
        found: dict[str, dict[str, list[tuple[float, float]]]] = {one.name: {} for one in self.protocols}
        with contextlib.ExitStack() as stack:
            writers = {}
            if self.masks_folder:
                writers = {
                    one.name: stack.enter_context(Submission(self.masks_file(one, unit))) for one in self.protocols
                }
            for frame in self.frames(unit):
                named = zip(frame.triplet.phrases, frame.triplet.kinds, strict=True)
                phrases |= dict(zip(frame.ids, named, strict=True))
                for protocol in self.protocols:
                    masks = self._probabilities(frame.triplet, protocol) > protocol.threshold
                    if protocol.name in writers:
                        for expression, mask in zip(frame.ids, masks, strict=True):
                            writers[protocol.name].add(video, expression, frame.name, mask)
                    for expression, scores in _scores_of(frame, masks).items():
                        found[protocol.name].setdefault(expression, []).append(scores)
        judged = list(found[self.protocols[0].name])
        rows = {name: _video_rows(video, scores) for name, scores in found.items()}
        first = rows[self.protocols[0].name]
        texts, kinds = ([phrases[one][at] for one in judged] for at in (0, 1))
        return UnitResult(samples_of(video, texts, kinds, (first["j"] + first["f"]) / 2), rows)

    def _probabilities(self, triplet: Triplet, protocol: Protocol) -> Float32[np.ndarray, "p h w"]:
        if not triplet.phrases:
            return np.zeros((0, *triplet.image.shape[:2]), np.float32)
        return self.predictor.probabilities(self.predictor.encode(triplet.image, protocol.resize), triplet.phrases)

    def masks_file(self, protocol: Protocol, unit: int) -> Path:
        """Returns the file of a video's masks, laid out like a submission."""
        assert self.masks_folder is not None
        return self.masks_folder / f"masks-{protocol.name}-{unit:05}.zip"

    def wanted_masks(self, units: int) -> dict[str, Wanted]:
        """Returns what a submission of the first videos must hold.

        Args:
            units: how many videos.

        Raises:
            UserError: the frames of a video do not ask for the same expressions.
        """
        assert isinstance(self.source, RecordSource)
        wanted = {}
        for video, numbers in self.videos[:units]:
            records = [self.source.record(number) for number in numbers]
            asked = [tuple(text_of(one) for one in record["phrase_ids"]) for record in records]
            if any(sorted(ids) != sorted(asked[0]) for ids in asked):
                raise UserError(f"the frames of {video!r} do not ask for the same expressions; prepare the set again")
            size = int(records[0]["height"]), int(records[0]["width"])
            wanted[video] = Wanted(asked[0], [text_of(record["frame"]) for record in records], size)
        return wanted

    def view(self, unit: int, number: int) -> Shown:
        """Returns all frames that ask for an expression, with what was found.

        Args:
            unit: number of the video.
            number: of the expression among those that are scored.
        """
        protocol, shown = self.protocols[0], Shown([], [], [], [], "")
        expression = self._scored(unit)[number]
        for frame in self.frames(unit):
            if expression not in frame.ids:
                continue
            at = frame.ids.index(expression)
            known = frame.triplet.mask_index[at] != UNKNOWN
            encoded = self.predictor.encode(frame.triplet.image, protocol.resize)
            prediction = self.predictor.probabilities(encoded, [frame.triplet.phrases[at]])[0] > protocol.threshold
            shown.images.append(frame.triplet.image)
            shown.predictions.append(prediction)
            shown.targets.append(frame.triplet.mask(at) > 0 if known else np.zeros_like(prediction))
            shown.known.append(known)
            shown = shown._replace(phrase=frame.triplet.phrases[at])
        return shown

    def _scored(self, unit: int) -> list[str]:
        """Returns the ids of the expressions that have a truth in a frame, in the order of the samples."""
        found: dict[str, None] = {}
        for frame in self.frames(unit):
            for expression, mask in zip(frame.ids, frame.triplet.mask_index, strict=True):
                if mask != UNKNOWN:
                    found.setdefault(expression)
        return list(found)

    def draw(self, unit: int, number: int) -> Judged:
        """Judges an expression again, to be drawn in the middle one of the frames whose truth is known."""
        shown = self.view(unit, number)
        known = np.flatnonzero(shown.known).tolist()
        pairs = [(shown.predictions[at], shown.targets[at]) for at in known]
        scores = [(region_similarity(*pair) + contour_accuracy(*pair)) / 2 for pair in pairs]
        middle = known[len(known) // 2]
        return Judged(
            image_id=self.videos[unit][0],
            phrase=shown.phrase,
            kind="referring",
            image=shown.images[middle],
            prediction=shown.predictions[middle],
            target=shown.targets[middle],
            score=float(np.mean(scores)),
        )


def _scores_of(frame: Frame, masks: Bool[np.ndarray, "p h w"]) -> dict[str, tuple[float, float]]:
    """Returns J and F of the expressions whose truth is known in a frame."""
    found = {}
    for number, (expression, mask) in enumerate(zip(frame.ids, masks, strict=True)):
        if frame.triplet.mask_index[number] != UNKNOWN:
            target = frame.triplet.mask(number) > 0
            pair = mask, target, frame.void
            found[expression] = region_similarity(*pair), contour_accuracy(*pair)
    return found


def _video_rows(video: str, scores: Mapping[str, list[tuple[float, float]]]) -> Rows:
    """Returns rows of `VideoMetric`: means over the frames of each expression."""
    means = np.array([np.mean(frames, axis=0) for frames in scores.values()], np.float64).reshape(-1, 2)
    return {
        "expression_id": np.array([f"{video}/{expression}" for expression in scores], np.str_),
        "j": means[:, 0],
        "f": means[:, 1],
        "frames": np.array([len(frames) for frames in scores.values()], np.int64),
    }
