"""Ref-YouTube-VOS as triplet records: a frame with the objects that its video's expressions speak of."""

import functools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool
from PIL import Image

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import raw_files, triplet
from unilseg_jax.input_pipeline.annotations import Annotations
from unilseg_jax.input_pipeline.builder import TripletBuilder
from unilseg_jax.input_pipeline.conversion import likely_size
from unilseg_jax.input_pipeline.video_frames import (
    Expression,
    VideoConfig,
    VideoFrame,
    add_expression,
    add_labelled,
)

from .meta_expressions import Skip, count_frames, expressions_file, load_categories, load_videos, video_frames

ASPECT = 0.01  # share by which the shape of a ground truth may be off from its frame's
PAGE = "https://youtube-vos.org/dataset/rvos/"

CONFIGS = [
    VideoConfig(
        name="train",
        description="the training videos, with masks",
        published_videos={"train": (3471, 12913)},
        fetch=f"frames, masks and expressions of train from {PAGE}",
        picture_places=("train/JPEGImages",),
    ),
    VideoConfig(
        name="valid",
        description="the benchmark's videos without masks: for its submission",
        published_videos={"valid": (202, None)},
        fetch=f"frames of valid, expressions of valid and test from {PAGE}",
        picture_places=("valid/JPEGImages",),
    ),
    VideoConfig(
        name="valid_with_masks",
        description="the benchmark's videos with their ground truth",
        published_videos={"valid": (202, None)},
        fetch=f"frames of valid, expressions of valid and test from {PAGE}; ground truth: issues 7 and 8 of "
        "https://github.com/skynbe/Refer-Youtube-VOS",
        picture_places=("valid/JPEGImages",),
    ),
]


