"""Letterbox and stretch by properties that can be seen by hand; parity is in tests/parity."""

import itertools

import cv2
import jax
import numpy as np
import pytest

from unilseg_jax.ops.geometry import (
    PIXEL_MEAN,
    PIXEL_STD,
    letterbox,
    letterbox_cells,
    letterbox_mask,
    letterbox_scale,
    normalise,
    stretch,
    stretch_cells,
    stretch_mask,
    unletterbox,
    unstretch,
)

SIZES = [(40, 60), (60, 40), (50, 50), (200, 310), (1, 1), (3, 400)]


def block(height, width):
    """A mask whose middle third is 1."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 3 : height - height // 3, width // 3 : width - width // 3] = 1
    return mask


def test_normalise_by_hand():
    image = np.zeros((2, 2, 3), np.uint8)
    image[1, 1] = 255
    out = normalise(image)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out[0, 0], -np.array(PIXEL_MEAN) / PIXEL_STD, rtol=1e-6)
    np.testing.assert_allclose(out[1, 1], (1 - np.array(PIXEL_MEAN)) / PIXEL_STD, rtol=1e-6)


def test_normalise_is_the_same_inside_jit():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    np.testing.assert_allclose(jax.jit(normalise)(images), normalise(images), atol=1e-6)


def test_letterbox_scale_by_hand():
    assert letterbox_scale(20, 40, 80) == (2.0, 0.0, 20.0)
    assert letterbox_scale(40, 20, 80) == (2.0, 20.0, 0.0)


@pytest.mark.parametrize("size", SIZES)
def test_pictures_become_squares_and_maps_get_the_pictures_size(size):
    image = np.full((*size, 3), 7, np.uint8)
    probs = np.full((2, 64, 64), 0.5, np.float32)
    for there, back in ((letterbox, unletterbox), (stretch, unstretch)):
        assert there(image, 64).shape == (64, 64, 3)
        assert back(probs, size).shape == (2, *size)


def test_the_margin_has_the_mean_colour_and_no_mask():
    mean = np.round(255 * np.array(PIXEL_MEAN))
    square = letterbox(np.full((20, 40, 3), 200, np.uint8), 80)
    np.testing.assert_array_equal(square[:15], np.broadcast_to(mean, (15, 80, 3)))
    np.testing.assert_array_equal(square[25:55, 5:75], 200)
    mask = letterbox_mask(np.ones((20, 40), np.uint8), 80)
    assert not mask[:18].any()
    assert mask[25:55, :79].all()


@pytest.mark.parametrize("order", ["C", "F"])
def test_masks_are_sampled_where_opencv_samples(order):
    rng = np.random.default_rng(0)
    sizes = [(23, 32), (271, 1109), (1, 1), (3, 400), *rng.integers(1, 700, (40, 2)).tolist()]
    for (height, width), side in itertools.product(sizes, (96, 37)):
        mask = np.array(rng.integers(0, 2, (height, width), dtype=np.uint8), order=order)
        scale, left, top = letterbox_scale(height, width, side)
        matrix = np.array([[scale, 0, left], [0, scale, top]])
        warped = cv2.warpAffine(np.ascontiguousarray(mask), matrix, (side, side), flags=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(letterbox_mask(mask, side), warped)
        resized = cv2.resize(np.ascontiguousarray(mask), (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
        np.testing.assert_array_equal(stretch_mask(mask, side), resized)


@pytest.mark.parametrize(
    ("there", "back"),
    [(letterbox_mask, unletterbox), (stretch_mask, unstretch)],
    ids=["letterbox", "stretch"],
)
@pytest.mark.parametrize("size", [(90, 150), (150, 90), (200, 310)])
def test_a_mask_survives_the_way_there_and_back(there, back, size):
    mask = block(*size)
    square = there(mask, 96)
    assert set(np.unique(square)) == {0, 1}
    again = back(square[None].astype(np.float32), size)[0] > 0.5
    iou = (again & (mask == 1)).sum() / (again | (mask == 1)).sum()
    # One cell of the square is up to 3.2 pixels of the picture, and a letterbox shifts by half a cell.
    assert iou > 0.9


@pytest.mark.parametrize(
    ("picture_to_square", "mask_to_square"), [(letterbox, letterbox_mask), (stretch, stretch_mask)]
)
@pytest.mark.parametrize("size", [(90, 150), (31, 20)])
def test_masks_stay_aligned_with_their_pictures(picture_to_square, mask_to_square, size):
    mask = block(*size)
    picture = np.repeat(255 * mask[..., None], 3, axis=2)
    square, square_mask = picture_to_square(picture, 96), mask_to_square(mask, 96)
    # Blue, since its margin of 104 stays below the cut also where the bicubic filter overshoots.
    assert np.mean((square[..., 2] > 128) == (square_mask == 1)) > 0.985


def test_letterboxed_cells_are_where_the_picture_is_sampled():
    # A picture of 40 x 20 px fills the rows of a square of 80 px and columns 20 to 60; 21 cells lie 3.95 px apart.
    rows, columns = letterbox_cells((40, 20), 80, (21, 21))
    np.testing.assert_allclose(rows, np.arange(40) * 2 * 20 / 79)
    np.testing.assert_allclose(columns, (20 + np.arange(20) * 2) * 20 / 79)
    # Shrunk, the last row lies at 19.5 of 19: half a pixel beyond, held at the edge.
    rows, _ = letterbox_cells((40, 20), 20, (6, 6))
    np.testing.assert_allclose(rows[[0, -2, -1]], [0, 19 * 5 / 19, 5])


def test_stretched_cells_have_half_pixel_centres():
    rows, columns = stretch_cells((8, 2), 480, (4, 4))
    np.testing.assert_allclose(rows, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    np.testing.assert_allclose(columns, [0.5, 2.5])


@pytest.mark.parametrize("size", [(30, 50), (90, 41), (7, 7)], ids=str)
def test_letterboxed_cells_are_where_unletterbox_samples(size):
    ramp = np.arange(64, dtype=np.float32)
    square = np.stack([np.broadcast_to(ramp[:, None], (64, 64)), np.broadcast_to(ramp, (64, 64))])
    sampled = unletterbox(np.ascontiguousarray(square), size)
    for maps, axis, cells in zip(
        (sampled[0][:, size[1] // 2], sampled[1][size[0] // 2]), (0, 1), (17, 16), strict=True
    ):
        wanted = letterbox_cells(size, 64, (17, 16))[axis] * 63 / (cells - 1)
        # OpenCV's bicubic kernel bends a ramp by up to 0.0481 of a step; at the edges it sees zeros. OpenCV 4 rounds
        # positions to 1/32 of a pixel as well.
        rounded = 1 / 64 if int(cv2.__version__.split(".")[0]) < 5 else 0
        np.testing.assert_allclose(maps[3:-3], wanted[3:-3], atol=0.049 + rounded)
