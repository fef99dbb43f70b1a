"""The state of a run: everything that a step changes, as plain nested dictionaries."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from unilseg_jax import shapes
from unilseg_jax.models.unilseg import UniLSeg


@flax.struct.dataclass
class TrainState:
    """What a checkpoint holds.

    Attributes:
        step: steps taken.
        params: float32 parameters.
        batch_stats: running means and variances of the batch norms.
        opt_state: the optimiser's.
    """

    step: Int[Array, ""]
    params: dict
    batch_stats: dict
    opt_state: Any


def init_variables(model: UniLSeg, seed: int) -> dict:
    """Returns fresh `params` and `batch_stats`; they do not depend on the input's size."""
    images = jnp.zeros((1, shapes.MIN_SIDE, shapes.MIN_SIDE, 3))
    tokens = jnp.ones((1, 1, model.architecture.word_len), jnp.int32)
    return model.init(jax.random.key(seed), images, tokens)


def init_state(variables: dict, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step."""
    params = variables["params"]
    return TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(params),
    )
