"""A model with CLIP's vocabulary and random weights, small enough to be compiled in a test; made once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from unilseg_jax.interop.pretrained import Pretrained
from unilseg_jax.models.architecture import Architecture
from unilseg_jax.models.unilseg import UniLSeg

SMALL = Architecture(
    embed_dim=16,
    depths=(1, 1, 1, 1),
    num_heads=(1, 2, 4, 8),
    window_size=7,
    text_width=64,
    text_layers=1,
    sentence_width=48,
    query_width=32,
    query_layers=2,
    ffn_width=64,
)
INPUT_SIZE = 64


@functools.cache
def small_pretrained() -> Pretrained:
    """Returns the model; random values are drawn here, since compiling `init` takes longer than the tests."""
    model = UniLSeg(SMALL)
    images, tokens = jnp.zeros((1, INPUT_SIZE, INPUT_SIZE, 3)), jnp.ones((1, 1, SMALL.word_len), jnp.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images, tokens)
    rng = np.random.default_rng(0)

    def value(path, leaf):
        if path[-1].key in ("scale", "var"):
            return np.ones(leaf.shape, np.float32)
        fan_in = max(np.prod(leaf.shape[:-1]), 1) if path[-1].key == "kernel" else 1
        return (fan_in**-0.5 * rng.standard_normal(leaf.shape)).astype(np.float32)

    filled = jax.tree_util.tree_map_with_path(value, dict(variables))
    return Pretrained(architecture=SMALL, variables=filled, input_size=INPUT_SIZE)
