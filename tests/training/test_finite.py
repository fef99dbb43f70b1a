"""The step whose loss is no number is found, however long nobody looked."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from unilseg_jax.training.finite import NOT_FINITE_FILE, FiniteLoss


def add_steps(losses, values):
    for step, value in enumerate(values, 1):
        losses.add(step, {"loss": jnp.float32(value), "grad_norm": jnp.float32(2)})


def named(step):
    return [f"picture {step}a", f"picture {step}b"]


def test_the_terms_of_the_last_step_are_given_and_nothing_is_written(tmp_path):
    losses = FiniteLoss(tmp_path, named, silent=False)
    add_steps(losses, [3.0, 2.0, 1.0])
    assert losses.look() == {"train/loss": 1.0, "train/grad_norm": 2.0}
    assert losses.look() == {"train/loss": 1.0, "train/grad_norm": 2.0}, "no step since"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_first_step_that_is_not_finite_is_named_with_its_pictures(tmp_path, value):
    losses = FiniteLoss(tmp_path, named, silent=False)
    add_steps(losses, [3.0, value, np.nan, np.nan])
    with pytest.raises(FloatingPointError, match=rf"the loss is {value}, .* at step 2; nothing .* such as picture 2a;"):
        losses.look()
    assert json.loads((tmp_path / NOT_FINITE_FILE).read_text()) == {"step": 2, "samples": named(2)}


def test_a_gradient_that_is_not_finite_counts_and_other_processes_write_nothing(tmp_path):
    losses = FiniteLoss(tmp_path, named, silent=True)
    losses.add(7, {"loss": jnp.float32(1), "grad_norm": jnp.float32(np.inf)})
    with pytest.raises(FloatingPointError, match="gradient's norm inf at step 7"):
        losses.look()
    assert not list(tmp_path.iterdir())
