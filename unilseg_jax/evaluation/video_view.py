"""A sequence to be looked at: per frame the picture, the prediction and, where it is known, the truth side by side."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from unilseg_jax.errors import UserError
from unilseg_jax.evaluation.pictures import FOUND, shrink, spotlight
from unilseg_jax.interop.output import written_whole
from unilseg_jax.ops.overlay import legend

Frame = UInt8[np.ndarray, "_h _w 3"]

SIDES = {".gif": 320, ".mp4": 480}
"""Longer side of a tile in pixels, by the file's ending."""
_GAP, _TEXT = 4, 14  # px
_COLOURS = 128  # of a frame of a GIF


def write_video_view(
    path: Path,
    frames: Iterable[Frame],
    predictions: Iterable[Bool[np.ndarray, "_h _w"]],
    targets: Iterable[Bool[np.ndarray, "_h _w"]] | None,
    phrase: str,
    frames_per_second: float = 6.0,
) -> None:
    """Writes a GIF or an MP4, by the path's ending; the file gets its name when it is whole.

    Frames are taken one by one. Each is numbered, so that equal ones can be told apart.

    Args:
        path: file to write, `.gif` or `.mp4`; its folder is made if missing.
        frames: RGB, at least one.
        predictions: one per frame, at the frame's size.
        targets: likewise, the true masks; None where they are not known.
        phrase: stands below the pictures.
        frames_per_second: above 0; a GIF knows hundredths of a second only. 6 are those of Ref-YouTube-VOS.

    Raises:
        UserError: the ending is another one, this machine's OpenCV has no encoder for MP4, or the file cannot be
            written.
        ValueError: there are no frames, or not as many as masks, a mask is of another size than its frame, or
            `frames_per_second` is out of its range.
    """
    if frames_per_second <= 0:
        raise ValueError(f"frames_per_second is {frames_per_second}, more than 0 is wanted")
    path = Path(path)
    writers: dict[str, Callable[[Path, Iterator[Frame], float], None]] = {".gif": _write_gif, ".mp4": _write_mp4}
    ending = path.suffix.lower()
    if ending not in writers:
        raise UserError(f"{str(path)!r} does not end in .gif or .mp4, which are what a sequence can be written to")
    drawn = _draw(frames, predictions, targets, phrase, SIDES[ending])
    first = next(drawn, None)
    if first is None:
        raise ValueError(f"no frames for {str(path)!r}, at least one is wanted")
    with written_whole(path) as temporary:
        writers[ending](temporary, itertools.chain([first], drawn), frames_per_second)


def _draw(
    frames: Iterable[Frame],
    predictions: Iterable[np.ndarray],
    targets: Iterable[np.ndarray] | None,
    phrase: str,
    side: int,
) -> Iterator[Frame]:
    """Yields the pictures of the sequence, all of one size, that of the first frame."""
    names = ["picture", "prediction"] + ([] if targets is None else ["truth"])
    masks = zip(predictions, strict=True) if targets is None else zip(predictions, targets, strict=True)
    size = None
    for number, (frame, shown) in enumerate(zip(frames, masks, strict=True), 1):
        for name, mask in zip(names[1:], shown, strict=True):
            if mask.shape != frame.shape[:2]:
                raise ValueError(f"the {name} of frame {number} is {mask.shape}, the picture {frame.shape[:2]}")
        tiles = [shrink(frame, side, True), *(spotlight(frame, mask, side, True) for mask in shown)]
        size = size or (tiles[0].shape[1], tiles[0].shape[0])
        if tiles[0].shape[:2] != size[::-1]:
            tiles = [cv2.resize(tile, size, interpolation=cv2.INTER_AREA) for tile in tiles]
        yield _arrange(tiles, names, phrase, number)


def _arrange(tiles: list[Frame], names: list[str], phrase: str, number: int) -> Frame:
    """Puts tiles in a row, their names above, the phrase and the frame's number below; both sides become even."""
    height, width = tiles[0].shape[:2]
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    row = np.concatenate([part for tile in tiles for part in (gap, tile)][1:], axis=1)
    head = Image.new("RGB", (row.shape[1], round(1.6 * _TEXT)), "white")
    draw, font = ImageDraw.Draw(head), ImageFont.load_default(size=_TEXT)
    for place, name in enumerate(names):
        draw.text((place * (width + _GAP) + 2, head.height / 2), name, fill="black", font=font, anchor="lm")
    foot = legend([phrase], [f"frame {number}"], row.shape[1], _TEXT, [FOUND])
    whole = np.concatenate([np.asarray(head), row, foot])
    # MPEG-4 has no odd sides.
    return np.pad(whole, ((0, whole.shape[0] % 2), (0, whole.shape[1] % 2), (0, 0)), constant_values=255)


def _write_gif(path: Path, frames: Iterator[Frame], frames_per_second: float) -> None:
    # Without dithering: the noise would change from frame to frame, which flickers and takes room.
    pictures = (
        Image.fromarray(frame).quantize(_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        for frame in frames
    )
    next(pictures).save(
        path, "GIF", save_all=True, append_images=pictures, duration=round(1000 / frames_per_second), loop=0
    )


def _write_mp4(path: Path, frames: Iterator[Frame], frames_per_second: float) -> None:
    first = next(frames)
    size = (first.shape[1], first.shape[0])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), frames_per_second, size)
    try:
        if not writer.isOpened():
            raise UserError(f"OpenCV cannot encode {path.name!r} on this machine; name a .gif instead")
        for frame in itertools.chain([first], frames):
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
    # It says nothing of a full disk.
    if not path.is_file() or not path.stat().st_size:
        raise UserError(f"OpenCV wrote nothing for {path.name!r}; check the free space, or name a .gif instead")
