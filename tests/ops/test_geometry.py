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
    letterbox_mask,
    letterbox_scale,
    normalise,
    stretch,
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
