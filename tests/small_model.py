"""A model with CLIP's vocabulary and random weights, small enough to be compiled in a test; made once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from tiny_model import random_variables

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
    variables = jax.tree.map(np.asarray, random_variables(model, images, tokens))
    return Pretrained(architecture=SMALL, variables=variables, input_size=INPUT_SIZE)
