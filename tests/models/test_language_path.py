"""Language path: the sentence as the position of one query."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_compile import quick_jit
from tiny_model import TINY, paths, random_array, random_variables

from unilseg_jax.models.architecture import Architecture
from unilseg_jax.models.language_path import LanguagePath


@pytest.fixture(scope="module")
def inputs():
    return random_array((2, 3, 2, 3, 64)), random_array((2, 3, 24), 1)


@pytest.fixture(scope="module")
def variables(inputs):
    return random_variables(LanguagePath(TINY), *inputs)


@pytest.fixture(scope="module")
def run():
    return quick_jit(LanguagePath(TINY).apply)


def replaced(variables, path, function):
    """Returns the variables with one leaf changed."""

    def change(place, leaf):
        return function(leaf) if "/".join(key.key for key in place) == path else leaf

    assert path in paths(variables)
    return jax.tree_util.tree_map_with_path(change, variables)


def test_one_query_per_layer_and_prompt(inputs, variables, run):
    queries = run(variables, *inputs)
    assert queries.shape == (2, 2, 3, 16)
    assert np.abs(queries[0] - queries[1]).max() > 1e-2


def test_the_released_size():
    coarsest = jax.ShapeDtypeStruct((1, 2, 15, 15, 1024), jnp.bfloat16)
    sentence = jax.ShapeDtypeStruct((1, 2, 512), jnp.bfloat16)
    model = LanguagePath(Architecture(), jnp.bfloat16)
    queries, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), coarsest, sentence)
    assert queries.shape == (6, 1, 2, 256)
    assert queries.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    assert "params/text_proj/bias" not in paths(variables)


def test_prompts_do_not_mix(inputs, variables, run):
    coarsest, sentence = inputs
    queries = run(variables, *inputs)
    for other in (run(variables, coarsest, sentence.at[:, 1].multiply(-1)),
                  run(variables, coarsest.at[:, 1].multiply(-1), sentence)):  # fmt: skip
        np.testing.assert_array_equal(other[:, :, ::2], queries[:, :, ::2])
        assert np.abs(other[:, :, 1] - queries[:, :, 1]).max() > 1e-3


def test_the_query_starts_empty(inputs, variables, run):
    # The first self-attention is of one token of zeros: what its value's matrix holds is never seen.
    queries = run(variables, *inputs)
    path = "params/layers_{}/self_attn/value/kernel"
    np.testing.assert_array_equal(run(replaced(variables, path.format(0), jnp.negative), *inputs), queries)
    other = run(replaced(variables, path.format(1), jnp.negative), *inputs)
    np.testing.assert_array_equal(other[0], queries[0])
    assert np.abs(other[1] - queries[1]).max() > 1e-3


def test_the_last_norm_is_applied_to_copies(inputs, variables, run):
    queries = run(variables, *inputs)
    norm = variables["params"]["norm"]
    other = run(replaced(variables, "params/norm/bias", lambda bias: bias + 1), *inputs)
    np.testing.assert_allclose(other, queries + 1, atol=1e-5)
    plain = (np.asarray(queries) - np.asarray(norm["bias"])) / np.asarray(norm["scale"])
    np.testing.assert_allclose(plain.mean(-1), np.zeros((2, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(plain.std(-1), np.ones((2, 2, 3)), atol=1e-3)


def test_cells_have_positions(inputs, variables, run):
    # Of a map whose cells are all alike but one, the query tells where that one is.
    coarsest, sentence = inputs
    flat = jnp.zeros_like(coarsest)
    kernel = variables["params"]["visual_proj"]["kernel"]
    pointwise = replaced(variables, "params/visual_proj/kernel", lambda k: jnp.zeros_like(k).at[1, 1].set(kernel[1, 1]))
    first = run(pointwise, flat.at[:, :, 0, 0].set(coarsest[:, :, 0, 0]), sentence)
    last = run(pointwise, flat.at[:, :, 1, 2].set(coarsest[:, :, 0, 0]), sentence)
    assert np.abs(first - last).max() > 1e-4


def test_one_map_serves_all_prompts(inputs, variables, run):
    coarsest, sentence = inputs
    shared = coarsest[:, :1]
    found = run(variables, shared, sentence)
    wanted = run(variables, jnp.broadcast_to(shared, coarsest.shape), sentence)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
