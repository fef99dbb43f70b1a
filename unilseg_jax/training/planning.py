"""What a step costs before it is run: FLOPs and memory of one device, and what follows for many.

Nothing here holds an array: models of any size are traced, and compiled at most, on any machine.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh
from ml_collections import ConfigDict

from unilseg_jax.config import architecture_of
from unilseg_jax.losses import segmentation_loss
from unilseg_jax.models.unilseg import UniLSeg
from unilseg_jax.ops.geometry import normalise
from unilseg_jax.training import noise, optim, sharding
from unilseg_jax.training.liveness import peak_bytes
from unilseg_jax.training.state import TrainState, init_state, init_variables
from unilseg_jax.training.step import make_train_step


class Program(NamedTuple):
    """A step of training that nothing has been computed with.

    Attributes:
        model: the network.
        step: jitted, takes a state and a batch.
        state: shapes and types of the state.
    """

    model: UniLSeg
    step: Any
    state: TrainState


def program(config: ConfigDict, mesh: Mesh, *, accumulate: int = 1, remat: str | None = None) -> Program:
    """Returns the step that a run of `config` takes.

    Args:
        config: see `config.base_config`.
        mesh: see `sharding.make_mesh`.
        accumulate: micro-batches per step.
        remat: what is computed again in the backward pass; None as the config says.
    """
    remat = config.remat if remat is None else remat
    groups = sharding.norm_groups(config.batch_norm, mesh)
    model = UniLSeg(architecture_of(config), jnp.dtype(config.dtype), remat, groups)
    variables = jax.eval_shape(lambda: init_variables(model, 0))
    optimizer = optim.make_optimizer(
        variables["params"],
        lambda step: jnp.float32(config.optim.learning_rate),
        lr_scales=config.optim.lr_scales,
        clip_norm=config.optim.clip_norm,
        weight_decays=config.optim.weight_decays,
        betas=config.optim.betas,
        eps=config.optim.eps,
    )
    state = jax.eval_shape(lambda v: init_state(v, optimizer, ema=config.ema.decay > 0), variables)
    step = make_train_step(
        model,
        optimizer,
        mesh,
        seed=0,
        loss_weights=config.loss.to_dict(),
        shardings=sharding.state_shardings(mesh, state),
        trainable=optim.trainable(variables["params"], config.optim.lr_scales),
        accumulate=accumulate,
        ema_decay=config.ema.decay,
    )
    return Program(model=model, step=step, state=state)


def batch_of(config: ConfigDict, pictures: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a batch, see `step.Batch`."""
    size, prompts, words = config.input.size, config.input.prompts, config.model.word_len
    return {
        "image": jax.ShapeDtypeStruct((pictures, size, size, 3), np.uint8),
        "tokens": jax.ShapeDtypeStruct((pictures, prompts, words), np.int32),
        "mask": jax.ShapeDtypeStruct((pictures, prompts, size, size), np.uint8),
        "valid": jax.ShapeDtypeStruct((pictures, prompts), np.bool_),
    }


def one_device() -> Mesh:
    """Returns the mesh of a single device."""
    return jax.make_mesh((1, 1), sharding.AXES, axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:1])


