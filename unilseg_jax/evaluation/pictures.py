"""Pictures of predictions: regions painted over a picture, and their colours."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

HIT, MISSED, SURPLUS = (60, 200, 90), (70, 130, 255), (235, 70, 60)
"""Green is right, blue was missed, red is surplus."""
FOUND = (245, 190, 20)
"""Around a mask that is shown by itself."""
_TINT = 0.55
_DIM = 0.4

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
    *,
    enlarge: bool = False,
    grey: bool = False,
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Tints regions of a picture, which is brought to size before, as `shrink` does.

    Args:
        picture: RGB.
        regions: masks at the picture's size, with their colours; they do not overlap.
        side: of the result, in pixels.
        enlarge: whether a smaller picture is enlarged.
        grey: whether the picture loses its own colours, so that the regions' are not mistaken for them.
    """
    small = shrink(picture, side, enlarge)
    if grey:
        small = cv2.cvtColor(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    out = small.astype(np.float32)
    for mask, colour in regions:
        out += _TINT * _share(mask, side, enlarge) * (np.array(colour, np.float32) - out)
    return out.round().clip(0, 255).astype(np.uint8)


def spotlight(
    picture: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], side: int, enlarge: bool = False
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Shows a mask: its pixels as they are, with a line around them, all others dimmed.

    Args:
        picture: RGB.
        mask: at the picture's size.
        side: of the result, in pixels.
        enlarge: whether a smaller picture is enlarged.
    """
    share = _share(mask, side, enlarge)
    out = (shrink(picture, side, enlarge) * (_DIM + (1 - _DIM) * share)).round().astype(np.uint8)
    inside = (share[..., 0] > 0.5).astype(np.uint8)
    outlines, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, outlines, -1, FOUND, 1)
    return out


def _share(mask: Bool[np.ndarray, "h w"], side: int, enlarge: bool) -> Float32[np.ndarray, "h2 w2 1"]:
    """Brings a mask to size; what lies between 0 and 1 is a pixel that it covers in part."""
    levels = shrink(mask.astype(np.uint8) * np.uint8(255), side, enlarge)
    return levels[..., None].astype(np.float32) / 255


def errors(
    prediction: Bool[np.ndarray, "h w"], target: Bool[np.ndarray, "h w"]
) -> tuple[tuple[Bool[np.ndarray, "h w"], Colour], ...]:
    """Returns what is right, missed and surplus, with the colours for `paint`."""
    return (
        (target & prediction, HIT),
        (target & ~prediction, MISSED),
        (~target & prediction, SURPLUS),
    )
