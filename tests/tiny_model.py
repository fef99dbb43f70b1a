"""A model that compiles in seconds, random variables for any module, and attention written out in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import random_models

TINY = dataclasses.replace(random_models.TINY, word_len=7, ffn_width=16)
START, END = 58, 59
HEIGHT, WIDTH = 29, 37
"""Pixels; the levels have 8 x 10, 4 x 5, 2 x 3 and 1 x 2 cells."""


def random_array(shape, seed=0):
    """Returns normal noise, float32."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def random_tokens(images, prompts, seed=0):
    """Returns phrases of 1 to 5 words between start and end, padded with 0; all lengths occur in turn."""
    rng = np.random.default_rng(seed)
    tokens = np.zeros((images * prompts, TINY.word_len), np.int32)
    for index, row in enumerate(tokens):
        words = 1 + (seed + index) % (TINY.word_len - 2)
        row[: words + 2] = [START, *rng.integers(1, START, words), END]
    return jnp.asarray(tokens.reshape(images, prompts, -1))


def random_variables(module, *args, seed=0, **kwargs):
    """Returns variables of `module` in which every value matters: no zero bias, no scale of one."""
    rng = np.random.default_rng(seed)
    wanted = jax.eval_shape(lambda *args: module.init(jax.random.key(0), *args, **kwargs), *args)

    def value(path, leaf):
        name, noise = path[-1].key, rng.standard_normal(leaf.shape)
        if name == "var":
            noise = 1 + 0.2 * np.abs(noise)
        elif name == "scale":
            noise = 1 + 0.1 * noise
        elif name in ("bias", "mean"):
            noise = 0.1 * noise
        elif name == "kernel" or name.endswith("projection"):
            noise = noise / np.sqrt(np.prod(leaf.shape[:-1]))
        else:
            noise = 0.3 * noise
        return jnp.asarray(noise, leaf.dtype)

    return jax.tree_util.tree_map_with_path(value, dict(wanted))


def paths(tree):
    """Returns the leaves of a nested dictionary by their paths, joined by slashes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def numpy_linear(params, x):
    """Returns `x` after a linear layer, float64."""
    return np.asarray(x, np.float64) @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def numpy_attention(params, query, key, value, may_look, heads):
    """Returns attention of one set of queries (n, d) on one set of keys (m, d), head by head, float64.

    Args:
        params: of `MultiHeadAttention`.
        query: what asks.
        key: what is asked.
        value: what is answered.
        may_look: (n, m), true where a query may look.
        heads: how many.
    """
    q, k, v = (numpy_linear(params[n], x) for n, x in (("query", query), ("key", key), ("value", value)))
    width = q.shape[-1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = np.where(may_look, q[:, part] @ k[:, part].T / np.sqrt(width), -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
    return numpy_linear(params["out"], np.concatenate(mixed, -1))
