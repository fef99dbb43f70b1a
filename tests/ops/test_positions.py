"""Sine positions, against numbers worked out by hand and against the formula term by term."""

import math

import numpy as np
import pytest

from unilseg_jax.ops.positions import sine_positions_1d, sine_positions_2d

TURN = 2 * math.pi


def feature(coordinate, j, features):
    """Returns feature `j` of a coordinate in radians, as the formula says it."""
    angle = coordinate / 10000 ** (2 * (j // 2) / features)
    return math.sin(angle) if j % 2 == 0 else math.cos(angle)


def test_words_by_hand():
    # A quarter, a half, three quarters and a whole turn; the second pair of features turns 100 times slower.
    slow = [0.25 * TURN / 100, 0.5 * TURN / 100, 0.75 * TURN / 100, TURN / 100]
    wanted = [[s, c, math.sin(a), math.cos(a)] for s, c, a in zip([1, 0, -1, 0], [0, -1, 0, 1], slow, strict=True)]
    np.testing.assert_allclose(sine_positions_1d(4, 4), wanted, atol=2e-6)


def test_cells_by_hand():
    # Cell centres: rows at a quarter and three quarters of a turn, the only column at a half.
    np.testing.assert_allclose(sine_positions_2d(2, 1, 4), [[1, 0, 0, -1], [-1, 0, 0, -1]], atol=4e-6)


@pytest.mark.parametrize(("length", "channels"), [(17, 64), (5, 12)])
def test_words_by_the_formula(length, channels):
    wanted = [[feature(k / (length + 1e-6) * TURN, j, channels) for j in range(channels)] for k in range(1, length + 1)]
    np.testing.assert_allclose(sine_positions_1d(length, channels), wanted, atol=1e-7)


@pytest.mark.parametrize(("height", "width", "channels"), [(3, 5, 16), (1, 4, 8), (2, 2, 12)])
def test_cells_by_the_formula(height, width, channels):
    half = channels // 2
    found = sine_positions_2d(height, width, channels)
    assert found.shape == (height * width, channels)
    assert found.dtype == np.float32
    for row in range(height):
        for column in range(width):
            y = (row + 0.5) / (height + 1e-6) * TURN
            x = (column + 0.5) / (width + 1e-6) * TURN
            wanted = [feature(y, j, half) for j in range(half)] + [feature(x, j, half) for j in range(half)]
            np.testing.assert_allclose(found[row * width + column], wanted, atol=1e-7)
