"""Adam with a learning rate per parameter group and step decay (paper section 4.1)."""

import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from unilseg_jax.errors import UserError


def learning_rate(
    *, peak: float, total_steps: int, warmup_steps: int, decay_at: Sequence[float], decay_factor: float
) -> Callable[[jax.Array], jax.Array]:
    """Returns the schedule: linear warm-up, then constant, multiplied at each point of `decay_at`.

    Args:
        peak: the rate after warm-up.
        total_steps: of the run.
        warmup_steps: of linear growth from nothing.
        decay_at: shares of the run (0 to 1) after which the rate is multiplied.
        decay_factor: by this.
    """

    def rate(step):
        warm = jnp.minimum(1.0, (step + 1) / max(warmup_steps, 1))
        passed = sum(jnp.where(step >= round(share * total_steps), 1.0, 0.0) for share in decay_at)
        return peak * warm * decay_factor**passed

    return rate


def group_scales(params: dict, rules: Sequence[tuple[str, float]]) -> dict:
    """Returns for each parameter the factor of its learning rate.

    Args:
        params: nested parameters, or their shapes.
        rules: (regular expression, factor); the first that matches the start of a parameter's path, such
            as `image_encoder/norm0/scale`, counts. A factor of 0 freezes.

    Raises:
        UserError: a parameter that no rule matches, or a rule that matches nothing.
    """
    used = set()

    def scale(path, _):
        name = "/".join(key.key for key in path)
        for pattern, factor in rules:
            if re.match(pattern, name):
                used.add(pattern)
                return float(factor)
        raise UserError(f"no rule of optim.lr_scales matches parameter {name}; add ('.*', 1.0) at the end")

    scales = jax.tree_util.tree_map_with_path(scale, params)
    idle = [pattern for pattern, _ in rules if pattern not in used]
    if idle:
        raise UserError(f"optim.lr_scales: {idle} match no parameter that an earlier rule left; mend or remove them")
    return scales


def make_optimizer(
    params: dict,
    schedule: Callable[[jax.Array], jax.Array],
    *,
    lr_scales: Sequence[tuple[str, float]],
    clip_norm: float,
) -> optax.GradientTransformation:
    """Returns Adam with PyTorch's defaults, after clipping the global norm of the gradients.

    Args:
        params: nested parameters, or their shapes.
        schedule: step to learning rate.
        lr_scales: see `group_scales`.
        clip_norm: greatest norm; 0 switches clipping off.
    """
    scales = group_scales(params, lr_scales)

    def scale_groups(updates, params=None):
        del params
        return jax.tree.map(lambda update, factor: update * factor, updates, scales)

    return optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
        optax.stateless(scale_groups),
        optax.scale_by_learning_rate(schedule),
    )
