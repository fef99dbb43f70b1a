"""Named sets of XLA's flags, as a config names them."""

import os
from collections.abc import Mapping
from typing import Any

from unilseg_jax.errors import UserError

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
