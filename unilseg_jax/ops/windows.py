"""Windows of the Swin transformer: cutting, joining, the shift's mask, relative positions (Liu et al. 2021)."""

import functools

import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int


def partition(x: Float[Array, "b h w c"], window: int) -> Float[Array, "b2 n c"]:
    """Cuts maps, whose sides are multiples of `window`, into windows of `n = window * window` cells, row by row."""
    return rearrange(x, "b (r i) (s j) c -> (b r s) (i j) c", i=window, j=window)


def join(windows: Float[Array, "b2 n c"], window: int, height: int, width: int) -> Float[Array, "b h w c"]:
    """Puts windows back together: the inverse of `partition` for maps of `height` x `width` cells."""
    rows, columns = height // window, width // window
    return rearrange(windows, "(b r s) (i j) c -> b (r i) (s j) c", r=rows, s=columns, i=window)


@functools.lru_cache(maxsize=64)
def shift_mask(height: int, width: int, window: int, shift: int) -> Bool[np.ndarray, "w n n"]:
    """Returns, per window of the rolled map, which cells may attend to each other.

    After rolling by `-shift`, the last window of each axis holds cells from opposite borders; cells of
    different regions must not see each other.

    Args:
        height: rows of the padded map, a multiple of `window`.
        width: its columns, likewise.
        window: side of a window in cells.
        shift: cells that the map was rolled by.
    """

    def region(length: int) -> np.ndarray:
        cell = np.arange(length)
        return (cell >= length - window).astype(int) + (cell >= length - shift)

    regions = 3 * region(height)[:, None] + region(width)[None, :]
    cut = rearrange(regions, "(r i) (s j) -> (r s) (i j)", i=window, j=window)
    return cut[:, :, None] == cut[:, None, :]


@functools.lru_cache(maxsize=8)
def relative_position_index(window: int) -> Int[np.ndarray, "n n"]:
    """Returns the row of the position bias table for each (query, key) pair of cells in a window."""
    row, column = np.divmod(np.arange(window * window), window)
    rows = row[:, None] - row[None, :] + window - 1
    columns = column[:, None] - column[None, :] + window - 1
    return rows * (2 * window - 1) + columns
