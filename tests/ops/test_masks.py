"""Polygons and run lengths against masks written out, and against pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from unilseg_jax.errors import UserError
from unilseg_jax.ops import masks


def test_polygon_union_stays_one_where_two_polygons_overlap():
    left, right = [0, 0, 3, 0, 3, 2, 0, 2], [2, 0, 5, 0, 5, 2, 2, 2]
    mask = masks.polygons_to_mask([left, right], 3, 6)
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 0], [0] * 6]


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
def test_run_lengths_agree_with_pycocotools(density):
    rng = np.random.default_rng(0)
    for height, width in [(1, 1), (7, 5), (480, 640), (3, 2000)]:
        mask = (rng.random((height, width)) < density).astype(np.uint8)
        counts = masks.mask_to_rle(mask)
        decoded = masks.rle_to_mask(counts, height, width)
        np.testing.assert_array_equal(decoded, mask)
        theirs = coco_mask.decode({"size": [height, width], "counts": counts})
        np.testing.assert_array_equal(decoded, theirs)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda counts: counts[:-2],
        lambda counts: counts + b"P0",
        lambda counts: counts[:-1] + b"o",
        lambda counts: b"",
        lambda counts: b"\xff\xff",
        lambda counts: b"o" * 40,
        lambda counts: b"0" + counts[:0],
    ],
)
def test_run_lengths_of_the_wrong_length_are_refused(spoil):
    mask = np.zeros((40, 50), np.uint8)
    mask[5:30, 7:33] = 1
    with pytest.raises(UserError, match="run lengths"):
        masks.rle_to_mask(spoil(masks.mask_to_rle(mask)), 40, 50)


def test_plain_run_lengths_are_columns_first_and_begin_with_zeros():
    mask = masks.segmentation_to_mask({"size": [2, 3], "counts": [1, 2, 3]}, 2, 3)
    assert mask.tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "no polygon"),
        ([[1, 1, 5, 5]], "2 points"),
        ([[0, 0, 4, 0, 4]], "5 numbers"),
        ([[0, 0, 4, 0, 4, float("nan")]], "finite"),
        ([[0, 0, 4, 0, 4, 1e12]], "finite"),
        ([[0, 0, 4, 0, "4", 4]], "finite"),
        ([3], "int"),
        ({"size": [2, 2], "counts": [4]}, r"\[2, 2\]"),
        ({"size": [3, 4], "counts": [4, -1, 9]}, "run lengths"),
        ({"size": [3, 4], "counts": [4, 1.5]}, "whole number"),
        ({"size": [3, 4], "counts": None}, "NoneType"),
        (None, "NoneType"),
    ],
)
def test_malformed_segmentation_is_refused(segmentation, message):
    with pytest.raises(UserError, match=message):
        masks.segmentation_to_mask(segmentation, 3, 4)


def test_mask_box_is_tight():
    mask = np.zeros((6, 9), np.uint8)
    mask[2:4, 3:8] = 1
    assert masks.mask_box(mask) == (3.0, 2.0, 5.0, 2.0)
    assert masks.mask_box(mask * 0) == (0.0, 0.0, 0.0, 0.0)
