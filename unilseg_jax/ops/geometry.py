"""From a picture to the square network input and back.

Differs: `letterbox` is the released demo's, `stretch` is the paper's. The corners, not the centres, of the
outer pixels are mapped on one another in `letterbox`, while OpenCV samples at whole coordinates: a shift of
up to half a pixel that the released model was run with, hence kept.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Array, Float32, Float64, Int64, UInt8

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


class _Pixels(NamedTuple):
    """Which pixel of a mask is taken for each pixel of the square.

    Nearest-pixel sampling takes rows and columns apart. OpenCV is asked once per size of picture where it samples, and
    whole rows are copied from then on: a fifth of the time of its warp, the same mask.

    Attributes:
        rows: numbers of the mask's rows, for the rows of the square that `inside` names.
        columns: likewise.
        inside: rows and columns of the square that lie on the picture.
    """

    rows: Int64[np.ndarray, " r"]
    columns: Int64[np.ndarray, " c"]
    inside: tuple[slice, slice]

    @classmethod
    def of(cls, rows: Float32[np.ndarray, " size"], columns: Float32[np.ndarray, " size"]) -> "_Pixels":
        """Gathers what OpenCV sampled from a ramp along each side; -1 lies outside."""
        found = [np.flatnonzero(side >= 0) for side in (rows, columns)]
        inside = [slice(side[0], side[-1] + 1) if side.size else slice(0) for side in found]
        return cls(rows[inside[0]].astype(np.int64), columns[inside[1]].astype(np.int64), (inside[0], inside[1]))


def _pick(mask: UInt8[np.ndarray, "h w"], pixels: _Pixels, size: int) -> UInt8[np.ndarray, "{size} {size}"]:
    """Takes pixels of a mask; fast if it lies in memory columns first, as run lengths do."""
    square = np.zeros((size, size), np.uint8)
    if pixels.rows.size and pixels.columns.size:  # else the picture is thinner than a pixel of the square
        square[pixels.inside] = cv2.transpose(mask.T.take(pixels.columns, axis=0)).take(pixels.rows, axis=0)
    return square


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
    return _pick(mask, _letterbox_pixels(*mask.shape, size), size)


@functools.lru_cache(maxsize=4096)
def _letterbox_pixels(height: int, width: int, size: int) -> "_Pixels":
    scale, left, top = letterbox_scale(height, width, size)

    def sample(ramp: np.ndarray, margins: tuple[float, float], shape: tuple[int, int]) -> np.ndarray:
        matrix = np.array([[scale, 0, margins[0]], [0, scale, margins[1]]])
        return cv2.warpAffine(ramp, matrix, shape, flags=cv2.INTER_NEAREST, borderValue=-1).ravel()

    # OpenCV rounds along rows otherwise than along columns, hence each is asked its own way.
    rows = sample(np.arange(height, dtype=np.float32)[:, None], (0.0, top), (1, size))
    columns = sample(np.arange(width, dtype=np.float32)[None], (left, 0.0), (size, 1))
    return _Pixels.of(rows, columns)


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
    return _pick(mask, _stretch_pixels(*mask.shape, size), size)


@functools.lru_cache(maxsize=4096)
def _stretch_pixels(height: int, width: int, size: int) -> "_Pixels":
    def row(length: int) -> np.ndarray:
        # OpenCV's plain "nearest" takes the pixel at the cell's corner, half a cell off the picture.
        ramp = np.arange(length, dtype=np.float32)[None]
        return cv2.resize(ramp, (size, 1), interpolation=cv2.INTER_NEAREST_EXACT)[0]

    return _Pixels.of(row(height), row(width))


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


def letterbox_cells(
    original_size: tuple[int, int], size: int, cells: tuple[int, int]
) -> tuple[Float64[np.ndarray, " h"], Float64[np.ndarray, " w"]]:
    """Returns where a picture's pixels lie among the cells of a map over its letterboxed square.

    The map's corner cells lie on the square's corner pixels, as the released code upsamples
    (`ops.resize.resize_align_corners`), and the pixels where `unletterbox` samples the square. The picture fills the
    square along one side, and its last pixels lie up to half a pixel of the square beyond the last cell: they
    belong to it.

    Args:
        original_size: height and width of the picture, in pixels.
        size: side of the square, in pixels.
        cells: rows and columns of the map.

    Returns:
        Positions of the pixels' rows and columns, in cells from 0 to one less than `cells`.
    """
    scale, left, top = letterbox_scale(*original_size, size)
    rows, columns = (
        np.clip((scale * np.arange(pixels) + margin) * (many - 1) / (size - 1), 0, many - 1)
        for pixels, margin, many in zip(original_size, (top, left), cells, strict=True)
    )
    return rows, columns


def stretch_cells(
    original_size: tuple[int, int], size: int, cells: tuple[int, int]
) -> tuple[Float64[np.ndarray, " h"], Float64[np.ndarray, " w"]]:
    """Returns where a picture's pixels lie among the cells of a map over its stretched square.

    Half-pixel centres, the square skipped, as the compared methods resize logits (`align_corners=False`).

    Args:
        original_size: height and width of the picture, in pixels.
        size: side of the square, in pixels; makes no difference.
        cells: rows and columns of the map.

    Returns:
        Positions of the pixels' rows and columns, in cells from 0 to one less than `cells`.
    """
    rows, columns = (
        np.clip((np.arange(pixels) + 0.5) * many / pixels - 0.5, 0, many - 1)
        for pixels, many in zip(original_size, cells, strict=True)
    )
    return rows, columns


class Resize(NamedTuple):
    """A way from a picture to the network's square and back.

    Attributes:
        to_square: takes a picture and the side of the square.
        mask_to_square: takes a mask and the side of the square.
        from_square: takes maps over the square and the picture's (height, width).
        threshold: the probability at which the maps are cut.
        cells: takes the picture's (height, width), the side of the square, and rows and columns of a coarser map
            over it; returns where in that map the picture's rows and columns lie.
    """

    to_square: Callable
    mask_to_square: Callable
    from_square: Callable
    threshold: float
    cells: Callable


RESIZES = {
    "letterbox": Resize(letterbox, letterbox_mask, unletterbox, 0.35, letterbox_cells),
    "stretch": Resize(stretch, stretch_mask, unstretch, 0.5, stretch_cells),
}
"""As released, and as in the paper."""
