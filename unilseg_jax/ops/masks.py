"""Masks as polygons, as COCO run lengths and as arrays.

Differs: none. Run lengths are COCO's: columns first, the first run counts zeros.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8
from pycocotools import mask as coco_mask

from unilseg_jax.errors import UserError

# A coordinate further out than this is a broken annotation; rasterising it takes memory per pixel of edge.
MAX_COORDINATE = 1e5


def check_polygon(polygon: object) -> None:
    """Checks one polygon of a COCO annotation.

    Args:
        polygon: what the annotation gives; wanted is `[x0, y0, x1, y1, ...]` in pixels.

    Raises:
        UserError: it is not a flat list of finite numbers, of even length, with at least 3 points.
    """
    if not isinstance(polygon, Sequence) or isinstance(polygon, str | bytes):
        raise UserError(f"a polygon is a {type(polygon).__name__}, a flat list of numbers is wanted")
    # False for NaN, and exact for whole numbers that are too large to be made a float.
    if not all(isinstance(v, int | float) and abs(v) <= MAX_COORDINATE for v in polygon):
        raise UserError("a polygon has a coordinate that is no finite number of pixels")
    if len(polygon) % 2:
        raise UserError(f"a polygon has {len(polygon)} numbers, an even count (x and y) is wanted")
    if len(polygon) < 6:
        raise UserError(f"a polygon has {len(polygon) // 2} points, at least 3 are wanted")


def polygons_to_mask(polygons: Sequence, height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    """Rasterises the union of polygons as COCO does: 1 where any polygon covers the pixel.

    Args:
        polygons: flat lists `[x0, y0, x1, y1, ...]` in pixels.
        height: of the mask, in pixels.
        width: of the mask, in pixels.

    Raises:
        UserError: there is no polygon, or one of them is malformed (`check_polygon`).
    """
    if not polygons:
        raise UserError("there is no polygon, at least one is wanted")
    for polygon in polygons:
        check_polygon(polygon)
    # One at a time: a list whose first polygon has 4 numbers would be read as boxes.
    parts = [coco_mask.frPyObjects([list(polygon)], height, width)[0] for polygon in polygons]
    return rle_to_mask(coco_mask.merge(parts)["counts"], height, width)


def mask_to_rle(mask: UInt8[np.ndarray, "h w"]) -> bytes:
    """Returns the compressed COCO run lengths (the `counts` string) of a {0, 1} mask."""
    return coco_mask.encode(np.asfortranarray(mask))["counts"]


def rle_runs(counts: bytes) -> Int64[np.ndarray, " runs"]:
    """Expands the compressed `counts` string into run lengths in pixels: zeros, ones, zeros, ...

    Raises:
        UserError: the string is not COCO's, or is cut short.
    """
    symbols = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not symbols.size or symbols.min() < 0 or symbols.max() > 63:
        raise UserError("the run lengths are not a compressed COCO string")
    # A number is 5 bits per symbol, the lowest first; bit 6: more follow; bit 5 of the last: the sign.
    last = (symbols & 32) == 0
    ends = np.flatnonzero(last)
    if not last[-1]:
        raise UserError("the run lengths are cut short")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 8:
        raise UserError("the run lengths are not a compressed COCO string")
    position = np.arange(symbols.size) - np.repeat(starts, lengths)
    runs = np.add.reduceat((symbols & 31) << (5 * position), starts)
    runs -= np.where(symbols[ends] & 16, np.int64(1) << (5 * lengths), 0)
    # From the fourth on, a number is the difference to the one two before it.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def runs_to_mask(runs: Int64[np.ndarray, " runs"] | Sequence, height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    """Draws run lengths; the array lies in memory as they do, columns first.

    Args:
        runs: zeros, ones, zeros, ... in pixels, columns first.
        height: of the mask, in pixels.
        width: of the mask, in pixels.

    Raises:
        UserError: a run is negative or no whole number, or they do not add up to height × width.
    """
    if not isinstance(runs, np.ndarray) and not all(isinstance(run, int) for run in runs):
        raise UserError("the run lengths hold something that is no whole number")
    try:
        runs = np.asarray(runs, np.int64)
    except OverflowError:
        raise UserError(f"a run length is larger than {height} × {width} pixels by far") from None
    if runs.size == 0 or runs.min() < 0 or runs.max() > height * width or runs.sum() != height * width:
        wanted = f"{height * width} ({height} × {width}) are wanted"
        raise UserError(f"the run lengths cover {int(runs.sum())} pixels, {wanted}")
    values = np.zeros(runs.size, np.uint8)
    values[1::2] = 1
    return np.repeat(values, runs).reshape(width, height).T


def rle_to_mask(counts: bytes, height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    """Decodes compressed COCO run lengths into a {0, 1} mask, which lies in memory columns first.

    pycocotools' own decoder is not used: run lengths that are too short leave its array uninitialised.

    Args:
        counts: the compressed string.
        height: of the mask, in pixels.
        width: of the mask, in pixels.

    Raises:
        UserError: the string is malformed or belongs to a mask of another size.
    """
    return runs_to_mask(rle_runs(counts), height, width)


def segmentation_to_mask(segmentation: object, height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    """Reads the `segmentation` of a COCO annotation: polygons, or run lengths (plain or compressed).

    Args:
        segmentation: as it stands in the JSON file.
        height: of the picture, in pixels.
        width: of the picture, in pixels.

    Raises:
        UserError: it is none of these, malformed, or of another size than the picture.
    """
    if isinstance(segmentation, list):
        return polygons_to_mask(segmentation, height, width)
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise UserError(f"a segmentation is {type(segmentation).__name__}, polygons or run lengths are wanted")
    size = segmentation.get("size")
    if size != [height, width]:
        raise UserError(f"the run lengths are of a mask of {size}, [{height}, {width}] is wanted")
    counts = segmentation["counts"]
    if isinstance(counts, str):
        counts = counts.encode("latin1", "replace")
    if isinstance(counts, bytes):
        return rle_to_mask(counts, height, width)
    if not isinstance(counts, list):
        raise UserError(f"run lengths are a {type(counts).__name__}, a list or a string is wanted")
    return runs_to_mask(counts, height, width)


def mask_box(mask: UInt8[np.ndarray, "h w"]) -> tuple[float, float, float, float]:
    """Returns the smallest box `(x, y, width, height)` in pixels around a mask; zeros if it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return (0.0, 0.0, 0.0, 0.0)
    x, y = int(columns[0]), int(rows[0])
    return (float(x), float(y), float(columns[-1] + 1 - x), float(rows[-1] + 1 - y))
