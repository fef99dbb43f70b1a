"""One step of training, and one of prediction; compiled once each."""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from unilseg_jax.losses import segmentation_loss
from unilseg_jax.models.unilseg import UniLSeg
from unilseg_jax.ops.geometry import normalise
from unilseg_jax.ops.resize import resize_align_corners
from unilseg_jax.training.sharding import replicated, split_batch
from unilseg_jax.training.state import TrainState

Batch = Mapping[str, jax.Array]
"""`image` uint8 (b, s, s, 3), `tokens` int32 (b, p, l), `mask` uint8 (b, p, s, s), `valid` bool (b, p)."""


def make_train_step(
    model: UniLSeg,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    seed: int,
    loss_weights: Mapping[str, float],
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns the compiled step; the state handed in is given up.

    Args:
        model: the network.
        optimizer: see `optim.make_optimizer`.
        mesh: the devices.
        seed: of dropout; a step's noise depends on this and on the step alone, so a resumed run repeats it.
        loss_weights: see `losses.segmentation_loss`.
    """

    def loss_of(params: dict, state: TrainState, batch: Batch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        output, updated = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            normalise(batch["image"]),
            batch["tokens"],
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        loss, terms = segmentation_loss(
            output.layer_logits, batch["mask"].astype(jnp.float32), batch["valid"], **loss_weights
        )
        return loss, (terms, updated["batch_stats"])

    def step(state: TrainState, batch: Batch):
        (_, (terms, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params, state, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        terms["grad_norm"] = optax.tree.norm(grads)
        state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return state, terms

    whole, split = replicated(mesh), split_batch(mesh)
    return jax.jit(step, donate_argnums=0, in_shardings=(whole, split), out_shardings=(whole, whole))


def make_predict_step(model: UniLSeg, mesh: Mesh) -> Callable[[dict, jax.Array, jax.Array], jax.Array]:
    """Returns the compiled function (variables, uint8 images, tokens) → probabilities (b, p, s, s) float32."""

    def predict(variables, images, tokens):
        output = model.apply(variables, normalise(images), tokens)
        return nn.sigmoid(resize_align_corners(output.mask_logits, images.shape[1:3]))

    whole, split = replicated(mesh), split_batch(mesh)
    return jax.jit(predict, in_shardings=(whole, split, split), out_shardings=split)