class Builder(TripletBuilder):
    """Converts Ref-YouTube-VOS's files."""

    HOMEPAGE = PAGE
    LICENCE = "YouTube-VOS: annotations CC BY 4.0, videos for non-commercial research only"
    BUILDER_CONFIGS = CONFIGS

    @classmethod
    def found_configs(cls, raw: Path) -> list[str]:
        """Returns the configurations whose expressions and folders lie in the raw folder."""
        train, valid = (expressions_file(raw, split).is_file() for split in ("train", "valid"))
        with_masks = valid and (raw / "valid" / "Annotations").is_dir()
        found = {"train": train, "valid": valid, "valid_with_masks": with_masks}
        return [name for name, is_there in found.items() if is_there]

    @classmethod
    def wanted_files(cls) -> str:
        """Says what the raw folder must hold."""
        return (
            "meta_expressions/train/meta_expressions.json with train/JPEGImages and train/Annotations, or "
            "meta_expressions/{valid,test}/meta_expressions.json with valid/JPEGImages (and valid/Annotations)"
        )

    def plan(self, raw: Path) -> dict[str, list[VideoFrame]]:
        """Returns the frames of the split, video by video."""
        split = "train" if self.builder_config.name == "train" else "valid"
        self._frames = self.pictures or raw_files.first_folder(raw, (f"{split}/JPEGImages",), "frames")
        if self.builder_config.name != "valid":
            self._masks = raw_files.first_folder(raw, (f"{split}/Annotations",), "masks")
        skip, lose = (
            functools.partial(lists, split, "meta_expressions.json")
            for lists in (self.conversion.skip, self.conversion.lose_unplanned)
        )
        videos = load_videos(expressions_file(raw, split), skip)
        categories = self._categories(raw) if split == "train" else None
        if split == "valid":
            for video in _test_videos(raw, functools.partial(self.conversion.skip, "", "test/meta_expressions.json")):
                videos.pop(video, None)
        items, lengths, lost = [], [], {}
        for video, entry in videos.items():
            try:
                frames = video_frames(video, entry, categories, skip, lose)
            except UserError as error:
                lost[video] = str(error)
                continue
            items += frames
            lengths.append(len(frames))
            if frames and self.builder_config.name == "valid_with_masks":
                self._list_missing(frames[0])
        for video, reason in lost.items():
            lose(reason, count_frames(videos[video]) or likely_size(lengths), video=video)
        self.conversion.facts["videos"] = self.builder_config.count_videos({split: items})
        return {split: items}

    def item_file(self, item: VideoFrame) -> str:
        """Returns the frame's name."""
        return item.image_id

    def records(self, split: str, item: VideoFrame) -> Iterator[dict]:
        """Makes the record of a frame."""
        picture = raw_files.read_picture(item.below(self._frames, ".jpg"))
        size = (picture.height, picture.width)
        found = Annotations(*size)
        if self.builder_config.name == "train":
            add_labelled(found, item.expressions, raw_files.read_label_map(item.below(self._masks, ".png"), size))
        elif self.builder_config.name == "valid":
            for expression in item.expressions:
                add_expression(found, expression, triplet.UNKNOWN)
        else:
            self._add_ground_truth(found, item, size)
        yield self.record(
            picture,
            image_id=item.image_id,
            task="video",
            masks=found.masks,
            phrases=found.phrases,
            video=item.video,
            frame=item.frame,
        )

    def _list_missing(self, item: VideoFrame) -> None:
        """Lists the expressions of a video that have no ground truth at all."""
        for expression in item.expressions:
            folder = f"{item.video}/{expression.source_id}"
            if not (self._masks / folder).is_dir():
                self.conversion.skip("valid", f"Annotations/{folder}", "the expression has no ground truth")

    def _add_ground_truth(self, found: Annotations, item: VideoFrame, size: tuple[int, int]) -> None:
        """Adds the expressions with their masks, which expressions of one object share."""
        numbers: dict[bytes, int] = {}
        for expression in item.expressions:
            mask = self._ground_truth(item, expression, size)
            if mask is None:
                number = triplet.UNKNOWN
            elif not mask.any():
                number = triplet.NOTHING
            else:
                key = mask.tobytes()
                if key not in numbers:
                    numbers[key] = found.add(mask, (), kind="instance")
                number = numbers[key]
            add_expression(found, expression, number)

    def _ground_truth(
        self, item: VideoFrame, expression: Expression, size: tuple[int, int]
    ) -> Bool[np.ndarray, "h w"] | None:
        """Returns the mask of an expression, None where there is none; one that cannot be used is listed."""
        path = self._masks / item.video / expression.source_id / f"{item.frame}.png"
        # Not every frame that is to be predicted has ground truth.
        if not path.is_file():
            return None
        try:
            return _read_ground_truth(path, size)
        except UserError as error:
            self.conversion.skip("valid", item.image_id, str(error), expression=expression.source_id)
            return None

    def _categories(self, raw: Path) -> dict[tuple[str, int], str]:
        """Returns the classes of objects; without their file there are none, and that is listed."""
        try:
            return load_categories(
                raw / "train" / "meta.json", functools.partial(self.conversion.skip, "train", "meta.json")
            )
        except UserError as error:
            self.conversion.skip("train", "meta.json", f"{error}; the masks have no category")
            return {}


def _test_videos(raw: Path, report: Skip) -> list[str]:
    """Returns the videos to be taken out of the valid file, which lists those of the test split as well."""
    path = expressions_file(raw, "test")
    if not path.is_file():
        raise UserError(
            f"no such file: {str(path)!r}; the valid file lists the test videos too, and only this one says which"
        )
    return list(load_videos(path, report))


def _read_ground_truth(path: Path, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Reads the mask of one expression, which some videos have at another size than their frames."""
    own = _size(path) or size
    # Written as {0, 255}.
    mask = raw_files.read_label_map(path, own) > 0
    if own == size:
        return mask
    if abs(own[0] * size[1] / (own[1] * size[0]) - 1) > ASPECT:
        raise UserError(f"the mask is {own[0]} × {own[1]}, its frame {size[0]} × {size[1]}, which is another shape")
    return cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) > 0


def _size(path: Path) -> tuple[int, int] | None:
    """Returns the height and width that a picture file says, None if it says none."""
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    # The reader that comes next reports what is wrong with the file.
    except Exception:
        return None
