"""Sine positions in one and two dimensions, normalised to a full turn."""

import functools

import numpy as np
from jaxtyping import Float32


def _encode(coordinate: np.ndarray, features: int) -> np.ndarray:
    """Sines at even, cosines at odd features of `coordinate` (radians)."""
    j = np.arange(features)
    angle = coordinate[:, None] / 10000.0 ** (2 * (j // 2) / features)
    return np.where(j % 2 == 0, np.sin(angle), np.cos(angle))


@functools.lru_cache(maxsize=64)
def sine_positions_1d(length: int, channels: int) -> Float32[np.ndarray, "l c"]:
    """Returns the positions of `length` words; the padding counts as length."""
    coordinate = np.arange(1, length + 1) / (length + 1e-6) * 2 * np.pi
    return _encode(coordinate, channels).astype(np.float32)


@functools.lru_cache(maxsize=64)
def sine_positions_2d(height: int, width: int, channels: int) -> Float32[np.ndarray, "n c"]:
    """Returns the positions of a map's cells, flattened row by row: the first half of `channels` tells the row."""
    half = channels // 2
    rows = _encode((np.arange(1, height + 1) - 0.5) / (height + 1e-6) * 2 * np.pi, half)
    columns = _encode((np.arange(1, width + 1) - 0.5) / (width + 1e-6) * 2 * np.pi, half)
    grid = np.concatenate([np.repeat(rows[:, None], width, axis=1), np.repeat(columns[None], height, axis=0)], axis=-1)
    return grid.reshape(height * width, channels).astype(np.float32)
