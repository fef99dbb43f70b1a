"""Frames of videos with expressions: what the builders of referring video data sets share.

An expression speaks of one object in the whole video. In a frame that does not show the object, it matches
nothing and keeps its kind: training learns from it that an object can be absent, and the video metrics count the frame.
The expressions of one object are one sample there too, where its label is known.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeGuard

import numpy as np
from jaxtyping import Int64

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import triplet
from unilseg_jax.input_pipeline.annotations import Annotations
from unilseg_jax.input_pipeline.builder import SetConfig


class Expression(NamedTuple):
    """What is said about an object of a video.

    Attributes:
        source_id: id of the expression within its video.
        text: as its authors give it.
        object_id: the object's label in the label maps, -1 where it is not published.
        category: name of the object's class, "" if unknown.
    """

    source_id: str
    text: str
    object_id: int = -1
    category: str = ""


class VideoFrame(NamedTuple):
    """An item: a frame with the expressions of its video, which all its frames share.

    Attributes:
        video: name of the video.
        frame: name of the frame, without an ending.
        expressions: of the video.
    """

    video: str
    frame: str
    expressions: tuple[Expression, ...]

    @property
    def image_id(self) -> str:
        """The frame's name within its data set."""
        return f"{self.video}/{self.frame}"

    def below(self, folder: Path, ending: str) -> Path:
        """Returns the frame's file in a folder that has one folder per video."""
        return folder / self.video / f"{self.frame}{ending}"


class VideoConfig(SetConfig):
    """A configuration whose authors count videos and expressions, which its records do not show.

    Args:
        published_videos: sizes as its authors give them, by split: videos and expressions; None where unknown.
        **more: of `SetConfig`.
    """

    def __init__(self, *, published_videos: Mapping[str, tuple[int | None, int | None]], **more):
        super().__init__(**more)
        self.published_videos = published_videos

    def count_videos(self, plan: Mapping[str, Sequence[VideoFrame]]) -> dict[str, dict[str, int | None]]:
        """Returns videos and expressions of each split, those of the plan beside the published ones."""
        counts = {}
        for split, items in plan.items():
            videos = {item.video: len(item.expressions) for item in items}
            published = self.published_videos.get(split, (None, None))
            counts[split] = {
                "videos": len(videos),
                "published_videos": published[0],
                "expressions": sum(videos.values()),
                "published_expressions": published[1],
            }
        return counts


def is_object_id(value: object) -> TypeGuard[int | str]:
    """Whether a value is the id of an object as data sets write it: a label from 1 to 254, or its digits."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,3}", value):
        value = int(value)
    return isinstance(value, int) and 1 <= value <= 254


def object_id(value: object) -> int:
    """Reads the id of an object.

    Raises:
        UserError: it is none (`is_object_id`).
    """
    if not is_object_id(value):
        raise UserError(f"the object's id is {value!r}, a number from 1 to 254 is wanted")
    return int(value)


def add_expression(found: Annotations, expression: Expression, number: int) -> None:
    """Adds an expression.

    Args:
        found: of the frame.
        expression: names the mask.
        number: of the mask, `triplet.NOTHING` or `triplet.UNKNOWN`.
    """
    found.phrases.append(
        triplet.RecordPhrase(
            text=expression.text,
            mask_index=number,
            kind="referring",
            source_id=expression.source_id,
            object_id=expression.object_id,
        )
    )


def add_labelled(found: Annotations, expressions: Sequence[Expression], labels: Int64[np.ndarray, "h w"]) -> None:
    """Adds expressions with the masks of their objects, one per object.

    Args:
        found: of the frame.
        expressions: of the video.
        labels: object ids, 0 for the background, at the frame's size.

    Raises:
        UserError: the label map is of another size than the frame.
    """
    numbers: dict[int, int] = {}
    for expression in expressions:
        label = expression.object_id
        if label not in numbers:
            mask = labels == label
            numbers[label] = (
                found.add(mask, (), kind="instance", category=expression.category, source_id=label)
                if mask.any()
                else triplet.NOTHING
            )
        add_expression(found, expression, numbers[label])
