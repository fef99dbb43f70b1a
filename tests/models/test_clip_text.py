"""Text encoder: causality, the sentence's word, the sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compile import quick_jit
from tiny_model import END, START, TINY, random_variables

from unilseg_jax.models.architecture import Architecture
from unilseg_jax.models.clip_text import ClipText, quick_gelu


def test_quick_gelu_by_hand():
    x = jnp.array([-1.0, 0.0, 2.0])
    wanted = [-1 / (1 + np.exp(1.702)), 0, 2 / (1 + np.exp(-3.404))]
    np.testing.assert_allclose(quick_gelu(x), wanted, rtol=1e-6)


TOKENS = jnp.array([[START, 7, 8, END, 0, 0, 0], [START, 7, 9, 11, 12, 13, END], [START, 7, 8, END, 0, 0, 5]])


@pytest.fixture(scope="module")
def encode():
    variables = random_variables(ClipText(TINY), TOKENS)
    compiled = quick_jit(ClipText(TINY).apply)
    return lambda tokens, **changes: compiled({"params": {**variables["params"], **changes}}, tokens), variables


def test_a_word_depends_on_those_before_it_alone(encode):
    words, sentence = encode[0](TOKENS)
    np.testing.assert_allclose(words[0, :2], words[1, :2], atol=1e-6)
    assert np.abs(words[0, 2:4] - words[1, 2:4]).max(-1).min() > 1e-2
    # What follows the end of the text changes neither it nor the sentence.
    np.testing.assert_allclose(words[0, :6], words[2, :6], atol=1e-6)
    np.testing.assert_allclose(sentence[0], sentence[2], atol=1e-6)
    assert np.abs(words[0, 6] - words[2, 6]).max() > 1e-2


def test_the_sentence_is_the_projected_end_of_text(encode):
    words, sentence = encode[0](TOKENS)
    projection = np.asarray(encode[1]["params"]["text_projection"])
    for index, end in enumerate((3, 6, 3)):
        np.testing.assert_allclose(sentence[index], np.asarray(words[index, end]) @ projection, atol=1e-5)


def test_words_are_the_last_norm_s_output(encode):
    norm = {"scale": jnp.zeros(64), "bias": jnp.arange(64.0)}
    words, _ = encode[0](TOKENS, ln_final=norm)
    np.testing.assert_array_equal(words, np.broadcast_to(np.arange(64.0), words.shape))


def test_the_first_positions_are_taken(encode):
    table = encode[1]["params"]["positional_embedding"]
    assert table.shape == (20, 64)
    words, _ = encode[0](TOKENS)
    unread, _ = encode[0](TOKENS, positional_embedding=table.at[7:].set(100.0))
    np.testing.assert_array_equal(unread, words)
    for row in (0, 3, 6):
        moved, _ = encode[0](TOKENS, positional_embedding=table.at[row].add(jnp.cos(jnp.arange(64.0))))
        differs = np.abs(np.asarray(moved - words)).max((0, 2)) > 1e-4
        np.testing.assert_array_equal(differs, np.arange(7) >= row)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_released_size(dtype):
    tokens = jax.ShapeDtypeStruct((3, 17), jnp.int32)
    model = ClipText(Architecture(), dtype)
    (words, sentence), variables = jax.eval_shape(model.init_with_output, jax.random.key(0), tokens)
    assert (words.shape, sentence.shape) == ((3, 17, 512), (3, 512))
    assert words.dtype == sentence.dtype == dtype
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    # CLIP ViT-B/16's text tower: 12 blocks, the embeddings, the last norm, the projection.
    block = 12 * 512**2 + 13 * 512
    count = 12 * block + (49408 + 77) * 512 + 2 * 512 + 512**2
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == count
