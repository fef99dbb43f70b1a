"""What an overlay shows, by pixels that can be told beforehand."""

import numpy as np
import pytest

from unilseg_jax.ops.overlay import colour_of, draw_overlay, legend, tint


def test_masks_are_tinted_and_the_rest_is_left_alone():
    image = np.full((40, 40, 3), 100, np.uint8)
    masks = np.zeros((2, 40, 40), bool)
    masks[0, 5:20, 5:20] = True
    out = tint(image, masks)
    np.testing.assert_array_equal(out[30:], 100)
    np.testing.assert_allclose(out[12, 12], (100 + np.array(colour_of(0))) / 2, atol=1)
    np.testing.assert_array_equal(out[5, 12], colour_of(0))
    assert (image == 100).all()


def test_colours_differ():
    assert len({colour_of(prompt) for prompt in range(40)}) == 40


@pytest.mark.parametrize("size", [(300, 400), (40, 60), (1, 1), (2000, 50)])
def test_the_legend_lies_below_the_picture(size):
    masks = np.zeros((2, *size), bool)
    masks[0] = True
    out = draw_overlay(np.zeros((*size, 3), np.uint8), masks, ["the dog", "all sky " * 40])
    assert out.shape[1] >= 320
    assert out.shape[0] > size[0] + 2 * 14
    strip = out[-2 * 14 :].reshape(-1, 3)
    assert (strip == colour_of(1)).all(1).any()


@pytest.mark.parametrize(
    ("size", "enlarged"),
    [
        ((40, 60), (240, 360)),
        ((300, 400), (300, 400)),
        ((1279, 1), (1279, 1)),
        ((600, 10), (1200, 20)),
        ((1, 1), (320, 320)),
        ((1, 1279), (1, 1279)),
    ],
)
def test_a_picture_is_enlarged_within_limits_and_white_lies_beside_a_narrow_one(size, enlarged):
    out = draw_overlay(np.zeros((*size, 3), np.uint8), np.zeros((1, *size), bool), ["dog"])
    height, width = enlarged
    assert out.shape[1] == max(width, 320)
    assert out.shape[0] < height + 100
    assert not out[:height, :width].any()
    assert (out[:height, width:] == 255).all()


def test_letters_beyond_english_can_be_told_apart():
    """A font that lacks one draws the same box for each."""
    strips = [legend([letter], [""], 320, 14) for letter in "üéαж“"]
    assert len({strip.tobytes() for strip in strips}) == len(strips)


def test_a_note_stands_behind_the_phrase():
    seen, unseen = (legend(["dog"], [note], 320, 14) for note in ("", "nothing found"))
    assert (unseen[:, 100:] < 200).any()
    assert not (seen[:, 100:] < 200).any()


def test_a_long_phrase_stays_inside_the_strip():
    strip = legend(["word " * 100], ["none"], 320, 14)
    assert (strip[:, -3:] == 255).all()
