"""Sizes of the levels and of the shrunk token grids."""

import pytest

from unilseg_jax.shapes import MIN_SIDE, level_sizes, shrunk_size


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((480, 480), ((120, 120), (60, 60), (30, 30), (15, 15))),
        ((96, 160), ((24, 40), (12, 20), (6, 10), (3, 5))),
        ((103, 138), ((26, 35), (13, 18), (7, 9), (4, 5))),
        ((29, 33), ((8, 9), (4, 5), (2, 3), (1, 2))),
    ],
    ids=str,
)
def test_levels_round_up(size, wanted):
    assert level_sizes(*size) == wanted


def test_each_level_is_half_of_the_one_before_rounded_up():
    for side in range(MIN_SIDE, 700):
        rows = [size[0] for size in level_sizes(side, 64)]
        assert rows == [-(-side // 4), -(-rows[0] // 2), -(-rows[1] // 2), -(-rows[2] // 2)]


@pytest.mark.parametrize("size", [(28, 480), (480, 28), (1, 1), (0, 64)], ids=str)
def test_too_small_a_picture_is_refused(size):
    with pytest.raises(ValueError, match=rf"{size[0]} x {size[1]} px is too small.*at least 29 px"):
        level_sizes(*size)


def test_the_shrunk_grids_round_down():
    grids = [shrunk_size((26, 35), 1), shrunk_size((13, 18), 2), shrunk_size((7, 9), 3), shrunk_size((4, 5), 4)]
    assert grids == [(3, 4), (3, 4), (3, 4), (4, 5)]


def test_the_least_side_is_the_least_with_no_empty_grid():
    for side in range(MIN_SIDE, 300):
        for level, size in enumerate(level_sizes(side, side), start=1):
            assert min(shrunk_size(size, level)) >= 1
    assert shrunk_size((-(-(MIN_SIDE - 1) // 4),) * 2, 1) == (0, 0)
