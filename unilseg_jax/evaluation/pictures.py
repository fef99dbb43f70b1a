"""Pictures of predictions: regions painted over a picture, and their colours."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

HIT, MISSED, SURPLUS = (60, 200, 90), (70, 130, 255), (235, 70, 60)
"""Green is right, blue was missed, red is surplus."""
FOUND = (245, 190, 20)
"""Of a mask that is shown by itself."""
_TINT = 0.55

Colour = tuple[int, int, int]


def shrink(picture: UInt8[np.ndarray, "h w *c"], side: int, enlarge: bool = False) -> UInt8[np.ndarray, "h2 w2 *c"]:
    """Brings the longer side of a picture to `side` pixels; a smaller one is left alone unless it shall be enlarged."""
    scale = side / max(picture.shape[:2])
    if scale == 1 or (scale > 1 and not enlarge):
        return picture
    size = tuple(max(1, round(length * scale)) for length in (picture.shape[1], picture.shape[0]))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def paint(
    picture: UInt8[np.ndarray, "h w 3"],
    regions: Sequence[tuple[Bool[np.ndarray, "h w"], Colour]],
    side: int,
    enlarge: bool = False,
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Tints regions of a picture, which is brought to size before, as `shrink` does.

    Args:
        picture: RGB.
        regions: masks at the picture's size, with their colours; they do not overlap.
        side: of the result, in pixels.
        enlarge: whether a smaller picture is enlarged.
    """
    out = shrink(picture, side, enlarge).astype(np.float32)
    for mask, colour in regions:
        # Levels between are pixels that the region covers in part.
        share = shrink(mask.astype(np.uint8) * np.uint8(255), side, enlarge)[..., None].astype(np.float32) / 255
        out += _TINT * share * (np.array(colour, np.float32) - out)
    return out.round().clip(0, 255).astype(np.uint8)


def errors(
    prediction: Bool[np.ndarray, "h w"], target: Bool[np.ndarray, "h w"]
) -> tuple[tuple[Bool[np.ndarray, "h w"], Colour], ...]:
    """Returns what is right, missed and surplus, with the colours for `paint`."""
    return (
        (target & prediction, HIT),
        (target & ~prediction, MISSED),
        (~target & prediction, SURPLUS),
    )
