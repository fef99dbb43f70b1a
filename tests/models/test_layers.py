"""Layers: by hand, and the two forms of attention against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from quick_compile import quick_jit
from tiny_model import numpy_attention, numpy_linear, paths, random_array, random_variables

from unilseg_jax.models.layers import (
    AddAndNorm,
    ConvNormRelu,
    FeedForward,
    MultiHeadAttention,
    StochasticDepth,
    WordAttention,
    attend_to_words,
    layer_norm,
    relu,
)

DROPOUT = {"dropout": jax.random.key(5)}


class Either(nn.Module):
    """`attend_to_words` inside a module, as it wants to be called."""

    @nn.compact
    def __call__(self, cells, words, is_word):
        options = {"heads": 4, "dropout": 0.0, "dtype": jnp.float32, "train": False, "name": "attention"}
        return attend_to_words(cells, words, words, is_word, **options)


def test_layer_norm_has_torch_s_epsilon():
    x = jnp.array([[1e-3, -1e-3]])
    found, _ = layer_norm("norm", jnp.float32).init_with_output(jax.random.key(0), x)
    wanted = 1e-3 / np.sqrt(1e-6 + 1e-5)
    np.testing.assert_allclose(found, [[wanted, -wanted]], rtol=1e-5)


# bfloat16 has a step of 16 at 3000: what it can hold there is spread wider than one.
@pytest.mark.parametrize(("dtype", "spread"), [(jnp.float32, 1.0), (jnp.bfloat16, 50.0)])
def test_layer_norm_keeps_its_digits_far_from_zero(dtype, spread):
    x = (3000 + spread * random_array((1, 64))).astype(dtype)
    found, _ = layer_norm("norm", dtype).init_with_output(jax.random.key(0), x)
    assert found.dtype == jnp.float32
    exact = np.asarray(x, np.float64)
    wanted = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)
    np.testing.assert_allclose(found, wanted, atol=5e-4)


@pytest.fixture(scope="module")
def attention_case():
    """Cells of one image and words of 3 prompts, each with another number of words."""
    cells, keys, values = random_array((2, 1, 11, 16)), random_array((2, 3, 5, 16), 1), random_array((2, 3, 5, 16), 2)
    is_word = jnp.arange(5)[None, None] < jnp.array([[5, 1, 3], [2, 4, 5]])[..., None]
    params = random_variables(WordAttention(4), cells, keys, values, is_word)["params"]
    return params, cells, keys, values, is_word


def test_both_forms_of_attention_have_the_same_parameters(attention_case):
    params, cells, keys, values, is_word = attention_case
    full = random_variables(MultiHeadAttention(4), cells, keys, values, is_word[:, :, None])["params"]
    assert {path: x.shape for path, x in paths(full).items()} == {path: x.shape for path, x in paths(params).items()}


@pytest.mark.parametrize("prompts", [1, 3], ids=["shared cells", "cells of each prompt"])
def test_both_forms_of_attention_are_what_numpy_computes(attention_case, prompts):
    params, cells, keys, values, is_word = attention_case
    cells = cells if prompts == 1 else random_array((2, 3, 11, 16), 7)
    full = quick_jit(MultiHeadAttention(4).apply)({"params": params}, cells, keys, values, is_word[:, :, None])
    folded = quick_jit(WordAttention(4).apply)({"params": params}, cells, keys, values, is_word)
    np.testing.assert_allclose(folded, full, atol=1e-5)
    for image in range(2):
        for prompt in range(3):
            wanted = numpy_attention(
                params, cells[image, min(prompt, prompts - 1)], keys[image, prompt], values[image, prompt],
                np.asarray(is_word[image, prompt])[None], 4,
            )  # fmt: skip
            np.testing.assert_allclose(full[image, prompt], wanted, atol=1e-5)
            np.testing.assert_allclose(folded[image, prompt], wanted, atol=1e-5)


def test_a_mask_can_differ_from_query_to_query():
    x = random_array((1, 6, 16))
    causal = jnp.tril(jnp.ones((1, 6, 6), bool))
    variables = random_variables(MultiHeadAttention(2), x, x, x, causal)
    found = MultiHeadAttention(2).apply(variables, x, x, x, causal)
    wanted = numpy_attention(variables["params"], x[0], x[0], x[0], np.tril(np.ones((6, 6), bool)), 2)
    np.testing.assert_allclose(found[0], wanted, atol=1e-5)


@pytest.mark.torch
def test_attention_is_torch_s():
    torch = pytest.importorskip("torch")
    query, key, value = random_array((2, 7, 16)), random_array((2, 5, 16), 1), random_array((2, 5, 16), 2)
    is_word = jnp.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    variables = random_variables(MultiHeadAttention(4), query, key, value)
    parts = variables["params"]
    theirs = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    state = {
        "in_proj_weight": np.concatenate([np.asarray(parts[n]["kernel"]).T for n in ("query", "key", "value")]),
        "in_proj_bias": np.concatenate([np.asarray(parts[n]["bias"]) for n in ("query", "key", "value")]),
        "out_proj.weight": np.ascontiguousarray(np.asarray(parts["out"]["kernel"]).T),
        "out_proj.bias": np.array(parts["out"]["bias"]),
    }
    theirs.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    inputs = (torch.tensor(np.asarray(x)) for x in (query, key, value))
    wanted, _ = theirs(*inputs, key_padding_mask=torch.tensor(~np.asarray(is_word)))
    found = MultiHeadAttention(4).apply(variables, query, key, value, is_word[:, None])
    np.testing.assert_allclose(found, wanted.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("cells", [4, 40], ids=["few cells", "many cells"])
def test_the_cheaper_form_is_the_same_attention(attention_case, cells):
    _, _, words, _, is_word = attention_case
    x = random_array((2, 1, cells, 16), 3)
    variables = random_variables(Either(), x, words, is_word)
    params = variables["params"]["attention"]
    assert {path: leaf.shape for path, leaf in paths(params).items()} == {
        f"{name}/{kind}": (16, 16)[: 2 - (kind == "bias")]
        for name in ("query", "key", "value", "out")
        for kind in ("kernel", "bias")
    }
    found = Either().apply(variables, x, words, is_word)
    wanted = numpy_attention(params, x[1, 0], words[1, 2], words[1, 2], np.asarray(is_word[1, 2])[None], 4)
    np.testing.assert_allclose(found[1, 2], wanted, atol=1e-5)


def test_feed_forward_by_numpy():
    x = random_array((2, 3, 8))
    variables = random_variables(FeedForward(12), x)
    params = variables["params"]
    wanted = numpy_linear(params["linear2"], np.maximum(numpy_linear(params["linear1"], x), 0))
    np.testing.assert_allclose(FeedForward(12).apply(variables, x), wanted, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_gradient_of_relu_and_dropout_is_that_of_the_two_one_after_the_other(dtype, dropout):
    x, key = random_array((40, 30)).at[0].set(0).astype(dtype), jax.random.key(7)
    step = float(jnp.finfo(dtype).eps)  # compilers round a division either way

    def plain(x):
        keep = jax.random.bernoulli(key, 1 - dropout, x.shape)
        return jnp.where(keep, jax.nn.relu(x) / (1 - dropout), 0)

    wanted, plain_gradient = jax.vjp(plain, x)
    found, gradient = jax.vjp(lambda x: relu(x, key, dropout), x)
    np.testing.assert_allclose(found, wanted, rtol=step)
    assert 0.2 < np.mean(np.asarray(found) > 0) < 0.6
    cotangent = random_array(x.shape, 1).astype(dtype)
    np.testing.assert_allclose(gradient(cotangent)[0], plain_gradient(cotangent)[0], rtol=step)
    kept = [leaf for leaf in jax.tree.leaves(gradient) if leaf.shape == x.shape]
    assert len(kept) == 1, "more than the result is kept for the backward pass"
    np.testing.assert_array_equal(kept[0], found)


def test_relu_loses_no_nan():
    value, gradient = jax.value_and_grad(lambda x: relu(x).sum())(jnp.float32(jnp.nan))
    assert np.isnan(value)
    assert gradient == 1
    np.testing.assert_array_equal(relu(jnp.array([1.0, jnp.nan, -1.0, jnp.inf])), [1, np.nan, 0, np.inf])


def test_the_norm_follows_the_sum():
    x, branch = random_array((2, 3, 8)), random_array((2, 3, 8), 1)
    variables = random_variables(AddAndNorm(), x, branch)
    total = np.asarray(x, np.float64) + np.asarray(branch)
    norm = variables["params"]["norm"]
    wanted = (total - total.mean(-1, keepdims=True)) / np.sqrt(total.var(-1, keepdims=True) + 1e-5)
    wanted = wanted * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
    np.testing.assert_allclose(AddAndNorm().apply(variables, x, branch), wanted, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3])
def test_convolution_norm_relu_by_numpy(size):
    x = random_array((2, 3, 4, 5, 6))
    layer = ConvNormRelu(7, size)
    variables = random_variables(layer, x, train=False)
    assert set(paths(variables["params"])) == {"kernel", "norm/scale", "norm/bias"}, "the convolution has no bias"
    kernel, norm = np.asarray(variables["params"]["kernel"], np.float64), variables["params"]["norm"]
    stats = variables["batch_stats"]["norm"]
    padded = np.pad(np.asarray(x, np.float64), [(0, 0), (0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)])
    wanted = sum(
        padded[:, :, row : row + 4, column : column + 5] @ kernel[row, column]
        for row in range(size)
        for column in range(size)
    )
    wanted = (wanted - np.asarray(stats["mean"])) / np.sqrt(np.asarray(stats["var"]) + 1e-5)
    wanted = np.maximum(wanted * np.asarray(norm["scale"]) + np.asarray(norm["bias"]), 0)
    assert (wanted == 0).any()
    np.testing.assert_allclose(layer.apply(variables, x, train=False), wanted, atol=1e-5)


def test_dropout_is_active_in_training_alone():
    x = random_array((1, 2, 6, 16))
    is_word = jnp.ones((1, 2, 6), bool)
    for layer, inputs in (
        (MultiHeadAttention(4, 0.5), (x, x, x)),
        (WordAttention(4, 0.5), (x, x, x, is_word)),
        (FeedForward(32, 0.5), (x,)),
        (AddAndNorm(0.5), (x, x)),
    ):
        variables = random_variables(layer, *inputs)
        # Without a key of randomness an active dropout raises.
        still = quick_jit(functools.partial(layer.apply, train=False))(variables, *inputs)
        shaken = quick_jit(functools.partial(layer.apply, train=True, rngs=DROPOUT))(variables, *inputs)
        assert not np.allclose(still, shaken, atol=1e-2), type(layer).__name__
        without = type(layer)(**{**layer_fields(layer), "dropout": 0.0})
        calm = quick_jit(functools.partial(without.apply, train=True))(variables, *inputs)
        np.testing.assert_allclose(calm, still, atol=1e-6, err_msg=type(layer).__name__)


def layer_fields(layer):
    """Returns the sizes of a layer by name."""
    return {name: getattr(layer, name) for name in ("heads", "hidden") if hasattr(layer, name)}


def test_stochastic_depth_drops_whole_samples_and_keeps_the_expectation():
    x = 1 + jnp.abs(random_array((4000, 2, 3)))
    found = np.asarray(StochasticDepth(0.2).apply({}, x, train=True, rngs=DROPOUT))
    factor = found / np.asarray(x)
    assert (factor == factor[:, :1, :1]).all() or np.allclose(factor, factor[:, :1, :1], atol=1e-6)
    kept = factor[:, 0, 0] > 0
    np.testing.assert_allclose(factor[kept], 1 / 0.8, rtol=1e-6)
    # Five standard deviations of the mean of 4000 draws.
    assert abs(kept.mean() - 0.8) < 5 * np.sqrt(0.2 * 0.8 / 4000)


def test_stochastic_depth_is_idle_at_rate_zero_and_outside_training():
    x = random_array((4, 3))
    np.testing.assert_array_equal(StochasticDepth(0.0).apply({}, x, train=True), x)
    np.testing.assert_array_equal(StochasticDepth(0.9).apply({}, x, train=False), x)
