"""The JSON files of Ref-YouTube-VOS: `meta_expressions.json` of each split, and YouTube-VOS's `meta.json`."""

from collections.abc import Callable, Mapping
from pathlib import Path

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline import raw_files, triplet
from unilseg_jax.input_pipeline.json_file import read_json
from unilseg_jax.input_pipeline.video_frames import Expression, VideoFrame, is_object_id, object_id

Skip = Callable[..., None]
"""Lists what is left out, as `skip(reason, **ids)`."""


def expressions_file(raw: Path, split: str) -> Path:
    """Returns the place of a split's expressions (train, valid or test)."""
    return raw / "meta_expressions" / split / "meta_expressions.json"


def load_videos(path: Path, report: Skip) -> dict[str, object]:
    """Reads the videos of a JSON file, unchecked, by name.

    Args:
        path: of a `meta_expressions.json` or `meta.json`.
        report: is told of each name that occurs twice: of a video, an expression or an object.

    Raises:
        UserError: it is missing, no JSON, or has no videos.
    """
    content = read_json(path, "annotation file", report)
    videos = content.get("videos") if isinstance(content, dict) else None
    if not isinstance(videos, dict):
        raise UserError(f"{str(path)!r} has no videos by name; a file of Ref-YouTube-VOS is wanted")
    return videos


def load_categories(path: Path, report: Skip) -> dict[tuple[str, int], str]:
    """Reads the classes of the training videos' objects.

    Args:
        path: of YouTube-VOS's `meta.json`.
        report: see `load_videos`.

    Returns:
        Names by video and object; entries that cannot be read are left out.

    Raises:
        UserError: see `load_videos`.
    """
    categories = {}
    for video, entry in load_videos(path, report).items():
        objects = entry.get("objects") if isinstance(entry, dict) else None
        for key, value in objects.items() if isinstance(objects, dict) else ():
            name = value.get("category") if isinstance(value, dict) else None
            if is_object_id(key) and triplet.has_words(name):
                categories[video, int(key)] = name
    return categories


def video_frames(
    video: str, entry: object, categories: Mapping[tuple[str, int], str] | None, skip: Skip, lose: Skip
) -> list[VideoFrame]:
    """Returns the frames of a video with its expressions.

    Args:
        video: its name.
        entry: what the file says of it.
        categories: of its objects; None where objects are not published, so that expressions name none.
        skip: lists an expression that cannot be used, or a frame that is there twice.
        lose: lists a frame that cannot be used.

    Raises:
        UserError: the video cannot be used.
    """
    raw_files.plain_name(video, "video")
    entry = entry if isinstance(entry, dict) else {}
    expressions, frames = entry.get("expressions"), entry.get("frames")
    if not isinstance(expressions, dict) or not isinstance(frames, list) or not frames:
        raise UserError("the video lacks expressions or frames")
    sound = []
    for key, value in expressions.items():
        try:
            sound.append(_expression(video, key, value, categories))
        except UserError as error:
            skip(str(error), video=video, expression=key)
    if not sound:
        raise UserError("the video has no expression that can be used")
    items: dict[str, VideoFrame] = {}
    for frame in frames:
        try:
            name = raw_files.plain_name(frame, "frame")
        except UserError as error:
            lose(str(error), video=video, frame=repr(frame))
            continue
        if name in items:
            skip(f"the frame {name!r} is listed twice", video=video, frame=repr(name))
        else:
            items[name] = VideoFrame(video, name, tuple(sound))
    return list(items.values())


def count_frames(entry: object) -> int:
    """Returns how many frames a file lists of a video, 0 if nothing tells."""
    frames = entry.get("frames") if isinstance(entry, dict) else None
    return len(frames) if isinstance(frames, list) else 0


def _expression(video: str, key: str, value: object, categories: Mapping[tuple[str, int], str] | None) -> Expression:
    # The key names a folder of ground truth and one of the benchmark's submission.
    raw_files.plain_name(key, "expression")
    value = value if isinstance(value, dict) else {}
    text = value.get("exp")
    if not triplet.has_words(text):
        raise UserError(f"the expression {text!r} says nothing")
    if categories is None:
        return Expression(key, text)
    number = object_id(value.get("obj_id"))
    return Expression(key, text, number, categories.get((video, number), ""))
