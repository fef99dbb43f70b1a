"""Windows of the Swin transformer, written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from unilseg_jax.ops.windows import join, partition, relative_position_index, shift_mask


def test_partition_cuts_row_by_row():
    maps = jnp.arange(2 * 4 * 6).reshape(2, 4, 6, 1).astype(jnp.float32)
    windows = partition(maps, 2)
    assert windows.shape == (12, 4, 1)
    wanted = [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11], [12, 13, 18, 19], [14, 15, 20, 21], [16, 17, 22, 23]]
    np.testing.assert_array_equal(windows[:6, :, 0], wanted)
    np.testing.assert_array_equal(windows[6:, :, 0], np.array(wanted) + 24)


@pytest.mark.parametrize(("height", "width", "window"), [(4, 6, 2), (6, 3, 3), (7, 21, 7)])
def test_join_undoes_partition(height, width, window):
    maps = jnp.asarray(np.random.default_rng(0).standard_normal((2, height, width, 3)), jnp.float32)
    np.testing.assert_array_equal(join(partition(maps, window), window, height, width), maps)


def test_shift_mask_of_a_4x4_map():
    yes, no = True, False
    everything = [[yes] * 4] * 4
    # Two halves that come from opposite borders: left and right columns, upper and lower rows, all four.
    columns = [[yes, no, yes, no], [no, yes, no, yes], [yes, no, yes, no], [no, yes, no, yes]]
    rows = [[yes, yes, no, no], [yes, yes, no, no], [no, no, yes, yes], [no, no, yes, yes]]
    corner = [[yes, no, no, no], [no, yes, no, no], [no, no, yes, no], [no, no, no, yes]]
    np.testing.assert_array_equal(shift_mask(4, 4, 2, 1), [everything, columns, rows, corner])


def test_shift_mask_keeps_the_order_of_rows_and_columns():
    masks = shift_mask(2, 6, 2, 1)
    assert masks.shape == (3, 4, 4)
    rows = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool)
    np.testing.assert_array_equal(masks, [rows, rows, np.eye(4, dtype=bool)])


@pytest.mark.parametrize(("height", "width"), [(7, 7), (14, 21), (28, 7)])
def test_cells_see_each_other_only_if_they_were_near_before_the_roll(height, width):
    window, shift = 7, 3
    masks = shift_mask(height, width, window, shift)
    original = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1)
    rolled = np.roll(original, (-shift, -shift), axis=(0, 1)).astype(np.float32)
    cells = np.asarray(partition(jnp.asarray(rolled)[None], window))
    near = (np.abs(cells[:, :, None] - cells[:, None]) < window).all(-1)
    # In a map of one window's side, cells of opposite borders are near as well; there the border itself counts.
    crossed = ((cells[:, :, None] < shift) != (cells[:, None] < shift)).any(-1) & (masks.shape[0] == 1)
    if height > window and width > window:
        np.testing.assert_array_equal(masks, near)
    elif masks.shape[0] == 1:
        np.testing.assert_array_equal(masks, ~crossed)
    assert masks.diagonal(axis1=1, axis2=2).all()


def test_relative_position_index_of_a_window_of_2():
    wanted = [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    np.testing.assert_array_equal(relative_position_index(2), wanted)


@pytest.mark.parametrize("window", [3, 7, 12])
def test_relative_position_index_depends_on_the_offset_alone(window):
    index = relative_position_index(window).reshape((window,) * 4)
    assert set(index.ravel()) == set(range((2 * window - 1) ** 2))
    np.testing.assert_array_equal(index[1:, 1:, 1:, 1:], index[:-1, :-1, :-1, :-1])
    assert index[1, 0, 0, 0] - index[0, 0, 0, 0] == 2 * window - 1  # a row further down
    assert index[0, 1, 0, 0] - index[0, 0, 0, 0] == 1  # a column further right
