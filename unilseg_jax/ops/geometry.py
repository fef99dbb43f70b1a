"""From a picture to the square network input and back.

Differs: `letterbox` is the released demo's, `stretch` is the paper's. The corners, not the centres, of the
outer pixels are mapped on one another in `letterbox`, while OpenCV samples at whole coordinates: a shift of
up to half a pixel that the released model was run with, hence kept.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Array, Float32, UInt8

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Of RGB in 0 to 1: what OpenAI's CLIP was trained with."""
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

_BORDER = tuple(255 * mean for mean in PIXEL_MEAN)


def normalise(images: UInt8[Array, "*b h w 3"] | UInt8[np.ndarray, "*b h w 3"]) -> Array | np.ndarray:
    """Returns the network input, float32, for RGB in 0 to 255; a NumPy array stays one, so does JAX's.

    Args:
        images: uint8 pictures.
    """
    channels = (1,) * (images.ndim - 1) + (3,)
    mean = np.array(PIXEL_MEAN, np.float32).reshape(channels)
    std = np.array(PIXEL_STD, np.float32).reshape(channels)
    return (images.astype(np.float32) / np.float32(255) - mean) / std


def letterbox_scale(height: int, width: int, size: int) -> tuple[float, float, float]:
    """Returns scale, left and top margin (pixels of the square) of a letterboxed picture.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        size: side of the square, in pixels.
    """
    scale = min(size / height, size / width)
    return scale, (size - width * scale) / 2, (size - height * scale) / 2


def _to_square(height: int, width: int, size: int) -> np.ndarray:
    scale, left, top = letterbox_scale(height, width, size)
    return np.array([[scale, 0, left], [0, scale, top]], np.float64)


def _from_square(height: int, width: int, size: int) -> np.ndarray:
    scale, left, top = letterbox_scale(height, width, size)
    return np.array([[1 / scale, 0, -left / scale], [0, 1 / scale, -top / scale]], np.float64)


def letterbox(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Fits a picture into a square, centred, the rest filled with the mean colour; bicubic.

    Args:
        image: RGB.
        size: side of the square, in pixels.
    """
    matrix = _to_square(*image.shape[:2], size)
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_CUBIC, borderValue=_BORDER)


def letterbox_mask(mask: UInt8[np.ndarray, "h w"], size: int) -> UInt8[np.ndarray, "{size} {size}"]:
    """Takes a mask along with its letterboxed picture: nearest pixel, 0 outside."""
    matrix = _to_square(*mask.shape, size)
    return cv2.warpAffine(mask, matrix, (size, size), flags=cv2.INTER_NEAREST, borderValue=0)


def unletterbox(
    probs: Float32[np.ndarray, "p size size"], original_size: tuple[int, int]
) -> Float32[np.ndarray, "p h w"]:
    """Warps maps over the letterboxed square back onto the picture: bicubic, 0 outside.

    Bicubic interpolation overshoots: values may leave the range of `probs` by some tenths at steep edges.

    Args:
        probs: one map per prompt.
        original_size: height and width of the picture, in pixels.
    """
    height, width = original_size
    matrix = _from_square(height, width, probs.shape[-1])
    maps = np.empty((len(probs), height, width), np.float32)
    for square, out in zip(probs, maps, strict=True):
        out[:] = cv2.warpAffine(square, matrix, (width, height), flags=cv2.INTER_CUBIC, borderValue=0)
    return maps


def stretch(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Resizes a picture to a square whatever its aspect; bilinear, half-pixel centres.

    Args:
        image: RGB.
        size: side of the square, in pixels.
    """
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)


def stretch_mask(mask: UInt8[np.ndarray, "h w"], size: int) -> UInt8[np.ndarray, "{size} {size}"]:
    """Takes a mask along with its stretched picture: nearest pixel."""
    # OpenCV's plain "nearest" takes the pixel at the cell's corner, half a cell off the picture.
    return cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)


def unstretch(
    probs: Float32[np.ndarray, "p size size"], original_size: tuple[int, int]
) -> Float32[np.ndarray, "p h w"]:
    """Resizes maps over the stretched square back to the picture's size; bilinear.

    Args:
        probs: one map per prompt.
        original_size: height and width of the picture, in pixels.
    """
    height, width = original_size
    maps = np.empty((len(probs), height, width), np.float32)
    for square, out in zip(probs, maps, strict=True):
        out[:] = cv2.resize(square, (width, height), interpolation=cv2.INTER_LINEAR)
    return maps


class Resize(NamedTuple):
    """A way from a picture to the network's square and back.

    Attributes:
        to_square: takes a picture and the side of the square.
        mask_to_square: takes a mask and the side of the square.
        from_square: takes maps over the square and the picture's (height, width).
        threshold: the probability at which the maps are cut.
    """

    to_square: Callable
    mask_to_square: Callable
    from_square: Callable
    threshold: float


RESIZES = {
    "letterbox": Resize(letterbox, letterbox_mask, unletterbox, 0.35),
    "stretch": Resize(stretch, stretch_mask, unstretch, 0.5),
}
"""As released, and as in the paper."""
