"""Vision path: from the coarsest level to the finest, with and without the multi-modal blocks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compile import quick_jit
from tiny_model import HEIGHT, TINY, WIDTH, random_array, random_variables

from unilseg_jax.models.architecture import Architecture
from unilseg_jax.models.vision_path import VisionPath
from unilseg_jax.shapes import level_sizes

PYRAMID = dataclasses.replace(TINY, vision_path=False)


def inputs_of(sizes, height, width, images=2, prompts=3, shared=False):
    """Returns maps, words and where words are."""
    lead = (images, 1 if shared else prompts)
    maps = [
        random_array((*lead, *size, channels), level)
        for level, (size, channels) in enumerate(zip(level_sizes(height, width), sizes.level_widths, strict=True))
    ]
    words = random_array((images, prompts, sizes.word_len, sizes.text_width), 9)
    lengths = 1 + jnp.arange(images * prompts).reshape(images, prompts, 1) % (sizes.word_len - 1)
    return maps, words, jnp.arange(sizes.word_len)[None, None] < lengths


@pytest.mark.parametrize("size", [(29, 29), (103, 138)], ids=str)
@pytest.mark.parametrize("sizes", [TINY, PYRAMID], ids=["blocks", "pyramid"])
def test_shapes(size, sizes):
    shared = not sizes.vision_path
    inputs = inputs_of(sizes, *size, shared=shared)
    model = VisionPath(sizes)
    (mask_features, levels), _ = jax.eval_shape(model.init_with_output, jax.random.key(0), *inputs)
    lead = (2, 1 if shared else 3)
    assert mask_features.shape == (*lead, *level_sizes(*size)[0], 16)
    assert [x.shape for x in levels] == [(*lead, *cells, 64) for cells in level_sizes(*size)]


def test_the_released_size():
    sizes = Architecture()
    maps = [jax.ShapeDtypeStruct((1, 1, 120 >> i, 120 >> i, 128 << i), jnp.bfloat16) for i in range(4)]
    words = jax.ShapeDtypeStruct((1, 2, 17, 512), jnp.bfloat16)
    is_word = jax.ShapeDtypeStruct((1, 2, 17), jnp.bool_)
    model = VisionPath(sizes, jnp.bfloat16)
    (mask_features, levels), variables = jax.eval_shape(model.init_with_output, jax.random.key(0), maps, words, is_word)
    assert mask_features.shape == (1, 2, 120, 120, 256)
    assert mask_features.dtype == jnp.bfloat16
    assert [x.shape for x in levels] == [(1, 2, 120 >> i, 120 >> i, 512) for i in range(4)]
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}


@pytest.fixture(scope="module")
def decode():
    """The compiled model with blocks and its inputs."""
    inputs = inputs_of(TINY, HEIGHT, WIDTH, images=1, prompts=2)
    variables = random_variables(VisionPath(TINY), *inputs)
    compiled = quick_jit(VisionPath(TINY).apply)
    return lambda *inputs: compiled(variables, *inputs), inputs


def changes(found, wanted):
    """Returns, per level, by how much it changed."""
    return [float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(found, wanted, strict=True)]


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_level_reaches_itself_and_the_finer_ones(decode, level):
    run, (maps, words, is_word) = decode
    features, levels = run(maps, words, is_word)
    moved = [x + random_array(x.shape, 5) if index == level - 1 else x for index, x in enumerate(maps)]
    new_features, new_levels = run(moved, words, is_word)
    changed = changes(new_levels, levels)
    assert min(changed[:level]) > 1e-3
    assert changed[level:] == [0.0] * (4 - level)
    assert np.abs(new_features - features).max() > 1e-3


def test_words_count_and_padding_does_not(decode):
    run, (maps, words, is_word) = decode
    features, levels = run(maps, words, is_word)
    noisy, noisy_levels = run(maps, jnp.where(is_word[..., None], words, 50.0), is_word)
    np.testing.assert_array_equal(noisy, features)
    assert changes(noisy_levels, levels) == [0.0] * 4
    other, other_levels = run(maps, jnp.where(is_word[..., None], -words, words), is_word)
    assert np.abs(other - features).max() > 1e-3
    assert min(changes(other_levels, levels)) > 1e-3


def test_prompts_do_not_mix(decode):
    run, (maps, words, is_word) = decode
    features, _ = run(maps, words, is_word)
    other, _ = run(maps, words.at[:, 1].multiply(-1), is_word)
    np.testing.assert_array_equal(other[:, 0], features[:, 0])
    assert np.abs(other[:, 1] - features[:, 1]).max() > 1e-3


def test_far_cells_hear_of_each_other_only_through_the_blocks(decode):
    # Level 1's 8 x 10 cells are shrunk to one token, which is read at their middle, rows 3 and 4, columns 4 and 5.
    run, (maps, words, is_word) = decode
    pyramid_inputs = inputs_of(PYRAMID, HEIGHT, WIDTH, images=1, prompts=2)
    pyramid = VisionPath(PYRAMID)
    variables = random_variables(pyramid, *pyramid_inputs)
    plain = quick_jit(pyramid.apply)
    moved = [maps[0].at[:, :, 3, 4].add(2.0), *maps[1:]]
    far = (0, 0, -1, -1)
    with_blocks = run(moved, words, is_word)[1][0][far] - run(maps, words, is_word)[1][0][far]
    without = plain(variables, moved, words, is_word)[1][0][far] - plain(variables, maps, words, is_word)[1][0][far]
    assert np.abs(with_blocks).max() > 1e-6
    assert np.abs(without).max() == 0.0
