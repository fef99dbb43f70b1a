"""How the step of a run is compiled: named sets of XLA's flags, and a folder of compiled programs for later runs."""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from unilseg_jax.errors import UserError

if TYPE_CHECKING:
    from unilseg_jax.training.state import TrainState

_COMBINED = 128 * 2**20
"""Bytes up to which XLA joins collectives of a kind into one."""

FLAG_SETS: Mapping[str, Mapping[str, bool | int]] = {
    # Collectives run while the devices compute: for several GPUs.
    "overlap": {"xla_gpu_enable_latency_hiding_scheduler": True},
    # Few large collectives instead of many small ones: for several nodes.
    "combine": {
        "xla_gpu_all_reduce_combine_threshold_bytes": _COMBINED,
        "xla_gpu_all_gather_combine_threshold_bytes": _COMBINED,
        "xla_gpu_reduce_scatter_combine_threshold_bytes": _COMBINED,
    },
    # No kernel whose sums depend on the order of its threads, and none chosen by timing: the same bits in each run.
    "deterministic": {"xla_gpu_deterministic_ops": True},
}
"""Of the GPU compiler; others take no notice."""


def flags_of(names: str) -> dict[str, bool | int]:
    """Returns the flags of named sets.

    Args:
        names: keys of `FLAG_SETS` with commas between them, such as `overlap,combine`; "" for none.

    Raises:
        UserError: there is no set of such a name.
    """
    chosen = [name.strip() for name in names.split(",")] if names else []
    for name in chosen:
        if name not in FLAG_SETS:
            raise UserError(
                f"config.xla_flags = {names!r}: there is no set {name!r}; wanted are some of {', '.join(FLAG_SETS)}"
            )
    return {flag: value for name in chosen for flag, value in FLAG_SETS[name].items()}


def described(names: str) -> dict[str, Any]:
    """Returns what XLA is told, for the run's `config.json`: the flags of `names`, and those of the environment."""
    return {"flags": flags_of(names), "environment": os.environ.get("XLA_FLAGS", "")}


def use_cache(folder: str) -> None:
    """Makes JAX keep compiled programs in a folder and take them from there; "" leaves it as the environment says.

    Raises:
        UserError: the folder cannot be made.
    """
    import jax

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
    train_step: Any, state: "TrainState", batch: Any, config: ConfigDict
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
    from unilseg_jax.training import planning

    lowered = train_step.lower(state, batch)
    counted, images = lowered, config.input.batch_size
    if config.remat != "none" or config.optim.accumulate > 1:
        plain = planning.program(config, planning.one_device(), remat="none")
        counted, images = plain.step.lower(plain.state, planning.batch_of(config, 1)), 1
    flops = (counted.cost_analysis() or {}).get("flops", 0.0) / images
    return flops, lowered.compile(compiler_options=flags_of(config.xla_flags) or None)
