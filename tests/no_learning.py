"""Runs of `train` in this process that compute nothing: what they read and write is what is tested."""

import jax
import jax.numpy as jnp
import numpy as np


def no_learning_in(monkeypatch) -> None:
    """Gives a model of one parameter and steps that compute nothing; the true ones take a minute to compile."""

    def init_variables(*_):
        return {"params": {"image_encoder": {"scale": jnp.ones(1)}}, "batch_stats": {}}

    def make_train_step(*_, **__):
        return jax.jit(lambda state, batch: (state.replace(step=state.step + 1), {"loss": 0.0, "grad_norm": 0.0}))

    def make_predict_step(*_):
        return lambda variables, images, tokens: np.zeros((*tokens.shape[:2], *images.shape[1:3]), np.float32)

    monkeypatch.setattr("unilseg_jax.training.state.init_variables", init_variables)
    monkeypatch.setattr("unilseg_jax.training.checkpoint.Checkpointer.save", lambda *_: None)
    monkeypatch.setattr("unilseg_jax.training.step.make_train_step", make_train_step)
    monkeypatch.setattr("unilseg_jax.training.evaluations.make_predict_step", make_predict_step)
