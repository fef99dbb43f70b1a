"""Swin: the published sizes, windows and shifts seen from outside, patch merging."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from quick_compile import quick_jit
from tiny_model import HEIGHT, TINY, WIDTH, random_array, random_variables

from unilseg_jax.models.architecture import named_architecture
from unilseg_jax.models.layers import StochasticDepth
from unilseg_jax.models.swin import PatchMerging, Swin, SwinBlock
from unilseg_jax.shapes import level_sizes

# Published counts with a classifier of 1000 classes over the last level, which has a norm, too.
PUBLISHED = {"tiny": 28_288_354, "small": 49_606_258, "base": 87_768_224, "large": 196_532_476}


def shapes_of(sizes, height, width, dtype=jnp.float32):
    images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    return jax.eval_shape(Swin(sizes, dtype).init_with_output, jax.random.key(0), images)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    sizes = named_architecture(name)
    maps, variables = shapes_of(sizes, 480, 480)
    embed = sizes.embed_dim
    assert [x.shape for x in maps] == [(2, 120 // 2**i, 120 // 2**i, embed * 2**i) for i in range(4)]
    classifier, norms_of_levels_1_to_3 = 8 * embed * 1000 + 1000, 2 * (embed + 2 * embed + 4 * embed)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert count == PUBLISHED[name] - classifier + norms_of_levels_1_to_3


@pytest.mark.parametrize("size", [(29, 29), (30, 47), (103, 138), (64, 200)], ids=str)
def test_any_picture_size(size):
    maps, _ = shapes_of(TINY, *size)
    assert [x.shape[1:3] for x in maps] == list(level_sizes(*size))


def test_computing_in_bfloat16_leaves_the_parameters_float32():
    maps, variables = shapes_of(TINY, 64, 64, jnp.bfloat16)
    assert {x.dtype for x in maps} == {np.dtype(jnp.bfloat16)}
    assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype("float32")}


def test_patch_merging_takes_columns_after_rows():
    # (0,0), (1,0), (0,1), (1,1) hold 1, 3, 2, 4.
    x = jnp.array([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None]
    params = {"norm": {"scale": jnp.arange(1.0, 5.0), "bias": jnp.zeros(4)}}
    merged = []
    for columns in (slice(0, 2), slice(2, 4)):
        params["reduction"] = {"kernel": jnp.eye(4)[:, columns]}
        merged += PatchMerging(jnp.float32).apply({"params": params}, x).ravel().tolist()
    wanted = np.array([1.0, 3.0, 2.0, 4.0])
    wanted = (wanted - 2.5) / np.sqrt(1.25 + 1e-5) * [1, 2, 3, 4]
    np.testing.assert_allclose(merged, wanted, rtol=1e-5)


def test_patch_merging_pads_odd_sides_with_zeros():
    x = random_array((1, 3, 5, 2))
    variables = random_variables(PatchMerging(jnp.float32), x)
    padded = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    found = PatchMerging(jnp.float32).apply(variables, x)
    assert found.shape == (1, 2, 3, 4)
    np.testing.assert_array_equal(found, PatchMerging(jnp.float32).apply(variables, padded))


def influence(block, variables, x, row, column):
    """Returns which cells of a map change with one of them."""
    run = quick_jit(lambda x: block.apply(variables, x, train=False))
    changed = run(x.at[0, row, column].add(3 * random_array(x.shape[-1:], 9)))
    return np.abs(np.asarray(changed - run(x))).max(-1)[0] > 1e-6


@pytest.mark.parametrize(
    ("shifted", "cell", "rows", "columns"),
    [
        (False, (0, 0), slice(0, 4), slice(0, 4)),
        (False, (3, 4), slice(0, 4), slice(4, 8)),
        (True, (3, 4), slice(2, 6), slice(2, 6)),
        # The window of the corner also holds the other three corners, which the mask hides.
        (True, (0, 0), slice(0, 2), slice(0, 2)),
        (True, (7, 2), slice(6, 8), slice(2, 6)),
    ],
    ids=str,
)
def test_a_cell_is_seen_inside_its_window_alone(shifted, cell, rows, columns):
    x = random_array((1, 8, 8, 8))
    block = SwinBlock(2, 4, shifted, 0.0, jnp.float32)
    wanted = np.zeros((8, 8), bool)
    wanted[rows, columns] = True
    found = influence(block, random_variables(block, x, train=False), x, *cell)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("shifted", [False, True])
def test_a_block_without_branches_passes_the_map_on(shifted):
    # Padded to 8 x 8, rolled, cut, joined, rolled back, cropped: all that must come out even.
    x = random_array((2, 5, 7, 8))
    block = SwinBlock(2, 4, shifted, 0.0, jnp.float32)
    variables = random_variables(block, x, train=False)
    params = dict(variables["params"])
    params["attn"] = {**params["attn"], "proj": jax.tree.map(jnp.zeros_like, params["attn"]["proj"])}
    params["mlp_fc2"] = jax.tree.map(jnp.zeros_like, params["mlp_fc2"])
    np.testing.assert_array_equal(quick_jit(lambda x: block.apply({"params": params}, x, train=False))(x), x)


def test_padded_cells_are_zeros_after_the_norm_and_take_part():
    x = random_array((1, 3, 3, 8))
    block = SwinBlock(1, 4, False, 0.0, jnp.float32)
    variables = random_variables(block, x, train=False)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])

    def norm(y, p):
        return (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]

    maps = np.asarray(x[0], np.float64)
    cells = np.pad(norm(maps, params["norm1"]), ((0, 1), (0, 1), (0, 0))).reshape(16, 8)
    qkv = cells @ params["attn"]["qkv"]["kernel"] + params["attn"]["qkv"]["bias"]
    q, k, v = np.split(qkv, 3, axis=-1)
    row, column = np.divmod(np.arange(16), 4)
    index = 7 * (row[:, None] - row + 3) + column[:, None] - column + 3
    scores = np.exp(q @ k.T / np.sqrt(8) + params["attn"]["relative_position_bias_table"][index, 0])
    heard = (scores / scores.sum(-1, keepdims=True)) @ v @ params["attn"]["proj"]["kernel"]
    maps = maps + (heard + params["attn"]["proj"]["bias"]).reshape(4, 4, 8)[:3, :3]
    hidden = norm(maps, params["norm2"]) @ params["mlp_fc1"]["kernel"] + params["mlp_fc1"]["bias"]
    hidden = hidden * (1 + np.vectorize(math.erf)(hidden / np.sqrt(2))) / 2  # the exact GELU
    wanted = maps + hidden @ params["mlp_fc2"]["kernel"] + params["mlp_fc2"]["bias"]
    found = quick_jit(lambda x: block.apply(variables, x, train=False))(x)
    np.testing.assert_allclose(found[0], wanted, atol=1e-5)


def test_stochastic_depth_rises_linearly_over_all_blocks():
    rates = []

    def record(next_call, args, kwargs, context):
        if isinstance(context.module, StochasticDepth):
            rates.append(context.module.rate)
        return next_call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes_of(TINY, 32, 32)
    # 5 blocks of two branches each.
    np.testing.assert_allclose(rates, np.repeat([0.0, 0.05, 0.1, 0.15, 0.2], 2), atol=1e-7)


def test_every_second_block_is_shifted_whatever_the_map_s_size():
    shifts = {}

    def record(next_call, args, kwargs, context):
        if isinstance(context.module, SwinBlock):
            shifts[context.module.name] = context.module.shifted
        return next_call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes_of(named_architecture("tiny"), 32, 32)
    assert len(shifts) == 12
    assert shifts == {name: int(name.split("_")[-1]) % 2 == 1 for name in shifts}


def test_a_level_s_norm_is_applied_to_a_copy():
    images = random_array((1, HEIGHT, WIDTH, 3))
    variables = random_variables(Swin(TINY), images)
    run = quick_jit(Swin(TINY).apply)
    before = run(variables, images)
    norm = variables["params"]["norm1"]
    after = run({"params": {**variables["params"], "norm1": {**norm, "bias": norm["bias"] + 1}}}, images)
    np.testing.assert_allclose(after[1], before[1] + 1, atol=1e-5)
    for level in (0, 2, 3):
        np.testing.assert_array_equal(after[level], before[level])
