"""Pre-Fusion: each level's cells attend to the words of each prompt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compile import quick_jit
from tiny_model import numpy_attention, numpy_linear, random_array, random_variables

from unilseg_jax.models.prefusion import PreFusion
from unilseg_jax.ops.positions import sine_positions_2d

SIZES = ((5, 4), (3, 2), (2, 2), (1, 2))
LENGTHS = ((4, 2, 1), (3, 4, 2))
MODEL = PreFusion(dropout=0.5)


@pytest.fixture(scope="module")
def inputs():
    maps = [random_array((2, 1, *size, 8 * 2**level), level) for level, size in enumerate(SIZES)]
    words = random_array((2, 3, 4, 16), 9)
    return maps, words, jnp.arange(4)[None, None] < jnp.array(LENGTHS)[..., None]


@pytest.fixture(scope="module")
def params(inputs):
    return random_variables(MODEL, *inputs)["params"]


@pytest.fixture(scope="module")
def fuse(params):
    compiled = quick_jit(MODEL.apply)
    return lambda *inputs, params=params: compiled({"params": params}, *inputs)


def test_is_the_formula_for_every_level_and_prompt(inputs, params, fuse):
    maps, words, is_word = inputs
    for level, (x, found) in enumerate(zip(maps, fuse(*inputs), strict=True), start=1):
        (height, width), channels = x.shape[2:4], x.shape[4]
        assert found.shape == (2, 3, height, width, channels)
        for image in range(2):
            cells = np.asarray(x[image, 0]).reshape(-1, channels)
            for prompt in range(3):
                keys = numpy_linear(params[f"word_proj_{level}"], words[image, prompt])
                asked = cells + sine_positions_2d(height, width, channels)
                may_look = np.asarray(is_word[image, prompt])[None]
                heard = numpy_attention(params[f"attention_{level}"], asked, keys, keys, may_look, 8)
                wanted = (cells + heard).reshape(height, width, channels)
                np.testing.assert_allclose(found[image, prompt], wanted, atol=1e-5)


def test_what_the_words_say_is_added(inputs, params, fuse):
    silent = {
        name: {**part, "out": jax.tree.map(jnp.zeros_like, part["out"])} if name.startswith("attention") else part
        for name, part in params.items()
    }
    for x, found in zip(inputs[0], fuse(*inputs, params=silent), strict=True):
        np.testing.assert_array_equal(found, jnp.broadcast_to(x, found.shape))


def test_padding_is_not_looked_at(inputs, fuse):
    maps, words, is_word = inputs
    noisy = jnp.where(is_word[..., None], words, 50.0)
    for found, wanted in zip(fuse(maps, noisy, is_word), fuse(maps, words, is_word), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_training_shakes_the_attention(inputs, params):
    run = quick_jit(lambda key: MODEL.apply({"params": params}, *inputs, train=True, rngs={"dropout": key}))
    first, second, again = (run(jax.random.key(seed)) for seed in (0, 1, 0))
    for one, two, three in zip(first, second, again, strict=True):
        assert np.abs(one - two).max() > 1e-2
        np.testing.assert_array_equal(one, three)
