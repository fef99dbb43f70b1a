"""Sizes that every part agrees on: strides, levels, the least side of a picture."""

STRIDES = (4, 8, 16, 32)
SHRINK = (8, 4, 2, 1)
"""Downsampling of the tokens before self-attention in the vision path, levels 1 to 4."""
MIN_SIDE = 29
"""Pixels; below it a level's shrunk token grid would be empty."""


def level_sizes(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Returns the cells (rows, columns) of levels 1 to 4 for a picture in pixels.

    Every level halves the one before, rounding up, since the encoder pads.

    Raises:
        ValueError: a side is shorter than `MIN_SIDE`.
    """
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"a picture of {height} x {width} px is too small; both sides must be at least {MIN_SIDE} px")
    return tuple((-(-height // stride), -(-width // stride)) for stride in STRIDES)


def shrunk_size(size: tuple[int, int], level: int) -> tuple[int, int]:
    """Returns the token grid of the self-attention at `level` (1 to 4) for a map of `size` cells."""
    shrink = SHRINK[level - 1]
    return size[0] // shrink, size[1] // shrink
