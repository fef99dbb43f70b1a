"""How the step of a run is compiled, and a folder of compiled programs for later runs."""

import os
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from unilseg_jax.errors import UserError
from unilseg_jax.training import planning
from unilseg_jax.training.state import TrainState
from unilseg_jax.xla_flags import flags_of


def use_cache(folder: str) -> None:
    """Makes JAX keep compiled programs in a folder and take them from there; "" leaves it as the environment says.

    Raises:
        UserError: the folder cannot be made.
    """
    if not folder:
        return
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"config.compilation_cache = {folder!r} cannot be used: {error.strerror}; name a folder"
        ) from None
    jax.config.update("jax_compilation_cache_dir", os.path.abspath(folder))


def compile_step(
    train_step: Any, state: TrainState, batch: Any, config: ConfigDict
) -> tuple[float, Callable[..., tuple]]:
    """Compiles a step before it is taken.

    Args:
        train_step: see `step.make_train_step`.
        state: to be handed in.
        batch: as well.
        config: of the run.

    Returns:
        FLOPs per image as XLA counts them in the traced program, forward and backward, without what is computed again
        to save memory (0: not known); and the compiled step.
    """
    lowered = train_step.lower(state, batch)
    counted, images = lowered, config.input.batch_size
    if config.remat != "none" or config.optim.accumulate > 1:
        plain = planning.program(config, planning.one_device(), remat="none")
        counted, images = plain.step.lower(plain.state, planning.batch_of(config, 1)), 1
    flops = (counted.cost_analysis() or {}).get("flops", 0.0) / images
    return flops, lowered.compile(compiler_options=flags_of(config.xla_flags) or None)
