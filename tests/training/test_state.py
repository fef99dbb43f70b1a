"""The state before the first step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tiny_run import ARCHITECTURE

from unilseg_jax.models.architecture import Architecture
from unilseg_jax.models.unilseg import UniLSeg
from unilseg_jax.training.state import init_state, init_variables


def test_fresh_state_holds_the_variables_at_step_zero():
    variables = {"params": {"kernel": jnp.ones((2, 3))}, "batch_stats": {"mean": jnp.full(3, 2.0)}}
    state = init_state(variables, optax.adam(1e-3))
    assert state.step.dtype == jnp.int32
    assert int(state.step) == 0
    assert state.params is variables["params"]
    assert state.batch_stats is variables["batch_stats"]
    moments = optax.tree_utils.tree_get(state.opt_state, "mu")
    np.testing.assert_array_equal(moments["kernel"], np.zeros((2, 3)))


def test_variables_are_float32_and_plain_dictionaries():
    model = UniLSeg(Architecture(**ARCHITECTURE), jnp.bfloat16)
    variables = jax.eval_shape(lambda: init_variables(model, 0))
    assert variables.keys() == {"params", "batch_stats"}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert type(variables["params"]["image_encoder"]) is dict


def test_a_moving_average_starts_as_a_copy_and_is_what_predicts():
    variables = {"params": {"kernel": jnp.ones((2, 3))}, "batch_stats": {"mean": jnp.full(3, 2.0)}}
    plain, averaged = (init_state(variables, optax.adam(1e-3), ema=ema) for ema in (False, True))
    assert plain.ema is None
    assert plain.best_variables == plain.variables
    assert plain.variables["params"] is variables["params"]
    jax.tree.map(np.testing.assert_array_equal, averaged.ema, variables)
    # A step gives its arguments up: the average must not be the same array.
    assert averaged.ema["params"]["kernel"] is not averaged.params["kernel"]
    assert averaged.best_variables is averaged.ema