def bytes_of(tree: Any) -> int:
    """Returns the bytes of all arrays of a structure of shapes."""
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a step costs a device; all memory in bytes.

    Attributes:
        parameters: their number.
        flops: of a picture with its prompts, forward and backward, without what remat computes again.
        parameter_bytes: of the parameters and batch statistics.
        optimizer_bytes: of the moments and the moving average.
        gradient_bytes: of the gradients of one micro-batch.
        fixed_bytes: of what else a step needs, however many pictures there are.
        picture_bytes: of the activations of each picture of a micro-batch.
        source: where the last two are from.
    """

    parameters: int
    flops: float
    parameter_bytes: int
    optimizer_bytes: int
    gradient_bytes: int
    fixed_bytes: int
    picture_bytes: int
    source: str

    def device_bytes(self, pictures: int, accumulate: int = 1) -> int:
        """Returns the memory of a device that has `pictures` of a micro-batch.

        With several micro-batches the gradients' sum is held beside those of one.
        """
        gradients = self.gradient_bytes * (2 if accumulate > 1 else 1)
        state = self.parameter_bytes + self.optimizer_bytes + gradients
        return state + self.fixed_bytes + pictures * self.picture_bytes


def can_compile(config: ConfigDict) -> bool:
    """Returns whether compiling for this machine's device tells the memory; a CPU's compiler undoes remat."""
    return jax.default_backend() != "cpu" or config.remat == "none"


def footprint(config: ConfigDict, *, fsdp: int = 1, compiled: bool = True) -> Footprint:
    """Returns what a step of `config` costs a device.

    FLOPs are counted by XLA in the traced program. Memory beside the state is taken at two numbers of pictures, and
    is linear in them. What `fsdp` gathers for a moment, a layer's parameters, is not in it.

    Args:
        config: see `config.base_config`.
        fsdp: devices that share one copy of the state.
        compiled: compile for this machine's device and read XLA's memory analysis; else `liveness.peak_bytes` of the
            traced gradient, which takes seconds: activations, what remat computes again, and gradients on the way.
            XLA may need more or less. A CPU's compiler undoes remat, so with it the estimate counts there too.
    """
    source = f"compiled for {jax.default_backend()}"
    if not compiled:
        source = "estimated; XLA may need more or less"
    elif not can_compile(config):
        compiled, source = False, "estimated, since compiling for a CPU undoes remat; XLA may need more or less"
    plain = program(config, one_device(), remat="none")
    flops = plain.step.lower(plain.state, batch_of(config, 1)).cost_analysis()["flops"]
    params = plain.state.params
    gradients = params
    if (moves := optim.trainable(params, config.optim.lr_scales)) is not None:
        gradients = jax.tree.map(lambda leaf, moved: leaf if moved else None, params, moves)
    # Tracing costs the same for many pictures, and there the gradients of parameters are no longer what is fullest.
    few, many = (1, 2) if compiled else (32, 64)
    each = plain if config.remat == "none" else program(config, one_device())
    least, most = ((_temporary_bytes if compiled else _traced_bytes)(each, config, number) for number in (few, many))
    per_picture = max(most - least, 0) // (many - few)
    shared = divided(plain.state, fsdp)
    whole = bytes_of(gradients)
    return Footprint(
        parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        flops=flops,
        parameter_bytes=bytes_of((shared.params, shared.batch_stats)),
        optimizer_bytes=bytes_of((shared.opt_state, shared.ema)),
        gradient_bytes=bytes_of(divided(gradients, fsdp)),
        fixed_bytes=max(least - few * per_picture - whole, 0),
        picture_bytes=per_picture,
        source=source,
    )


def divided(tree: Any, fsdp: int) -> Any:
    """Returns the shapes of the share of a state that a device holds."""
    if fsdp == 1:
        return tree
    mesh = AbstractMesh((1, fsdp), sharding.AXES, axis_types=(AxisType.Auto,) * 2)
    return jax.tree.map(
        lambda leaf, rule: jax.ShapeDtypeStruct(rule.shard_shape(leaf.shape), leaf.dtype),
        tree,
        sharding.state_shardings(mesh, tree),
    )


def _temporary_bytes(each: Program, config: ConfigDict, pictures: int) -> int:
    """Returns the memory of a compiled step beside state and batch on one device."""
    lowered = each.step.lower(each.state, batch_of(config, pictures))
    # Buffers are assigned before machine code is made, so its quality does not matter.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return lowered.compile(compiler_options=options).memory_analysis().temp_size_in_bytes


def _traced_bytes(each: Program, config: ConfigDict, pictures: int) -> int:
    """Returns the most memory that the gradient's traced program holds at once, beside parameters and batch."""
    trainable = optim.trainable(each.state.params, config.optim.lr_scales)

    def loss_of(params, batch_stats, batch):
        if trainable is not None:
            params = jax.tree.map(lambda x, moves: x if moves else jax.lax.stop_gradient(x), params, trainable)
        output, updated = each.model.apply(
            {"params": params, "batch_stats": batch_stats},
            normalise(batch["image"]),
            batch["tokens"],
            train=True,
            rngs={"dropout": noise.key(0)},
            mutable=["batch_stats"],
        )
        masks = batch["mask"].astype(jnp.float32)
        loss, _ = segmentation_loss(output.layer_logits, masks, batch["valid"], **config.loss.to_dict())
        return loss, updated["batch_stats"]

    traced = jax.make_jaxpr(jax.value_and_grad(loss_of, has_aux=True))
    return peak_bytes(traced(each.state.params, each.state.batch_stats, batch_of(config, pictures)).jaxpr)
