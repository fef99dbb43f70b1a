"""The state of a run: everything that a step changes, as plain nested dictionaries."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

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
        ema: moving average of `params` and `batch_stats`, a dictionary of the two; None if it is off.
    """

    # JAX puts shapes, shardings and marks of its own in the place of arrays, so no type is said here.
    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any = None

    @property
    def variables(self) -> dict:
        """`params` and `batch_stats` that are trained."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def best_variables(self) -> dict:
        """`params` and `batch_stats` to predict with: the moving average, where there is one."""
        return self.variables if self.ema is None else self.ema


def init_variables(model: UniLSeg, seed: int) -> dict:
    """Returns fresh `params` and `batch_stats`; they do not depend on the input's size."""
    images = jnp.zeros((1, shapes.MIN_SIDE, shapes.MIN_SIDE, 3))
    tokens = jnp.ones((1, 1, model.architecture.word_len), jnp.int32)
    return model.init(jax.random.key(seed), images, tokens)


def init_state(variables: dict, optimizer: optax.GradientTransformation, *, ema: bool = False) -> TrainState:
    """Returns the state before the first step.

    Args:
        variables: `params` and `batch_stats` to start from.
        optimizer: see `optim.make_optimizer`.
        ema: whether a moving average is kept; it starts as a copy, since a step gives up what it is handed.
    """
    params, batch_stats = variables["params"], variables["batch_stats"]
    return TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats}) if ema else None,
    )
