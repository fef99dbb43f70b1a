"""Regions painted over pictures."""

import numpy as np
import pytest

from unilseg_jax.evaluation.pictures import FOUND, HIT, MISSED, SURPLUS, errors, paint, shrink, spotlight


@pytest.mark.parametrize(
    ("size", "enlarge", "expected"),
    [
        ((100, 50), False, (40, 20)),
        ((50, 100), True, (20, 40)),
        ((20, 10), False, (20, 10)),
        ((20, 10), True, (40, 20)),
        ((40, 40), False, (40, 40)),
        ((1000, 1), False, (40, 1)),
    ],
)
def test_the_longer_side_is_brought_to_size(size, enlarge, expected):
    assert shrink(np.zeros((*size, 3), np.uint8), 40, enlarge).shape == (*expected, 3)
    assert shrink(np.zeros(size, np.uint8), 40, enlarge).shape == expected
    mask = np.ones(size, bool)
    assert paint(np.zeros((*size, 3), np.uint8), [(mask, HIT)], 40, enlarge=enlarge).shape == (*expected, 3)
    assert spotlight(np.zeros((*size, 3), np.uint8), mask, 40, enlarge).shape == (*expected, 3)


def test_each_pixel_is_right_missed_surplus_or_none():
    prediction, target = np.array([[True, True], [False, False]]), np.array([[True, False], [True, False]])
    found = {colour: region.tolist() for region, colour in errors(prediction, target)}
    assert found == {
        HIT: [[True, False], [False, False]],
        SURPLUS: [[False, True], [False, False]],
        MISSED: [[False, False], [True, False]],
    }


def test_a_line_that_is_thinner_than_a_pixel_is_still_seen():
    mask = np.zeros((400, 400), bool)
    mask[:, 202] = True
    painted = paint(np.zeros((400, 400, 3), np.uint8), [(mask, HIT)], 40).astype(int)
    assert np.abs(painted[:, 20] - 0.055 * np.array(HIT)).max() <= 1
    assert painted[:, :20].max() == painted[:, 21:].max() == 0


def test_a_grey_picture_keeps_no_colour_but_the_regions():
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0] = 255
    mask = np.zeros((4, 4), bool)
    mask[0] = True
    painted = paint(image, [(mask, MISSED)], 4, grey=True).astype(int)
    assert len(np.unique(painted[1:])) == 1
    assert np.abs(painted[0] - (0.45 * painted[1] + 0.55 * np.array(MISSED))).max() <= 1


def test_a_spotlight_dims_all_but_the_mask_and_lines_it():
    image = np.full((20, 20, 3), 100, np.uint8)
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    shown = spotlight(image, mask, 20)
    assert (shown[6:14, 6:14] == 100).all()
    assert (shown[5, 5:15] == FOUND).all()
    assert (shown[:5] == 40).all()
    assert (spotlight(image, np.zeros((20, 20), bool), 20) == 40).all()
    assert (image == 100).all()
