"""One step of training, and one of prediction; compiled once each."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from unilseg_jax.losses import segmentation_loss
from unilseg_jax.models.unilseg import UniLSeg
from unilseg_jax.ops.geometry import normalise
from unilseg_jax.ops.resize import resize_align_corners
from unilseg_jax.training import noise
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
    shardings: Any = None,
    trainable: dict | None = None,
    accumulate: int = 1,
    ema_decay: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns the compiled step; the state handed in is given up.

    Args:
        model: the network.
        optimizer: see `optim.make_optimizer`.
        mesh: the devices.
        seed: of dropout; a step's noise depends on this and on the step alone, so a resumed run repeats it.
        loss_weights: see `losses.segmentation_loss`.
        shardings: of the state, see `sharding.state_shardings`; None: every device holds all of it.
        trainable: see `optim.trainable`; what is not has no gradient, and nothing is kept to compute one.
        accumulate: micro-batches that the batch is divided into, one after the other, to need less memory. The
            gradient is that of the whole batch but for two things: batch norm sees a micro-batch at a time, and
            each has noise of its own.
        ema_decay: of the moving average `state.ema`, if there is one.
    """

    def loss_of(params: dict, batch_stats: dict, batch: Batch, key: jax.Array):
        if trainable is not None:
            params = jax.tree.map(lambda x, moves: x if moves else jax.lax.stop_gradient(x), params, trainable)
        output, updated = model.apply(
            {"params": params, "batch_stats": batch_stats},
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

    gradients = jax.value_and_grad(loss_of, has_aux=True)

    def one_after_the_other(params: dict, batch_stats: dict, batch: Batch, key: jax.Array):
        """Returns what `gradients` returns, in micro-batches that are weighed by their valid prompts."""
        parts = {name: _micro_batches(rows, accumulate, mesh) for name, rows in batch.items()}
        all_valid = jnp.maximum(batch["valid"].sum(), 1)

        def add(carry, part):
            number, micro = part
            sums, batch_stats = carry
            (loss, (terms, batch_stats)), grads = gradients(params, batch_stats, micro, jax.random.fold_in(key, number))
            share = micro["valid"].sum() / all_valid
            sums = jax.tree.map(lambda total, x: total + share * x, sums, (loss, terms, grads))
            return (_laid_out(sums, shardings), batch_stats), None

        shapes = jax.eval_shape(gradients, params, batch_stats, jax.tree.map(lambda x: x[0], parts), key)
        (loss, (terms, _)), grads = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        start = (_laid_out((loss, terms, grads), shardings), batch_stats)
        # In a loop, XLA's compiler for CPUs has no fast convolutions: at 480 px they take a hundred times as long.
        unroll = mesh.devices.flat[0].platform == "cpu"
        end, _ = jax.lax.scan(add, start, (jnp.arange(accumulate), parts), unroll=unroll)
        (loss, terms, grads), batch_stats = end
        return (loss, (terms, batch_stats)), grads

    def step(state: TrainState, batch: Batch):
        key = jax.random.fold_in(noise.key(seed), state.step)
        compute = gradients if accumulate == 1 else one_after_the_other
        (_, (terms, batch_stats)), grads = compute(state.params, state.batch_stats, batch, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        terms["grad_norm"] = optax.tree.norm(grads)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            ema = _averaged(ema, {"params": params, "batch_stats": batch_stats}, state.step, ema_decay)
        state = TrainState(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state, ema=ema)
        return state, terms

    whole, split = replicated(mesh), split_batch(mesh)
    held = whole if shardings is None else shardings
    return jax.jit(step, donate_argnums=0, in_shardings=(held, split), out_shardings=(held, whole))


def _micro_batches(rows: jax.Array, count: int, mesh: Mesh) -> jax.Array:
    """Returns (count, b / count, …): row i goes to micro-batch i modulo `count`, so that no row leaves its device."""
    parts = jnp.moveaxis(rows.reshape(-1, count, *rows.shape[1:]), 1, 0)
    return jax.lax.with_sharding_constraint(parts, split_batch(mesh, axis=1))


def _laid_out(sums: tuple, shardings: Any) -> tuple:
    """Returns loss, terms and gradients, the gradients divided as the parameters are."""
    if shardings is None:
        return sums
    loss, terms, grads = sums
    return loss, terms, jax.lax.with_sharding_constraint(grads, shardings.params)


def _averaged(ema: dict, now: dict, step: jax.Array, decay: float) -> dict:
    """Returns the moving average after another step; the first steps count more, or it would stay where it began."""
    keep = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda average, x: keep * average + (1.0 - keep) * x, ema, now)


def make_predict_step(model: UniLSeg, mesh: Mesh) -> Callable[[dict, jax.Array, jax.Array], jax.Array]:
    """Returns the compiled function (variables, uint8 images, tokens) → probabilities (b, p, s, s) float32.

    The variables stay as they lie. With several processes, the images and tokens are those of `put_batch`, and
    `sharding.local_rows` reads the result.
    """

    def predict(variables, images, tokens):
        output = model.apply(variables, normalise(images), tokens)
        return nn.sigmoid(resize_align_corners(output.mask_logits, images.shape[1:3]))

    split = split_batch(mesh)
    return jax.jit(predict, in_shardings=(None, split, split), out_shardings=split)
