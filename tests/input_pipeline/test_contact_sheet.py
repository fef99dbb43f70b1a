"""What a contact sheet shows, by pixels that can be told beforehand."""

import numpy as np
import pytest

from unilseg_jax.input_pipeline.contact_sheet import GREY, LINES, TILE, draw_record, spread
from unilseg_jax.input_pipeline.triplet import NOTHING, UNKNOWN, Triplet
from unilseg_jax.ops.overlay import colour_of


def triplet(masks, phrases, mask_index, size=(200, TILE)):
    return Triplet(
        image_id="picture",
        image=np.full((*size, 3), 100, np.uint8),
        masks=np.asarray(masks, np.uint8).reshape(-1, *size),
        phrases=tuple(phrases),
        mask_index=tuple(mask_index),
        kinds=("category",) * len(phrases),
    )


def box(top, bottom, left, right, size=(200, TILE)):
    mask = np.zeros(size, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def has_colour(pixels, colour):
    return bool((pixels.reshape(-1, 3) == colour).all(1).any())


def tinted(colour):
    return (100 + np.array(colour)) / 2


def test_a_smaller_mask_lies_on_a_larger_one_and_both_have_their_phrase():
    part, whole = box(80, 120, 150, 250), box(20, 180, 50, 350)
    sheet = draw_record(triplet([part, whole], ["the part", "the whole"], [0, 1]), ["", ""])
    # The whole is drawn first and so has the first colour; the part's tint covers it.
    np.testing.assert_allclose(sheet[50, 100], tinted(colour_of(0)), atol=1)
    np.testing.assert_allclose(sheet[100, 200], (tinted(colour_of(0)) + colour_of(1)) / 2, atol=1)
    np.testing.assert_array_equal(sheet[10, 10], 100)
    # In the legend the phrases keep their order.
    rows = [np.flatnonzero((sheet[200:] == colour_of(place)).all(2).any(1))[0] for place in (1, 0)]
    assert rows[0] < rows[1]


@pytest.mark.parametrize("mask_index", [NOTHING, UNKNOWN])
def test_a_phrase_without_a_mask_is_grey(mask_index):
    legend = draw_record(triplet([box(0, 50, 0, 50)], ["a", "b"], [0, mask_index]), [""])[200:]
    assert has_colour(legend, GREY)
    assert has_colour(legend, colour_of(0))
    assert not has_colour(draw_record(triplet([box(0, 50, 0, 50)], ["a"], [0]), [""])[200:], GREY)


def test_a_mask_without_a_phrase_is_listed():
    with_name = draw_record(triplet([box(0, 50, 0, 50)], [], []), ["dog"])[200:]
    assert has_colour(with_name, colour_of(0))


def test_a_picture_without_masks_and_phrases_is_drawn():
    sheet = draw_record(triplet([], [], []), [])
    assert (sheet[:200] == 100).all()
    assert (sheet[200:] == 0).any()


def test_a_long_list_of_phrases_is_cut_and_every_mask_comes_first():
    masks = [box(0, 150 - 10 * number, 0, 40) for number in range(5)]
    phrases = [f"phrase {number}" for number in range(40)]
    sheet = draw_record(triplet(masks, phrases, sorted(list(range(5)) * 8)), [""] * 5)
    assert all(has_colour(sheet[200:], colour_of(place)) for place in range(5))
    short = draw_record(triplet(masks[:1], phrases[:LINES], [0] * LINES), [""])
    assert sheet.shape == short.shape


@pytest.mark.parametrize("size", [(1, 1), (2000, 30), (30, 2000), (640, 480)])
def test_every_size_gives_a_tile_of_one_width(size):
    sheet = draw_record(triplet([np.ones(size)], ["all"], [0], size), [""])
    assert sheet.shape[1] == TILE
    assert has_colour(sheet[:TILE], colour_of(0))


@pytest.mark.parametrize(
    ("length", "count", "wanted"),
    [(3, 8, [0, 1, 2]), (10, 2, [2, 7]), (9, 3, [1, 4, 7]), (5, 1, [2])],
)
def test_pictures_are_spread_over_the_split(length, count, wanted):
    assert spread(length, count) == wanted
